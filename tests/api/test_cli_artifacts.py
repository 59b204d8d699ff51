"""Verbs of selections, finetunes, evaluations and comparisons against the real service: submitted, watched, listed."""

import json
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from api.cli import app
from api.cli_output import ExitCode
from tests.api.conftest import Served, serving

Run = Callable[..., Result]


@pytest.fixture
def run(served: Served) -> Run:
    """Runs a command line against `served`."""
    runner = CliRunner(env={"ISOFLOP_URL": served.url})
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def submit(run: Run) -> Callable[..., str]:
    """Runs a command line that submits something; its id."""

    def act(*arguments: object) -> str:
        result = run(*arguments, "--json")
        assert result.exit_code == ExitCode.done, result.output
        return json.loads(result.stdout)["id"]

    return act


@pytest.fixture
def job_id(served: Served, run_jobs, submit: Callable[..., str], tmp_path: Path) -> str:
    """A job that has ended."""
    file = tmp_path / "job.yaml"
    file.write_text("{problems: sums/train, models: [simulated], budget: {samples_per_problem: 4}}")
    found = submit("submit", file, "sampling.max_tokens=40")
    run_jobs(served.world)
    return found


def check_kind(run: Run, verb: str, one: str, words: list[str], columns: list[str]) -> dict[str, Any]:
    """The document of something that has ended, after looking at it in every way."""
    watched, shown, listed = run("watch", one), run(verb, one), run(verb)
    assert [watched.exit_code, shown.exit_code, listed.exit_code] == [0, 0, 0], watched.output + shown.output
    for output in (watched.stdout, shown.stdout):
        assert output.startswith(f"{one} succeeded"), output
    for word in words:
        assert word in shown.stdout
    header, row = listed.stdout.splitlines()
    assert header.split() == [verb.removesuffix("s"), "phase", *columns, "name"]
    assert row.startswith(f"{one}  succeeded")
    documents = json.loads(run(verb, "--json").stdout)
    document = json.loads(run(verb, one, "--json").stdout)
    assert [found["id"] for found in documents] == [document["id"]] == [one]
    return document


def test_select_and_finetune_are_shown_and_listed(served: Served, run: Run, run_jobs, submit, job_id: str) -> None:
    selection = submit("select", job_id, "per_problem=2", "name=right sums")
    run_jobs(served.world)

    document = check_kind(run, "selections", selection, ["right sums", job_id, "per_problem", "rows left"], ["rows"])

    assert f"{document['rows']} rows of 24" in run("watch", selection).stdout
    student = submit("finetune", "small", selection, "preset=tiny", "training.steps=8")
    assert run("finetunes", student).stdout.startswith(f"{student} queued: 0 of 8 steps\n")
    header, row = run("finetunes").stdout.splitlines()
    assert header.split() == ["finetune", "phase", "steps", "loss", "FLOPs", "name"]
    assert "0 of 8" in row
    assert json.loads(run("pause", student, "--json").stdout)["desired"] == "pause"


def test_evaluate_is_shown_with_its_results(served: Served, run: Run, run_jobs, submit) -> None:
    evaluation = submit("evaluate", "simulated", "sums/train", "evaluate.maj_at=[1,3]", "sampling.max_tokens=40")
    assert "nothing is measured yet" in run("evaluations", evaluation).stdout
    run_jobs(served.world)

    document = check_kind(run, "evaluations", evaluation, ["greedy succeeded", "maj@3", "accuracy [95 %]"], [])

    assert [found["measure"] for found in document["results"]["measures"]] == ["greedy", "maj@1", "maj@3"]
    again = run("evaluate", "simulated", "sums/train", "evaluate.maj_at=[1,3]", "sampling.max_tokens=40", "--key", "k")
    assert again.stdout.splitlines()[1].startswith("next: isoflop watch evaluate-")


def test_compare_plans_is_shown_and_writes_its_results(served: Served, run: Run, run_jobs, submit, tmp_path) -> None:
    file = tmp_path / "compare.json"
    for split in ("validation", "test"):
        questions = [{"question": f"What is {i} + {split}? [answer={i}]", "answer": i} for i in range(3)]
        (served.world.root / f"{split}.jsonl").write_text("\n".join(map(json.dumps, questions)))
        assert run("problems", "register", split, served.world.root / f"{split}.jsonl").exit_code == 0
    document = {
        "name": "one arm",
        "problems": {"train": "sums/train", "validation": "validation", "test": "test"},
        "match": {"reference": "first", "samples_per_problem": 2},
        "arms": [{"name": "first", "models": ["simulated"]}],
        "sampling": {"max_tokens": 40},
        "finetune": {"preset": "tiny"},
    }
    file.write_text(json.dumps(document))
    assert "first, equal by flops" in run("compare", file, "--dry-run").stdout
    assert run("comparisons").stdout.splitlines()[1:] == []
    comparison = submit("compare", file)
    run_jobs(served.world)

    found = check_kind(run, "comparisons", comparison, ["2 of 2 nodes", "useful FLOPs"], ["done", "FLOPs"])

    assert [arm["arm"] for arm in found["results"]["arms"]] == ["first"]


