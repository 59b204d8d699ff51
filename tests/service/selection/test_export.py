"""A training set leaves as a folder that `datasets` loads and TRL trains on; no upload goes public by accident."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import httpx2
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub.errors import HfHubHTTPError

from service.errors import Conflict, CorruptFile, InvalidInput, Unreachable
from service.records import SELECTED_SCHEMA
from service.selection.card import dataset_card
from service.selection.export import Exported, HubRepo, check_repo_name, export_dataset, push_dataset
from service.selection.lineage import lineage_from_json, read_lineage
from tests.service.selection.training_sets import QUESTION, training_set


def exported(directory: Path, *, rows: int = 6, license: str | None = None, most_bytes: int = 1 << 28) -> Exported:
    receipt = training_set(directory / "set", rows=rows, license=license)
    return export_dataset(
        dataset_path=receipt.path, sha256=receipt.sha256, folder=directory / "folder", most_bytes=most_bytes
    )


def front_matter(folder: str) -> dict[str, object]:
    return yaml.safe_load(Path(folder, "README.md").read_text().split("---\n")[1])


def test_export_folder_loads_with_datasets_and_gives_the_view_that_trl_trains_on(tmp_path: Path) -> None:
    folder = exported(tmp_path).folder

    dataset = datasets.load_dataset(folder, split="train", cache_dir=str(tmp_path / "cache"))

    assert dataset.column_names == SELECTED_SCHEMA.names
    assert dataset.num_rows == 6
    assert dataset.features["is_verified"].dtype == "bool"
    examples = dataset.select_columns(["prompt", "completion"])
    assert examples[1] == {"prompt": f"{QUESTION}\n", "completion": "2+3=5. So 1 #### 5"}
    assert [row["is_verified"] for row in dataset] == [True, None, True, None, True, None]


def test_export_many_files_hold_every_row_once_and_in_order(tmp_path: Path) -> None:
    found = exported(tmp_path, rows=70_000, most_bytes=4 << 20)

    data = [name for name in found.files if name.startswith("data/")]
    assert len(data) > 1
    assert data == [f"data/train-{i:05d}-of-{len(data):05d}.parquet" for i in range(len(data))]
    tables = [pq.read_table(Path(found.folder, name)) for name in data]
    ids = [sample_id for table in tables for sample_id in table["sample_id"].to_pylist()]
    assert ids == [f"s{row}" for row in range(70_000)]
    assert all(table.schema.equals(SELECTED_SCHEMA, check_metadata=True) for table in tables)


THOUGHTS = ("<think>6? No.</think>\n\n2+3=5. #### 5", "<think>hm", "<think>5</think> ", "2+3=5")


def stripped(directory: Path, completions: tuple[str, ...], *, prompt: str = "") -> tuple[Exported, list[str]]:
    receipt = training_set(directory / "set", completions=completions, prompt=prompt)
    found = export_dataset(
        dataset_path=receipt.path, sha256=receipt.sha256, folder=directory / "folder", reasoning="strip"
    )
    (name,) = (name for name in found.files if name.startswith("data/"))
    return found, pq.read_table(Path(found.folder, name))["completion"].to_pylist()


def test_export_strip_leaves_what_follows_the_reasoning_and_counts_rows_without_anything(tmp_path: Path) -> None:
    found, completions = stripped(tmp_path, THOUGHTS)

    assert completions == ["2+3=5. #### 5", "2+3=5"]
    assert (found.rows, found.dropped) == (2, 2)
    card = Path(found.folder, "README.md").read_text()
    assert "2 rows of which nothing or the same was left are left out" in card
    assert front_matter(found.folder)["dataset_info"]["splits"][0]["num_examples"] == 2  # type: ignore[index]


def test_export_strip_knows_reasoning_that_the_prompt_opens(tmp_path: Path) -> None:
    found, completions = stripped(tmp_path, ("5? yes</think>5", "5? ye", "other</think>5"), prompt="q<think>\n")
    assert (completions, found.dropped) == (["5"], 2), "the same without its reasoning is kept once"
    (name,) = (name for name in found.files if name.startswith("data/"))
    assert pq.read_table(Path(found.folder, name))["prompt"].to_pylist() == ["q"]


def test_export_strip_that_leaves_nothing_is_refused_and_keep_is_the_rule(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="reasoning: got 'strip', which leaves no row"):
        stripped(tmp_path, THOUGHTS[1:3])
    assert not (tmp_path / "folder").exists()
    receipt = training_set(tmp_path / "again", completions=THOUGHTS)
    kept = export_dataset(dataset_path=receipt.path, sha256=receipt.sha256, folder=tmp_path / "folder")
    assert (kept.rows, kept.dropped) == (4, 0)


def test_export_card_says_what_loaders_need_and_what_people_ask(tmp_path: Path) -> None:
    found = exported(tmp_path, license="apache-2.0")

    matter = front_matter(found.folder)
    assert matter["license"] == "apache-2.0"
    assert matter["configs"] == [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}]
    info = matter["dataset_info"]
    assert isinstance(info, dict)
    assert info["splits"][0]["num_examples"] == 6
    assert [feature["name"] for feature in info["features"]] == SELECTED_SCHEMA.names
    card = Path(found.folder, "README.md").read_text()
    for expected in (
        "| rows | 6 |",
        "| sampling.temperature | `0.8` |",
        "| keep | 9 | 9 |",
        "| model | small | sha256:0 | apache-2.0 |",
        "| problem set | sums | sha256:1 | unknown |",
        "Held out: `test` (12 questions)",
        "2 x parameters x completion tokens",
    ):
        assert expected in card


@pytest.mark.parametrize(("license", "expected"), [(None, None), ("Some Community License", None), ("mit", "mit")])
def test_export_states_a_license_only_where_it_is_an_identifier(
    tmp_path: Path, license: str | None, expected: str | None
) -> None:
    assert front_matter(exported(tmp_path, license=license).folder).get("license") == expected


def test_export_documents_are_beside_the_data_without_held_out_questions(tmp_path: Path) -> None:
    found = exported(tmp_path)
    folder = Path(found.folder)

    assert set(found.files) == {
        "README.md",
        "data/train-00000-of-00001.parquet",
        "isoflop/jobs/job-1.json",
        "isoflop/lineage.json",
        "isoflop/selection.json",
    }
    assert json.loads((folder / "isoflop/jobs/job-1.json").read_text())["problems"] == "sums"
    assert json.loads((folder / "isoflop/selection.json").read_text())["keep"] == "correct"
    lineage = lineage_from_json((folder / "isoflop/lineage.json").read_text(), path=folder)
    assert (lineage.contamination.by_text, lineage.contamination.examples) == (1, ())
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"a held-out question" not in everything
    assert str(tmp_path).encode() not in everything


def test_export_into_a_folder_that_exists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(Conflict, match="folder: exists already; allowed: a folder that does not exist yet"):
        exported(tmp_path)


def test_export_of_another_file_than_the_committed_one_leaves_nothing(tmp_path: Path) -> None:
    receipt = training_set(tmp_path / "set")
    with pytest.raises(CorruptFile, match="sha256 is"):
        export_dataset(dataset_path=receipt.path, sha256="0" * 64, folder=tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_card_keeps_tables_whole_whatever_a_job_says(tmp_path: Path) -> None:
    lineage = read_lineage(training_set(tmp_path / "set").path)
    source = dataclasses.replace(
        lineage.sources[0], job={"sampling": {"stop": ["\n", "|"]}, "prompt": {"system": "a\nb"}}
    )
    card = dataset_card(dataclasses.replace(lineage, sources=(source,)), num_bytes=1, stored_bytes=1)

    assert "| prompt.system | `a\\nb` |" in card
    assert "\\|" in card


@dataclass
class FakeRepo:
    private: bool | None


@dataclass
class FakeHub:
    """Repositories in memory; one that exists keeps its visibility, as on the real hub."""

    repos: dict[str, FakeRepo] = field(default_factory=dict)
    uploads: list[dict[str, object]] = field(default_factory=list)
    error: Exception | None = None

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> object:
        if self.error is not None:
            raise self.error
        assert (repo_type, exist_ok) == ("dataset", True)
        return self.repos.setdefault(repo_id, FakeRepo(private))

    def repo_info(self, repo_id: str, *, repo_type: str) -> HubRepo:
        return self.repos[repo_id]

    def upload_folder(
        self, *, repo_id: str, repo_type: str, folder_path: str, commit_message: str, delete_patterns: list[str]
    ) -> object:
        self.uploads.append({"repo_id": repo_id, "folder": folder_path, "message": commit_message})
        return None


def test_push_is_private_unless_told_otherwise(tmp_path: Path) -> None:
    folder, hub = exported(tmp_path).folder, FakeHub()

    address = push_dataset(folder, "me/set", api=hub)
    push_dataset(folder, "me/open", is_private=False, api=hub)

    assert address == "https://huggingface.co/datasets/me/set"
    assert {name: repo.private for name, repo in hub.repos.items()} == {"me/set": True, "me/open": False}
    assert hub.uploads[0] == {"repo_id": "me/set", "folder": folder, "message": "isoflop: 6 rows"}


def test_push_into_a_public_repository_is_refused_before_a_file_leaves(tmp_path: Path) -> None:
    hub = FakeHub(repos={"me/set": FakeRepo(private=False)})
    with pytest.raises(Conflict, match="me/set: got a public repository"):
        push_dataset(exported(tmp_path).folder, "me/set", api=hub)
    assert hub.uploads == []


def test_push_what_the_hub_says_is_passed_on(tmp_path: Path) -> None:
    folder = exported(tmp_path).folder
    request = httpx2.Request("POST", "https://huggingface.co/api/repos/create")
    refusal = HfHubHTTPError("401 Unauthorized", response=httpx2.Response(401, request=request))

    with pytest.raises(InvalidInput, match="me/set: the hub refuses: 401 Unauthorized"):
        push_dataset(folder, "me/set", api=FakeHub(error=refusal))
    for broken in (ConnectionError("no route"), httpx2.ConnectError("no route")):
        with pytest.raises(Unreachable, match="me/set: the hub cannot be used: no route"):
            push_dataset(folder, "me/set", api=FakeHub(error=broken))


def test_push_real_hub_without_a_network_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the suite runs with HF_HUB_OFFLINE=1, which the real client honours
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    with pytest.raises(Unreachable, match="me/set: the hub cannot be used"):
        push_dataset(exported(tmp_path).folder, "me/set")


def test_push_of_a_folder_that_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not an exported training set"):
        push_dataset(tmp_path, "me/set", api=FakeHub())


def test_push_without_a_token_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))

    with pytest.raises(InvalidInput, match=r"no token for the hub .* `hf auth login`, or set HF_TOKEN"):
        push_dataset(exported(tmp_path).folder, "me/set")


@pytest.mark.parametrize("name", ["set", "me/", "me/a set", "me/a/b", "../set"])
def test_repository_name_that_no_hub_takes_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="repository"):
        check_repo_name(name)
