"""A judge behind vLLM's own server, as a user asks it: from old completions to the training set of what it let pass."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from gsm_mini.judging import Judgement, judge_problems, written_judgements
from typer.testing import CliRunner

from api.cli import app
from service.forward_cost import UNKNOWN_COST
from service.models import EngineOptions, ModelSpec
from tests.e2e.service_process import TINY_WORLD, ServiceProcess
from tests.engine.vllm_server import vllm_server

pytestmark = [pytest.mark.ray, pytest.mark.engine]

JUDGE = TINY_WORLD / "models" / "gsm-mini-judge"
KEY = "key-of-the-test"
NUM_PROBLEMS = 24
INPUT_USD, OUTPUT_USD = 0.5, 2.0


@pytest.fixture(scope="module")
def judgements() -> list[Judgement]:
    """A valid and a faulty solution of every problem."""
    return written_judgements(judge_problems(NUM_PROBLEMS, (), "test"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    context_len = json.loads((JUDGE / "config.json").read_text())["max_position_embeddings"]
    engine = EngineOptions(dtype="float32", max_num_seqs=16, kv_cache_gib=0.1)
    model = ModelSpec(
        name="judge", path=str(JUDGE), revision="", context_len=context_len, cost=UNKNOWN_COST, engine=engine
    )
    with vllm_server(model, log=tmp_path / "server.log", api_key=KEY) as url:
        yield url


@pytest.fixture
def service(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServiceProcess]:
    monkeypatch.setenv("ISOFLOP_ENDPOINTS", json.dumps({server: "KEY_OF_JUDGE"}))
    monkeypatch.setenv("KEY_OF_JUDGE", KEY)
    made = ServiceProcess(tmp_path / "service")
    made.directory.mkdir()
    made.start()
    yield made
    made.close()


def isoflop(service: ServiceProcess, *words: object) -> str:
    """What a command line says."""
    result = CliRunner(env={"ISOFLOP_URL": service.url}).invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def import_solutions(service: ServiceProcess, judgements: list[Judgement]) -> str:
    """A job of what is there to be judged; its id."""
    problems, old = service.directory / "problems.jsonl", service.directory / "old.jsonl"
    rows = {item.problem.question: item.problem.answer for item in judgements}
    problems.write_text(
        "".join(
            json.dumps({"id": f"p{n}", "question": question, "answer": str(answer)}) + "\n"
            for n, (question, answer) in enumerate(rows.items())
        )
    )
    old.write_text(
        "".join(
            json.dumps({"question": item.problem.question, "completion": item.completion}) + "\n" for item in judgements
        )
    )
    isoflop(service, "problems", "register", "fresh", problems)
    said = isoflop(
        service, "import", old, "--problems", "fresh", "--model-name", "pen and paper", "--scorer", "math_answer"
    )
    job_id = said.split()[0]
    assert service.wait_ended(job_id)["phase"] == "succeeded"
    return job_id


def test_judge_behind_a_server_reads_every_solution_is_paid_in_usd_and_what_it_lets_pass_is_selected(
    service: ServiceProcess, server: str, judgements: list[Judgement]
) -> None:
    job_id = import_solutions(service, judgements)
    endpoint = {"base_url": server, "model": "judge", "dialect": "vllm", "sends_seed": "false"}
    fields = [word for field, value in endpoint.items() for word in ("--endpoint", f"{field}={value}")]
    prices = ["--price", f"input_usd={INPUT_USD}", "--price", f"output_usd={OUTPUT_USD}"]
    isoflop(
        service, "models", "register", "there/judge", JUDGE, *fields, "--endpoint", "prompt_form=token_ids", *prices
    )
    template = service.directory / "ask.txt"
    template.write_text("{question}\n{completion}")

    said = isoflop(
        service,
        *("judge", job_id, "--model", "there/judge", "--template", template, "--keep", "all", "--watch"),
        "sampling.max_tokens=2",
    )
    (judge_id,) = re.findall(r"judges=\[(job-[^\]]+)\]", said)
    made = service.post("/v1/selections", {"sources": [{"job": job_id}], "keep": "judged", "judges": [judge_id]})
    isoflop(service, "watch", made["id"])

    judging = service.job(judge_id)
    assert (judging["phase"], judging["progress"]["samples"]) == ("succeeded", len(judgements))
    assert service.verify(judge_id).faults == ()
    answers = [row for file in service.files(judge_id) for row in pq.read_table(file["path"]).to_pylist()]
    assert {row["completion"].strip() for row in answers} == {"yes", "no"}
    (spent,) = [row for row in service.get("/v1/usage", job=judge_id, by="stage")["items"] if row["stage"] == "judge"]
    tokens = [(row["prompt_tokens"], row["completion_tokens"]) for row in answers]
    price = sum(INPUT_USD * prompt + OUTPUT_USD * completion for prompt, completion in tokens) / 1e6
    assert spent["usd"] == pytest.approx(price)
    found = service.get(f"/v1/selections/{made['id']}")
    kept = {row["completion"] for row in pq.read_table(found["path"]).to_pylist()}
    valid, faulty = ({item.completion for item in judgements if item.is_valid is truth} for truth in (True, False))
    # the judge was measured on such solutions: it misses a third of the faults and hardly ever a valid one
    assert len(kept & valid) >= 0.85 * len(valid)
    assert len(kept & faulty) <= 0.6 * len(faulty)
    assert found["judged"]["yes"] == found["rows"] > 0
    hosts = service.store.reads.hosts()
    assert {host.model for host in hosts if host.model} == {"there/judge"}
    assert all((host.gpus, host.cores) == (0, 0) for host in hosts if host.model)