def test_watch_flag_shows_the_end_and_the_results(world, run_jobs) -> None:
    """A second command finds everything made, so that it ends without anybody working it off."""
    words = ["evaluate", "simulated", "sums/train", "evaluate.maj_at=[]", "sampling.max_tokens=40", "--key", "k"]
    with serving(world) as served:
        runner = CliRunner(env={"ISOFLOP_URL": served.url})
        runner.invoke(app, words)
        run_jobs(world)
        plain, lines = runner.invoke(app, [*words, "--watch"]), runner.invoke(app, [*words, "--watch", "--json"])

    assert plain.exit_code == lines.exit_code == ExitCode.done, plain.output
    assert "succeeded: greedy succeeded" in plain.stdout
    assert "accuracy [95 %]" in plain.stdout
    last = json.loads(lines.stdout.splitlines()[-1])
    assert [found["measure"] for found in last["results"]["measures"]] == ["greedy"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pause", "select-1-aaaaaa"], "pause: got selection 'select-1-aaaaaa', allowed for one: cancel"),
        (["resume", "evaluate-1-aaaaaa"], "resume: got evaluation 'evaluate-1-aaaaaa', allowed for one: cancel"),
        (["select", "job-1", "--key", "schlüssel"], "idempotency key: got 'schl\\xfcssel', allowed: 1 to 200"),
        (["finetune", "small"], "got 1 names, allowed: a base and a selection, or a file"),
        (["evaluate", "a", "b", "c"], "got 3 names, allowed: a model and a problem set, or a file"),
        (["watch", "select-1-aaaaaa"], "no selection 'select-1-aaaaaa'"),
        (["selections", "select-1-aaaaaa"], "no selection 'select-1-aaaaaa'"),
    ],
)
def test_mistake_is_one_line_and_exit_2(run: Run, arguments: list[str], words: str) -> None:
    result = run(*arguments)

    assert result.exit_code == ExitCode.usage
    assert words in " ".join(result.stderr.split())


def test_judge_asks_a_model_about_right_answers_and_select_keeps_what_it_finds_right(
    served: Served, run: Run, run_jobs, submit, job_id: str, tmp_path: Path
) -> None:
    template = tmp_path / "ask.txt"
    template.write_text("[answer=yes] {question} {completion}")
    is_asked = threading.Event()

    def work() -> None:
        while not is_asked.wait(0.05):
            run_jobs(served.world)

    words = ["judge", job_id, "sampling.max_tokens=60", "--model", "simulated", "--votes", 3, "--template", template]
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        result, again = run(*words, "--watch", "--key", "k"), run(*words, "--key", "k")
        is_asked.set()
        working.result()

    assert result.exit_code == 0, result.output
    following = result.stdout.splitlines()[-1]
    assert re.search(r"^select-\S+ succeeded: \d+ rows of 24$", result.stdout, re.MULTILINE)
    assert again.stdout.splitlines()[-1] == following
    judge = following.rpartition("[")[2].rstrip("]'")
    assert following == f"next: isoflop select {job_id} keep=judged 'judges=[{judge}]'"
    document = json.loads(run("status", judge, "--json").stdout)["document"]
    assert (document["stage"], document["scorers"], document["sampling"]["temperature"]) == ("judge", ["yes_no"], 0.7)
    selection = submit("select", job_id, "keep=judged", f"judges=[{judge}]")
    run_jobs(served.world)
    shown = run("selections", selection).stdout
    assert re.search(r"judged +\d+ yes, \d+ no, 0 undecided", shown), shown


def test_judge_refusals_are_one_sentence_and_make_nothing(run: Run, job_id: str, tmp_path: Path) -> None:
    missing = run("judge", "job-1-aaaaaa", "--model", "simulated", "--template", tmp_path / "none.txt")
    assert (missing.exit_code, "template: cannot read" in missing.output) == (ExitCode.usage, True)
    kept = run("judge", "job-1-aaaaaa", "--model", "simulated", "--keep", "majority")
    assert (kept.exit_code, "allowed: correct, verified, all" in kept.output) == (ExitCode.usage, True)
    unknown = run("judge", "job-1-aaaaaa", "--model", "simulated")
    assert (unknown.exit_code, "no job 'job-1-aaaaaa'" in unknown.output) == (ExitCode.usage, True)
    nobody = run("judge", job_id, "--model", "nobody")
    assert (nobody.exit_code, "nobody" in nobody.output) == (ExitCode.usage, True)
    assert json.loads(run("selections", "--json").stdout) == []
