"""The shipped product as a user runs it: the service as a process, real Ray, real vLLM, the tiny world's small model.

One service and one data directory for the whole module; a test that ends the service leaves it to the next one to
start it again, which is what users do.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from service.cluster import HostKind
from service.shards import file_sha256
from tests.e2e.service_process import REPOSITORY, TINY_WORLD, ServiceProcess, command, until

pytestmark = pytest.mark.engine

MODEL = "gsm-mini-small"
MODEL_DIR = TINY_WORLD / "models" / MODEL
NUM_PROBLEMS = 250
FLOPS = 1.2e11
"""About 4,600 samples: ten seconds of an idle core, and the first file is committed after two or three."""
WINDOW = 320
"""Samples inside the engine: 256 that run, and a quarter of that in its queue."""
SCORERS = ["math_answer", "steps"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    service = ServiceProcess(tmp_path_factory.mktemp("service"))
    yield service
    service.close()


@pytest.fixture
def service(shared: ServiceProcess) -> ServiceProcess:
    """Runs, and knows the tiny world."""
    shared.ensure_running()
    shared.register_tiny_world()
    return shared


def assert_all_is_well(service: ServiceProcess, job_id: str) -> None:
    """The job has succeeded, its files tell one story, and the budget is used but not passed."""
    job = service.job(job_id)
    assert job["phase"] == "succeeded", service.explain(job_id)
    report = service.verify(job_id)
    assert report.faults == ()
    assert report.rows == job["progress"]["samples"] > 0
    assert report.score_rows == report.rows * len(SCORERS)
    budget = job["progress"]["budget"]
    assert budget["reserved"] == 0.0
    assert budget["spent"] <= budget["limit"]


def test_flop_budget_becomes_scored_samples_and_every_page_of_numbers_agrees(service: ServiceProcess) -> None:
    job_id = service.submit(budget={"flops": FLOPS}, scorers=SCORERS)
    progress = service.wait_ended(job_id)["progress"]
    assert_all_is_well(service, job_id)
    report = service.verify(job_id)
    assert progress["budget"]["used_fraction"] >= 0.99
    assert progress["errors"] == 0
    assert report.recomputed_flops == pytest.approx(progress["flops"]["spent"])
    assert report.recomputed_flops <= FLOPS
    # metrics: what the README of the tiny world measured for this model, with room for a sample of this size
    summary = service.get(f"/v1/jobs/{job_id}/metrics")["summary"]
    assert summary["num_samples"] == progress["samples"]
    assert summary["sampled_problems"] == NUM_PROBLEMS
    coverage = {point["k"]: point["estimate"]["value"] for point in summary["coverage"]}
    assert coverage[1] == pytest.approx(0.467, abs=0.04)
    assert coverage[10] == pytest.approx(0.841, abs=0.04)
    # samples
    page = service.get(f"/v1/jobs/{job_id}/samples", limit=200, verdict="correct")["items"]
    assert len(page) == 200
    for sample in page:
        verdicts = {score["scorer"]: score["verdict"] for score in sample["scores"]}
        assert verdicts["math_answer"] == "correct"
        assert sample["engine_version"].startswith("vllm")
        assert "####" in sample["completion"]
    # tasks, events, usage
    tasks = service.tasks(job_id, "generate")
    assert {task["state"] for task in tasks} <= {"succeeded", "cancelled"}
    assert {task["state"] for task in service.tasks(job_id, "score")} == {"succeeded"}
    kinds = [event["kind"] for event in service.get(f"/v1/jobs/{job_id}/events")["items"]]
    assert kinds[0] == "submitted"
    assert "budget_spent" in kinds
    usage = service.usage(job_id)
    assert set(usage) <= {"useful", "truncated"}
    assert sum(row["samples"] for row in usage.values()) == progress["samples"]
    assert sum(row["flops"] for row in usage.values()) == pytest.approx(report.recomputed_flops)


def test_two_prompts_and_two_temperatures_share_an_engine_and_the_budget(service: ServiceProcess) -> None:
    example = {"question": "Eva starts with 12 coins. She buys 16 coins. How many coins does she have now?"}
    shown = {"examples": [example | {"solution": "12+16=28. #### 28"}]}
    prompts = [{"name": "plain"}, {"name": "worked", "few_shot": shown}]
    sampling = {"temperatures": [0.4, 0.9], "max_tokens": 60}
    allocation = {"strategy": "uniform", "equal": "budget"}
    job_id = service.submit(
        budget={"flops": 6e10}, scorers=SCORERS, prompts=prompts, sampling=sampling, allocation=allocation
    )
    service.wait_ended(job_id)
    assert_all_is_well(service, job_id)
    arms = {arm["name"]: arm for arm in service.job(job_id)["arms"]}
    assert list(arms) == ["plain t=0.4", "plain t=0.9", "worked t=0.4", "worked t=0.9"]
    shares = [arm["spent"] / 1.5e10 for arm in arms.values()]
    assert all(0.85 <= share <= 1.1 for share in shares), shares
    metrics = {arm["name"]: arm["summary"] for arm in service.get(f"/v1/jobs/{job_id}/metrics")["arms"]}
    assert {name: found["num_samples"] for name, found in metrics.items()} == {
        name: arm["samples"] for name, arm in arms.items()
    }
    kinds = {(task["kind"], task["arm"]) for task in service.tasks(job_id, "prepare")}
    assert kinds == {("prepare", "plain t=0.4"), ("prepare", "worked t=0.4")}


def test_adapter_is_drawn_by_the_engine_of_its_base_as_peft_computes_it(service: ServiceProcess) -> None:
    from tests.workers.tiny_adapters import greedy_texts, write_adapter  # imports torch

    adapter = write_adapter(service.directory / "adapter", MODEL_DIR, scale=0.1)
    model = service.post("/v1/models", {"name": "tuned", "path": str(adapter)})
    num_loads = service.event_kinds().count("engine_ready")

    job_id = service.submit(
        models=[MODEL, "tuned"],
        max_problems=20,
        budget={"samples_per_problem": 2},
        sampling={"temperature": 0, "max_tokens": 60},
        scorers=SCORERS,
    )
    service.wait_ended(job_id)

    assert_all_is_well(service, job_id)
    assert service.event_kinds().count("engine_ready") - num_loads <= 1, "a swap of weights loads no engine"
    assert model["cost"] == service.get(f"/v1/models/{MODEL}")["cost"]
    rows = [row for file in service.files(job_id) for row in pq.read_table(file["path"]).to_pylist()]
    names = (MODEL, "tuned")
    assert Counter(row["model"] for row in rows) == dict.fromkeys(names, 20)
    drawn = {name: {row["prompt"]: row["completion"] for row in rows if row["model"] == name} for name in names}
    computed = {
        name: greedy_texts(MODEL_DIR, drawn[MODEL], max_tokens=60, adapter=beside)
        for name, beside in zip(names, (None, adapter), strict=True)
    }
    # the engine computes in bfloat16, so that a greedy choice falls otherwise in half of the completions
    agree = {
        (one, other): sum(drawn[one][prompt] == computed[other][prompt] for prompt in drawn[MODEL])
        for one in names
        for other in names
    }
    assert min(agree[name, name] for name in names) >= 5, agree
    assert max(agree[MODEL, "tuned"], agree["tuned", MODEL]) <= 1, agree


@pytest.mark.chaos
def test_engine_killed_in_the_middle_costs_no_more_than_what_it_held(service: ServiceProcess) -> None:
    job_id = service.submit(budget={"flops": FLOPS}, scorers=SCORERS)
    service.wait_parts(job_id, 1)
    pid = service.host_pid(HostKind.generator, MODEL)
    os.kill(pid, signal.SIGSTOP)  # frozen, so that what it holds can be read before it goes
    held = until_steady(service, job_id)
    (cost,) = service.post("/v1/jobs?dry_run=true", service.job(job_id)["document"])["cost_per_sample"]
    assert 0 < held <= 3 * WINDOW * cost["worst_case_to"]
    before = service.files(job_id)
    os.kill(pid, signal.SIGKILL)
    service.wait_ended(job_id)
    assert_all_is_well(service, job_id)
    assert service.host_pid(HostKind.generator, MODEL) != pid
    after = {file["path"]: file for file in service.files(job_id)}
    for file in before:
        assert after[file["path"]] == file
        assert file_sha256(Path(file["path"])) == file["sha256"]
    lost = service.usage(job_id)["lost"]["flops"]
    assert 0 < lost <= held + 1e6  # the ledger counts whole MFLOP, usage does not
    budget = service.job(job_id)["progress"]["budget"]
    assert budget["spent"] >= 0.99 * budget["limit"]


def until_steady(service: ServiceProcess, job_id: str) -> float:
    """FLOPs reserved and not settled for running attempts, unchanged for ten ticks: a frozen host is told no more."""
    held, since = -1.0, 0

    def look() -> bool:
        nonlocal held, since
        tick = service.get("/healthz")["num_ticks"]
        tasks = service.tasks(job_id, "generate")
        now = sum(task["credit"] - task["settled"] for task in tasks if task["state"] in ("submitted", "running"))
        held, since = now, tick if now != held else since
        return tick - since >= 10

    until(look, "credit to stay as it is", 20.0)
    return held


def test_service_killed_in_the_middle_finds_its_engine_and_draws_nothing_twice(service: ServiceProcess) -> None:
    job_id = service.submit(budget={"flops": FLOPS}, scorers=SCORERS)
    service.wait_parts(job_id, 1)
    engine = service.host_pid(HostKind.generator, MODEL)
    dispatcher = service.host_pid(HostKind.dispatcher)
    started = psutil.Process(engine).create_time()
    cluster = service.cluster_processes()[0]
    num_loads = service.event_kinds().count("engine_ready")
    service.kill()
    service.start()
    service.wait_ended(job_id)
    assert_all_is_well(service, job_id)
    assert service.cluster_processes()[0] == cluster
    assert service.host_pid(HostKind.generator, MODEL) == engine
    assert psutil.Process(engine).create_time() == started
    assert service.host_pid(HostKind.dispatcher) != dispatcher
    assert service.event_kinds().count("engine_ready") == num_loads
    # an attempt draws each of its samples once, so nothing was drawn twice if every task had a single attempt
    assert {task["attempt"] for task in service.tasks(job_id, "generate")} == {1}
    assert set(service.usage(job_id)) <= {"useful", "truncated"}


@pytest.mark.chaos
def test_graceful_stop_in_the_middle_hands_everything_back_and_the_next_start_goes_on(service: ServiceProcess) -> None:
    job_id = service.submit(budget={"flops": FLOPS}, scorers=SCORERS)
    service.wait_parts(job_id, 1)
    cluster = service.cluster_processes()
    assert service.stop() == 0, service.output()
    assert [process for process in cluster if process.is_alive()] == []
    assert service.head() is None
    stopped = {task.id: task for task in service.store.reads.tasks(job_id)}
    assert not any(task.state.is_in_flight for task in stopped.values())
    service.start()
    before = service.files(job_id)
    assert before
    assert service.job(job_id)["phase"] == "running"
    service.wait_ended(job_id)
    assert_all_is_well(service, job_id)
    assert set(service.usage(job_id)) <= {"useful", "truncated"}
    # what was handed back goes on as the attempt that it waited to be, and nothing was tried once more
    attempts = {task["id"]: task["attempt"] for task in service.tasks(job_id, "generate")}
    assert {id_: attempts[id_] for id_ in stopped if id_ in attempts} == {
        id_: task.attempt for id_, task in stopped.items() if id_ in attempts
    }
    after = {file["path"]: file for file in service.files(job_id)}
    assert all(after[file["path"]] == file for file in before)


def test_second_service_on_a_directory_is_refused_by_name(service: ServiceProcess) -> None:
    answer = subprocess.run(
        command(service.data_dir), cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 1
    assert str(service.data_dir) in answer.stderr
    assert f"process {service.pid}" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = subprocess.run(
            command(tmp_path / "data", port=port),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert answer.returncode == 1
    assert f"port {port}" in answer.stderr
    assert "in use" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_until_correct_stops_each_problem_at_its_first_right_answer(service: ServiceProcess) -> None:
    cap = 4
    job_id = service.submit(
        budget={"flops": FLOPS},
        allocation={"strategy": "until_correct", "target_correct": 1, "max_samples": cap},
        scorers=SCORERS,
    )
    service.wait_ended(job_id)
    assert_all_is_well(service, job_id)
    verdicts = read_verdicts(service, job_id)
    assert len(verdicts) == NUM_PROBLEMS
    for right in verdicts.values():
        assert not any(right[:-1])
        assert right[-1] or len(right) == cap
    num_solved = sum(right[-1] for right in verdicts.values())
    num_samples = sum(map(len, verdicts.values()))
    # at a cap of four the small model solves 0.72 of the problems, for 2.2 samples each instead of four
    assert num_solved == pytest.approx(0.72 * NUM_PROBLEMS, abs=25)
    assert num_samples < 0.7 * cap * NUM_PROBLEMS
    assert service.job(job_id)["progress"]["samples"] == num_samples


def read_verdicts(service: ServiceProcess, job_id: str) -> dict[str, list[bool]]:
    """Whether each sample of a problem is right, in the order of the samples, from the committed files."""
    right = {
        row["sample_id"]: row["verdict"] == "correct"
        for file in service.items("/v1/scores", job=job_id)
        for row in pq.read_table(file["path"]).to_pylist()
        if row["scorer"] == "math_answer"
    }
    rows = [row for file in service.files(job_id) for row in pq.read_table(file["path"]).to_pylist()]
    found: dict[str, list[bool]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["sample_index"]):
        found[row["problem_id"]].append(right[row["sample_id"]])
    return found


def test_truncated_weights_are_refused_naming_the_file(service: ServiceProcess) -> None:
    broken = copy_model(service, "truncated")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    answer = service.try_post("/v1/models", {"name": "truncated", "path": str(broken)})
    assert answer.status_code == 422
    assert str(weights) in answer.json()["detail"]
    assert "cut off" in answer.json()["detail"]


def test_pickled_weights_are_refused_naming_the_file(service: ServiceProcess) -> None:
    broken = copy_model(service, "pickled")
    (broken / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    answer = service.try_post("/v1/models", {"name": "pickled", "path": str(broken)})
    assert answer.status_code == 422
    assert str(broken / "pytorch_model.bin") in answer.json()["detail"]


@pytest.mark.chaos
def test_weights_that_do_not_fit_their_configuration_fail_the_job_with_the_reason(service: ServiceProcess) -> None:
    broken = copy_model(service, "mismatch")
    config = broken / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": 64', '"hidden_size": 128'))
    service.post("/v1/models", {"name": "mismatch", "path": str(broken)})
    job_id = service.submit(models=["mismatch"], budget={"flops": FLOPS})
    job = service.wait_ended(job_id, 120.0)
    assert job["phase"] == "failed"
    assert "engine for mismatch does not load" in job["error"]
    assert "64" in job["error"]
    assert "128" in job["error"]


def copy_model(service: ServiceProcess, name: str) -> Path:
    """A model directory of its own to damage."""
    directory = service.directory / name
    shutil.copytree(TINY_WORLD / "models" / MODEL, directory)
    return directory
