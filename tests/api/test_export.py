"""A training set leaves a running service: as a folder by the command line, as a dataset by the client."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from typer.testing import CliRunner, Result

from api.cli import app
from api.client import Client
from api.client_artifacts import Artifact
from service.errors import Conflict, InvalidInput
from service.records import SELECTED_SCHEMA
from tests.api.conftest import Served, World, make_world, serving

Run = Callable[..., Result]
TOKENIZER = Path(__file__).parents[2] / "examples" / "tiny-world" / "models" / "gsm-mini-small"


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[tuple[Served, str]]:
    """A service whose one selection has succeeded. Tests only read it."""
    from tests.api.conftest import work_off

    world: World = make_world(tmp_path_factory.mktemp("selected"), empty_database)
    document = {"problems": "sums/train", "models": ["simulated"], "sampling": {"max_tokens": 40}}
    with world.client() as client:
        scored = document | {"scorers": ["math_answer", "steps"], "budget": {"samples_per_problem": 4}}
        job_id = client.post("/v1/jobs", json=scored).json()["id"]
        work_off(world)
        selection = client.post("/v1/selections", json={"sources": [{"job": job_id}], "name": "right sums"}).json()
    work_off(world)
    with serving(world) as served:
        yield served, selection["id"]
    world.store.close()


@pytest.fixture
def run(selected: tuple[Served, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in an empty directory; SELECTION stands for the id."""
    served, selection_id = selected
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner(env={"ISOFLOP_URL": served.url}).invoke(
        app, [selection_id if argument == "SELECTION" else str(argument) for argument in arguments]
    )


@pytest.fixture
def selection(selected: tuple[Served, str]) -> Iterator[Artifact]:
    served, selection_id = selected
    with Client(served.url) as client:
        yield client.selections.get(selection_id)


def test_export_writes_a_folder_that_datasets_loads(run: Run, selected: tuple[Served, str], tmp_path: Path) -> None:
    result = run("export", "SELECTION")

    assert result.exit_code == 0, result.output
    folder = tmp_path / selected[1]
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert f"{loaded.num_rows:,} in 1 file" in result.output
    assert "# right sums" in (folder / "README.md").read_text()


def test_export_as_json_names_folder_and_files(run: Run, tmp_path: Path) -> None:
    document = json.loads(run("export", "SELECTION", "--output", tmp_path / "new" / "set", "--json").stdout)

    assert document["folder"] == str(tmp_path / "new" / "set")
    assert {"README.md", "data/train-00000-of-00001.parquet"} < set(document["files"])
    assert document["address"] is None


def test_export_into_what_exists_or_cannot_be_written_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    existing = run("export", "SELECTION", "--output", tmp_path / "file")
    inside = run("export", "SELECTION", "--output", tmp_path / "file" / "set")

    assert "exists already" in existing.output
    assert "cannot be written" in inside.output
    assert [existing.exit_code, inside.exit_code] == [1, 2]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--public"], 2, "needs --push"),
        (["--push", "me/a set"], 2, "repository"),
        (["--push", "me/set"], 1, "the hub cannot be used"),
    ],
)
def test_export_that_cannot_be_pushed_says_why_and_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], code: int, words: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    result = run("export", "SELECTION", *options)

    assert result.exit_code == code
    assert words in result.output
    assert list(tmp_path.iterdir()) == []


def test_export_of_an_unknown_selection_is_a_usage_error(run: Run) -> None:
    assert run("export", "select-9-aaaaaa").exit_code == 2


def test_selection_is_a_dataset_with_the_view_that_trl_trains_on(selection: Artifact) -> None:
    dataset, view = selection.dataset(), selection.to_trl()

    assert dataset.column_names == SELECTED_SCHEMA.names
    assert dataset.num_rows == selection.document["rows"]
    assert view.column_names == ["prompt", "completion"]
    assert view[0]["completion"] == dataset[0]["completion"]


def test_trl_takes_the_view_as_it_is(selection: Artifact, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    shape: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    trainer = SFTTrainer(
        model=LlamaForCausalLM(LlamaConfig(vocab_size=114, **shape)),
        args=SFTConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", max_length=None),
        train_dataset=selection.to_trl(),
        processing_class=AutoTokenizer.from_pretrained(TOKENIZER, local_files_only=True),
    )

    batch = next(iter(trainer.get_train_dataloader()))
    has_loss = batch["labels"] != -100
    assert 0 < has_loss.sum() < has_loss.numel(), "the loss counts completions, not prompts"


def test_selection_that_is_not_made_or_not_here_has_no_dataset(selection: Artifact) -> None:
    selection.document["path"] = "/data/of/another/machine.parquet"
    with pytest.raises(InvalidInput, match="no file here; allowed: a machine that can read"):
        selection.dataset()
    selection.document |= {"path": None, "phase": "running"}
    with pytest.raises(Conflict, match="is running, allowed: a selection that succeeded"):
        selection.to_trl()


def test_export_reasoning_is_kept_or_stripped(run: Run) -> None:
    stripped = run("export", "SELECTION", "--reasoning", "strip", "--json")
    wrong = run("export", "SELECTION", "--reasoning", "half", "--output", "other")

    assert (stripped.exit_code, json.loads(stripped.stdout)["dropped"]) == (0, 0)
    assert (wrong.exit_code, "keep" in wrong.output) == (2, True)
