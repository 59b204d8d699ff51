"""`isoflop import` on the command line: what it says, stores and refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from api.cli import app
from api.cli_output import ExitCode

Run = Callable[..., Result]


@pytest.fixture
def old(served) -> Path:
    path = served.world.root / "old.jsonl"
    rows = [{"problem_id": f"p{i}", "said": f"#### {i + 1}", "response": "no"} for i in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def run(served, old: Path) -> Run:
    """Imports `old` with these arguments."""

    def call(*arguments: str) -> Result:
        words = ["import", str(old), "--problems", "sums/train", *arguments]
        return CliRunner(env={"ISOFLOP_URL": served.url}).invoke(app, words)

    return call


def imports_of(served) -> list[Any]:
    return [job.spec for _, job in served.world.store.jobs.list()]


def test_import_says_what_was_guessed_and_what_to_do_next(served, run: Run) -> None:
    result = run("--model", "simulated")

    assert result.exit_code == 0, result.output
    (_, job) = served.world.store.jobs.list()[0]
    assert f"{job.id}  old.jsonl by simulated  importing" in result.stdout
    assert "completion is the column 'response', guessed from its name" in result.stdout
    assert f"isoflop watch {job.id}" in result.stdout


def test_import_takes_columns_scorers_and_fields_as_they_are_said(served, run: Run) -> None:
    result = run(
        *("--model", "simulated", "--map", "completion=said,problem_id=problem_id", "--name", "mine"),
        *("--scorer", "steps", "--set", "sampling.temperature=0.2", "--allow-unmatched", "0.5", "--allow-empty"),
    )

    assert result.exit_code == 0, result.output
    (spec,) = imports_of(served)
    assert (spec.name, spec.scorers, spec.sampling.temperature) == ("mine", ("steps",), 0.2)
    assert spec.imported.column("completion") == "said"
    assert (spec.imported.max_unmatched, spec.imported.allow_empty) == (0.5, True)


def test_import_twice_names_the_job_that_is_there(served, run: Run) -> None:
    first = json.loads(run("--model", "simulated", "--json").stdout)
    again = run("--model", "simulated")

    assert f"{first['id']}  old.jsonl by simulated  was imported before" in again.stdout
    assert len(imports_of(served)) == 1


def test_import_dry_run_stores_nothing(served, run: Run) -> None:
    result = run("--model-name", "gpt-old", "--dry-run")

    assert result.exit_code == 0, result.output
    assert "6 samples of 6 of 6 problems" in result.stdout
    assert "FLOPs are unknown, for gpt-old is not registered" in result.stdout
    assert json.loads(run("--model-name", "gpt-old", "--dry-run", "--json").stdout)["rows"] == 6
    assert imports_of(served) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "exactly one of model, model_name"),
        (("--model", "simulated", "--map", "said"), "--map: got 'said', allowed: OURS=THEIRS"),
        (("--model", "simulated", "--map", "completion=gone"), "has no column 'gone'"),
    ],
)
def test_import_refuses_in_one_sentence(served, run: Run, arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments)

    assert result.exit_code == ExitCode.usage
    assert words in result.stderr
    assert imports_of(served) == []


def test_status_of_an_import_names_its_files_and_no_share_of_a_budget(served, run: Run) -> None:
    made = json.loads(run("--model-name", "gpt-old", "--json").stdout)

    one, listed = (
        CliRunner(env={"ISOFLOP_URL": served.url}).invoke(app, ["status", *job]).stdout for job in ([made["id"]], [])
    )

    assert f"imported     old.jsonl, sha256 {made['imported']['files'][0]['sha256']}" in one
    assert "FLOPs, once  unknown, tokens by estimate" in one
    assert "imported" in listed
    assert "%" not in listed
