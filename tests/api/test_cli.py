"""The command line against the real service: output, exit codes, errors, job files."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from api import cli_watch
from api.cli import app
from api.cli_output import ExitCode, table
from api.job_files import read_job_file
from service.errors import InvalidInput
from service.work import TaskKind

Run = Callable[..., Result]
JOB = """
problems: sums/train
models: [small]
budget: {flops: 2e10}
sampling: {max_tokens: 32}
"""


def _run(url: str, *arguments: str | Path) -> Result:
    return CliRunner(env={"ISOFLOP_URL": url}).invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def run(served) -> Run:
    """Runs a command line against `served`."""
    return lambda *arguments: _run(served.url, *arguments)


@pytest.fixture
def read(served_finished) -> Run:
    """Runs a command line against the service with the ended job; JOB stands for its id."""
    served, job_id = served_finished
    return lambda *arguments: _run(served.url, *(job_id if a == "JOB" else a for a in arguments))


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def test_submit_stores_the_job_with_overrides(served, run: Run, job_file: Path) -> None:
    result = run("submit", job_file, "seed=7", "sampling.temperature=0", "allocation={strategy: until_correct, k: 2}")

    assert result.exit_code == 0, result.output
    (_, job), *others = served.world.store.jobs.list()
    assert others == []
    assert job.id in result.stdout
    assert f"isoflop watch {job.id}" in result.stdout
    assert (job.spec.seed, job.spec.sampling.temperature, job.spec.budget.limit) == (7, 0.0, 20_000)
    assert job.spec.allocation.target_correct == 2


def test_submit_json_is_the_job_document(served, run: Run, job_file: Path) -> None:
    result = run("submit", job_file, "--json")

    assert json.loads(result.stdout)["phase"] == "queued"


def test_dry_run_says_what_of_a_template_elsewhere_cannot_be_shown(run: Run, job_file: Path) -> None:
    result = run("submit", job_file, "--dry-run", "prompt={use_chat_template: true}")

    assert result.exit_code == 0, result.output
    assert "  first prompt not shown: the chat template of small is in /models/small, which" in result.stdout


def test_models_limits_says_what_holds_from_now_on(run: Run) -> None:
    server = ("--endpoint", "base_url=https://open.example/v1", "--endpoint", "model=big")
    assert run("models", "register", "api", *server, "--context-len", "256").exit_code == 0

    result = run("models", "limits", "api", "max_in_flight=4", "requests_per_minute=30.5")
    refused = run("models", "limits", "api", "max_in_flight=0")

    assert result.stdout.startswith("api  max_in_flight 4, requests_per_minute 30.5, tokens_per_minute none, ")
    assert (refused.exit_code, "endpoint.max_in_flight" in refused.stderr) == (2, True)


def test_adapter_registers_and_shows_with_its_base_in_list_and_dry_run(served, run: Run, job_file: Path) -> None:
    path = served.world.root / "adapter"
    path.mkdir()
    (path / "adapter_config.json").write_text('{"peft_type": "LORA"}')

    registered = run("models", "register", "lab/tuned", path, "--base", "small")
    refused = run("models", "register", "lab/lost", path)

    assert "merged into small, served by engines of small" in registered.stdout
    assert (refused.exit_code, "allowed: small, org/large" in refused.stderr) == (2, True)
    assert f"small with adapter {path}" in run("models", "list").stdout
    plan = run("submit", job_file, "--dry-run", "models=[small, lab/tuned]").stdout
    assert "  adapter      lab/tuned, merged into small: a token costs the same\n" in plan


def test_submit_with_one_key_twice_is_one_job(served, run: Run, job_file: Path) -> None:
    for _ in range(2):
        assert run("submit", job_file, "--key", "same").exit_code == 0

    assert len(served.world.store.jobs.list()) == 1


def test_submit_dry_run_prices_and_stores_nothing(served, run: Run, job_file: Path) -> None:
    result = run("submit", job_file, "--dry-run")

    assert result.exit_code == 0
    assert "worst case" in result.stdout
    assert "sampling     small: temperature 0.7, top_p 1.0, top_k 0" in result.stdout
    assert "    | What is 0 + 1? [answer=1]" in result.stdout
    assert json.loads(run("submit", job_file, "--dry-run", "--json").stdout)["is_dry_run"] is True
    assert served.world.store.jobs.list() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["models=[huge]"], "unknown model 'huge'; known: org/large, simulated, small"),
        (["budget.flops=-1"], "budget.flops: got -1"),
        (["budget.flops=2e6"], "budget too small"),
        (["budget.usd=5"], "budget: got usd with small, which needs a price"),
        (["modles=[small]"], "did you mean 'models'"),
        (["seed"], "override: got 'seed'"),
        (["problems.name=x"], "allowed: a mapping"),
        (["seed=[1"], "not YAML"),
    ],
)
def test_submit_mistake_is_one_line_on_stderr_and_exit_2(
    run: Run, job_file: Path, arguments: list[str], words: str
) -> None:
    result = run("submit", job_file, *arguments)

    assert result.exit_code == ExitCode.usage
    assert result.stdout == ""
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output


def test_submit_mistake_with_json_is_an_error_document(run: Run, job_file: Path) -> None:
    result = run("submit", job_file, "models=[huge]", "--json")

    assert result.exit_code == ExitCode.usage
    assert json.loads(result.stdout)["error"]["title"] == "unknown name"


def test_debug_shows_the_error_itself(run: Run, job_file: Path) -> None:
    result = run("--debug", "submit", job_file, "models=[huge]")

    assert result.exception is not None
    assert "huge" in str(result.exception)


@pytest.mark.parametrize("content", ["", "- a", "text", "a: [", "\x00"])
def test_submit_file_that_is_no_mapping_is_exit_2(run: Run, tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.yaml").write_text(content)

    assert run("submit", tmp_path / "bad.yaml").exit_code == ExitCode.usage
    assert run("submit", tmp_path / "missing.yaml").exit_code == ExitCode.usage


def test_nobody_there_is_exit_1_with_next_step() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        result = _run(f"http://127.0.0.1:{reserved.getsockname()[1]}", "status")

    assert result.exit_code == ExitCode.failed
    assert "isoflop up" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["status", "job-9"], ["cancel", "job-9"], ["watch", "job-9"], ["nonsense"], ["submit"]]
)
def test_what_another_command_line_would_fix_is_exit_2(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == ExitCode.usage


def test_pause_resume_cancel_change_what_is_wanted(served, run: Run, job_file: Path) -> None:
    job_id = json.loads(run("submit", job_file, "--json").stdout)["id"]

    for verb, desired in (("pause", "pause"), ("resume", "run"), ("cancel", "cancel")):
        assert json.loads(run(verb, job_id, "--json").stdout)["desired"] == desired
    result = run("resume", job_id)
    assert result.exit_code == ExitCode.failed
    assert "is being cancelled" in result.stderr


def test_status_lists_jobs_and_shows_one(read: Run) -> None:
    listed = read("status")
    one = read("status", "JOB")

    assert listed.exit_code == one.exit_code == 0
    assert "succeeded" in listed.stdout
    assert "24 samples" in one.stdout
    assert "100 % of 24 samples" in one.stdout
    document = json.loads(read("status", "--json").stdout)
    assert document["jobs"][0]["id"] == json.loads(read("status", "JOB", "--json").stdout)["id"]
    assert set(document) == {"url", "health", "jobs"}


def test_status_of_an_empty_service_says_how_to_begin(run: Run) -> None:
    assert "isoflop submit" in run("status").stdout


def test_watch_of_an_ended_job_prints_its_story_and_exit_0(read: Run) -> None:
    result = read("watch", "JOB")

    assert result.exit_code == ExitCode.done
    assert "submitted" in result.stdout
    assert "isoflop metrics" in result.stdout.splitlines()[-1]
    messages = [json.loads(line) for line in read("watch", "JOB", "--json").stdout.splitlines()]
    assert messages[-1] == {"kind": "end", "phase": "succeeded"}


@pytest.mark.parametrize(
    ("desired", "phase", "code"), [("cancel", "cancelled", ExitCode.cancelled), ("run", "succeeded", ExitCode.done)]
)
def test_submit_watch_exit_code_says_how_the_job_ended(
    served, run: Run, run_jobs, job_file: Path, desired: str, phase: str, code: ExitCode
) -> None:
    job_id = json.loads(run("submit", job_file, "models=[simulated]", "budget.samples_per_problem=1", "--json").stdout)[
        "id"
    ]
    if desired == "cancel":
        run("cancel", job_id)
    run_jobs(served.world)

    result = run("watch", job_id)

    assert served.world.store.jobs.get(job_id).phase == phase
    assert result.exit_code == code


def test_job_with_a_prompt_that_does_not_fit_ends_with_row_errors_and_exit_3(
    served, run: Run, run_jobs, job_file: Path
) -> None:
    questions = ["1+1?", "x" * 1000]
    lines = [json.dumps({"question": question, "answer": 2}) for question in questions]
    (served.world.root / "long.jsonl").write_text("\n".join(lines))
    run("problems", "register", "long", served.world.root / "long.jsonl")
    overrides = ("models=[simulated]", "problems=long", "budget.samples_per_problem=2")
    job_id = json.loads(run("submit", job_file, *overrides, "--json").stdout)["id"]
    run_jobs(served.world)

    result = run("watch", job_id)

    assert result.exit_code == ExitCode.row_errors
    assert "with errors" in result.stdout
    failed = [json.loads(line) for line in run("samples", job_id, "--verdict", "failed", "--json").stdout.splitlines()]
    assert [sample["problem_index"] for sample in failed] == [1]
    assert all("context of 256" in sample["error"] for sample in failed)


def test_watch_on_a_terminal_draws_bars(served_finished, monkeypatch: pytest.MonkeyPatch) -> None:
    served, job_id = served_finished
    monkeypatch.setattr(cli_watch, "is_terminal", lambda: True)

    result = _run(served.url, "watch", job_id)

    assert result.exit_code == ExitCode.done
    assert "24 samples" in result.stdout
    bars = [line for line in result.stdout.splitlines() if "━" in line]
    assert max(map(len, bars)) <= 80


def test_watch_interrupted_detaches_and_says_the_job_goes_on(
    served, run: Run, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = json.loads(run("submit", job_file, "--json").stdout)["id"]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_watch.PlainScreen, "progress", interrupt)
    result = run("watch", job_id)

    assert result.exit_code == ExitCode.cancelled
    assert "the job goes on" in result.stderr
    assert served.world.store.jobs.get(job_id).desired == "run"


def test_samples_events_metrics_usage_read(read: Run) -> None:
    assert read("samples", "JOB", "--limit", "2").stdout.count("math_answer") == 2
    lines = read("samples", "JOB", "--verdict", "correct", "--json").stdout.splitlines()
    assert lines
    assert all(json.loads(line)["scores"][0]["verdict"] == "correct" for line in lines)
    assert "submitted" in read("events", "JOB").stdout
    assert json.loads(read("events", "--json").stdout)[0]["kind"] == "submitted"
    assert "pass@k (coverage)" in read("metrics", "JOB").stdout
    assert "24 of 24 scored" in read("metrics", "JOB").stdout
    assert json.loads(read("metrics", "JOB", "--json").stdout)["summary"]["num_samples"] == 24
    assert "generate" in read("usage").stdout
    assert {entry["stage"] for entry in json.loads(read("usage", "JOB", "--by", "stage", "--json").stdout)} >= {
        "generate"
    }


def test_metrics_before_the_first_score_say_so(run: Run, job_file: Path) -> None:
    job_id = json.loads(run("submit", job_file, "--json").stdout)["id"]

    assert "nothing is scored yet" in run("metrics", job_id).stdout


def test_metrics_and_status_promise_nothing_to_a_job_without_scorers(run: Run, job_file: Path) -> None:
    job_id = json.loads(run("submit", job_file, "scorers=[]", "--json").stdout)["id"]

    assert run("metrics", job_id).stdout == "not measured: the job has no scorers\n"
    assert "nothing, the job has no scorers" in run("status", job_id).stdout


def test_catalogue_verbs_register_and_list(served, run: Run) -> None:
    (served.world.root / "m").mkdir()
    (served.world.root / "m" / "config.json").write_text("{}")
    (served.world.root / "p.jsonl").write_text('{"q": "1+1?", "a": 2}')

    registered = run("models", "register", "lab/m", served.world.root / "m", "--engine", "max_num_seqs=4")
    assert registered.exit_code == 0, registered.output
    columns = ("--column", "question=q", "--column", "answer=a")
    assert run("problems", "register", "one", served.world.root / "p.jsonl", *columns).stdout == "one  1 problem\n"
    assert "lab/m" in run("models", "list").stdout
    assert json.loads(run("models", "list", "--json").stdout)[-1]["name"] == "lab/m"
    assert "sums/train" in run("problems", "list").stdout
    assert json.loads(run("pools", "scale", "lab/m", "--replicas", "3", "--json").stdout)["replicas"] == 3
    assert "lab/m" in run("pools", "list").stdout
    assert run("pools", "scale", "lab/m").exit_code == ExitCode.usage
    assert run("models", "register", "evil", "/etc").exit_code == ExitCode.usage


def test_verify_finds_a_job_by_id_and_names_a_broken_file(served, run: Run, run_jobs, job_file: Path) -> None:
    world = served.world
    job_id = json.loads(run("submit", job_file, "models=[simulated]", "budget.samples_per_problem=2", "--json").stdout)[
        "id"
    ]
    run_jobs(world)

    good = run("--data-dir", world.settings.data_dir, "verify", job_id)
    assert good.exit_code == ExitCode.done, good.output
    assert "ok: 12 rows" in good.stdout
    shard = Path(world.store.reads.parts(job_id, TaskKind.generate)[0].path)
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    bad = run("verify", world.settings.data_dir / "jobs" / job_id)
    assert bad.exit_code == ExitCode.failed
    assert shard.name in bad.stdout
    report = json.loads(run("verify", world.settings.data_dir / "jobs" / job_id, "--json").stdout)
    assert report["is_ok"] is False
    assert run("verify", "no-such-job").exit_code == ExitCode.usage


def test_grade_writes_verdicts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"completion": "The answer is 4.", "reference": "4"}\n')

    result = run("grade", "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl", "--json")

    assert json.loads(result.stdout)["verdicts"] == {"correct": 1}
    assert json.loads((tmp_path / "out.jsonl").read_text())["verdict"] == "correct"
    missing = run("grade", "--input", tmp_path / "none.jsonl", "--output", tmp_path / "out.jsonl")
    assert missing.exit_code == ExitCode.usage


def test_bench_latex_measures_both_and_lists_where_they_differ(run: Run) -> None:
    result = run("bench", "latex", "--rows", "60", "--repeats", "2", "--json")

    measured = json.loads(result.stdout)
    assert measured["scorer_wrong"] == measured["math_verify_wrong"] == 0
    assert measured["disagreements"] == []
    assert len(measured["ratios"]) == 2
    assert 200 <= measured["mean_chars"] <= 600


def test_bench_scoring_measures(run: Run) -> None:
    result = run("bench", "scoring", "--rows", "40", "--repeats", "1", "--json")

    assert json.loads(result.stdout)["rows_per_second"] > 0


@pytest.mark.parametrize("form", ["--json", None])
def test_bench_report_says_where_and_what_it_measured(run: Run, form: str | None) -> None:
    result = run("bench", "report", "--samples", "1000", "--repeats", "1", *filter(None, [form]))

    if form is None:
        assert "load before" in result.stdout.splitlines()[0]
        assert "2 jobs of 1,000 samples over 10 problems" in result.stdout
    else:
        found = json.loads(result.stdout)
        assert (found["samples"], found["problems"], len(found["runs"])) == (1000, 10, 1)
        assert found["machine"]["cores"] > 0


def test_up_on_an_address_others_reach_is_refused(run: Run, tmp_path: Path) -> None:
    result = run("--data-dir", tmp_path / "d", "up", "--host", "0.0.0.0")

    assert result.exit_code == ExitCode.usage
    assert "loopback" in result.stderr
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "servers",
    [
        "sk-1a2b",
        '["sk-1a2b"]',
        '"sk-1a2b"',
        '{"https://a.example/v1": ["sk-1a2b"]}',
        '{"https://a.example/v1": "sk-1a2b"}',
    ],
)
def test_up_with_servers_that_are_no_list_of_variables_is_one_sentence_without_the_key(
    tmp_path: Path, servers: str
) -> None:
    result = CliRunner(env={"ISOFLOP_ENDPOINTS": servers}).invoke(
        app, ["--data-dir", str(tmp_path / "d"), "up", "--no-ray"]
    )

    assert result.exit_code == ExitCode.usage
    assert isinstance(result.exception, SystemExit)
    assert "allowed: " in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "1a2b" not in result.output


@pytest.mark.parametrize("arguments", [["--help"], ["status", "--help"]])
def test_help_starts_without_heavy_imports(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['isoflop', *sys.argv[1:]]\n"
        "from api.cli import app\n"
        "app(standalone_mode=False)\n"
        "heavy = set('torch ray vllm pandas transformers fastapi sqlalchemy numpy pyarrow httpx'.split())\n"
        "print('heavy:', sorted(heavy & set(sys.modules)))\n"
    )
    root = Path(__file__).parents[2]

    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=root, check=True
    )

    assert "heavy: []" in done.stdout


def test_job_file_numbers_are_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("budget: {flops: 2e12}\nseed: 1\nname: 2e12 FLOPs\na: 1.5E-3\nb: 1.e+3\nc: e12\nd: '1e3'\n")

    document = read_job_file(path, ["budget.tokens=1e6", "new.deep.er=[1, 2e0]"])

    assert document["budget"] == {"tokens": 1e6}
    assert (document["a"], document["b"], document["c"], document["d"]) == (1.5e-3, 1e3, "e12", "1e3")
    assert document["name"] == "2e12 FLOPs"
    assert document["new"] == {"deep": {"er": [1, 2.0]}}


@pytest.mark.parametrize("override", ["", "=", "a", ".a=1", "a..b=1", "a.=1"])
def test_job_file_override_that_is_none_is_refused(tmp_path: Path, override: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("a: {b: 1}")

    with pytest.raises(InvalidInput, match="override"):
        read_job_file(path, [override])


def test_table_aligns_numbers_right() -> None:
    assert table(("name", "n"), [("a", "1"), ("long", "1,000")], right=(1,)) == [
        "name      n",
        "a         1",
        "long  1,000",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: &a [x, x]\nb: [*a, *a]\n", "alias *a: none are allowed at line 2"),
        ("problems: " + "[" * 2000 + "]" * 2000, "more than 50 levels"),
        ("name: !!set {a}\n", "tag tag:yaml.org,2002:set: none are allowed"),
        ("seed: " + "9" * 5000 + "\n", "not readable as a document"),
        ("x" * (8 << 20) + "\n", "longer than 8,388,608 bytes"),
    ],
    ids=["alias", "deep", "tag", "digits", "long"],
)
def test_submit_file_that_no_document_is_written_as_is_refused(
    run: Run, tmp_path: Path, content: str, words: str
) -> None:
    (tmp_path / "bad.yaml").write_text(content)

    result = run("submit", tmp_path / "bad.yaml")

    assert result.exit_code == ExitCode.usage
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_submit_date_is_a_text(run: Run, job_file: Path) -> None:
    assert json.loads(run("submit", job_file, "name=2024-01-01", "--json").stdout)["name"] == "2024-01-01"


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "../models"],
        ["status", ""],
        ["status", "job-1/metrics"],
        ["status", "\udcff"],
        ["usage", "\udcff"],
        ["submit", "JOB.YAML", "--key", "\u043a\u043b\u044e\u0447"],
        ["submit", "JOB.YAML", "--key", ""],
        ["submit", "JOB.YAML", "a." * 2000 + "b=1"],
        ["submit", "JOB.YAML", "seed=" + "9" * 5000],
        ["models", "register", "\udcff", "."],
        ["pools", "scale", "..", "--replicas", "1"],
        ["--url", "http://[::1", "status"],
        ["--url", "ftp://here", "status"],
        ["--url", "http://127.0.0.1:99999", "status"],
        ["up", "--root", "/nope"],
        ["--data-dir", "/etc/passwd", "up"],
        ["--data-dir", "/proc/x", "up"],
        ["up", "--host", "192.0.2.1"],
        ["grade", "--input", "JOB.YAML", "--output", "."],
    ],
    ids=lambda arguments: " ".join(arguments)[:40].encode("utf-8", "backslashreplace").decode(),
)
def test_mistake_of_any_kind_is_one_short_line_and_exit_2(served, job_file: Path, arguments: list[str]) -> None:
    url = [] if "--url" in arguments else ["--url", served.url]
    result = CliRunner().invoke(app, [*url, *(str(job_file) if a == "JOB.YAML" else a for a in arguments)])

    assert result.exit_code == ExitCode.usage, result.output
    assert result.stderr.startswith("isoflop: ")
    assert result.stderr.count("\n") == 1
    assert len(result.stderr) < 600
    assert result.stderr.count(": got ") <= 1


def test_dry_run_of_a_budget_in_samples_prices_in_samples(run: Run, job_file: Path) -> None:
    lines = run("submit", job_file, "--dry-run", "budget={samples_per_problem: 2}").stdout

    assert "worst case   1 of the budget's samples at most; the budget buys at least 12 samples" in lines
    assert "samples a sample" not in lines


def test_grade_does_not_replace_what_is_no_file(run: Run, job_file: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    result = run("grade", "--input", job_file, "--output", tmp_path / "pipe")

    assert result.exit_code == ExitCode.usage
    assert "not a regular file" in result.stderr
    assert (tmp_path / "pipe").is_fifo()
