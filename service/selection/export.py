"""A training set as a Hugging Face dataset folder, and the upload of one.

Owns the folder's layout: `data/train-*.parquet`, a card, and under `isoflop/` the documents it rests on. Invariant: an
export that did not finish is no folder of that name; nothing in it names a path of this machine or a held-out question.
An upload is private unless somebody says otherwise, and never ends in a public repository by accident.
"""

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import Conflict, InvalidInput, Unreachable
from service.reasoning import ReasoningTags, source_tags
from service.scoring.normalize import exact_key
from service.selection.card import dataset_card
from service.selection.lineage import LINEAGE_FILE, Lineage, read_lineage
from service.shards import check_file, make_directory, sync

DOCUMENTS = "isoflop"
Reasoning = Literal["keep", "strip"]
Strip = Callable[[pa.RecordBatch], pa.RecordBatch]
MOST_BYTES = 256 << 20
"""Of text and numbers in one file, before compression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A finished folder.

    Args:
        files: relative to it.
        dropped: rows that were nothing but reasoning, or the same as another without it.
    """

    folder: str
    rows: int
    files: tuple[str, ...]
    dropped: int = 0


def export_dataset(
    *,
    dataset_path: str | Path,
    sha256: str,
    folder: str | Path,
    reasoning: Reasoning = "keep",
    most_bytes: int = MOST_BYTES,
) -> Exported:
    """Writes a folder that `datasets.load_dataset(folder)` loads, with a card and the documents of every job.

    Args:
        dataset_path: Parquet of `SelectedRow` that a selection wrote.
        folder: must not exist yet.
        reasoning: whether a thinking model's reasoning stays in the completions. Stripped, a row of which nothing is
            left, or the same as of another, is left out, and `completion_tokens` still counts what was drawn.

    Raises:
        CorruptFile: the training set is missing, or not the one that was committed.
        Conflict: the folder exists.
        InvalidInput: no row has anything but reasoning.
    """
    target = Path(folder)
    if target.exists():
        raise Conflict(f"{target}: exists already; allowed: a folder that does not exist yet")
    check_file(dataset_path, sha256)
    lineage = _publishable(read_lineage(dataset_path))
    building = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(building, ignore_errors=True)  # of an earlier export of this process that did not finish
    try:
        strip = _stripper(lineage) if reasoning == "strip" else None
        num_rows, num_bytes = _write_data(Path(dataset_path), building / "data", most_bytes, strip)
        if not num_rows:
            raise InvalidInput("reasoning: got 'strip', which leaves no row: no completion goes on after its reasoning")
        stored_bytes = sum(file.stat().st_size for file in (building / "data").iterdir())
        _write_documents(lineage, building)
        card = dataset_card(
            lineage,
            num_bytes=num_bytes,
            stored_bytes=stored_bytes,
            num_rows=num_rows,
            is_stripped=strip is not None,
            schema=pq.read_schema(dataset_path),
        )
        (building / "README.md").write_text(card, encoding="utf-8")
        for path in building.rglob("*"):
            sync(path)
        building.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    sync(target.parent)
    files = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    dropped = lineage.statistics.rows - num_rows
    return Exported(folder=str(target), rows=num_rows, files=tuple(files), dropped=dropped)


def _stripper(lineage: Lineage) -> Strip:
    """Takes the reasoning out of rows, by the tags of the job that drew each; equal ones of a problem are kept once."""

    @functools.cache
    def tags(source: int, arm: str) -> ReasoningTags:
        return source_tags(lineage.sources[source].job, arm)

    seen: set[tuple[str, int]] = set()

    def strip(batch: pa.RecordBatch) -> pa.RecordBatch:
        # a training set of an earlier release does not say the arm, and has none of its own
        arm = "arm" if "arm" in batch.schema.names else "model"
        names = ("source", arm, "prompt", "completion", "problem_id")
        columns: list[list[Any]] = [batch.column(name).to_pylist() for name in names]
        prompts: list[str] = []
        answers: list[str] = []
        is_kept: list[bool] = []
        for source, arm, prompt, completion, problem_id in zip(*columns, strict=True):
            asked, answer = tags(int(source), str(arm)).without(prompt, completion)
            key = (str(problem_id), exact_key(answer))
            is_kept.append(bool(answer.strip()) and key not in seen)
            seen.add(key)
            prompts.append(asked)
            answers.append(answer)
        for name, texts in (("prompt", prompts), ("completion", answers)):
            at = batch.schema.get_field_index(name)
            batch = batch.set_column(at, batch.schema.field(at), pa.array(texts, batch.schema.field(at).type))
        return batch.filter(pa.array(is_kept))

    return strip


def _publishable(lineage: Lineage) -> Lineage:
    """Without the examples of contamination: to publish held-out questions would contaminate whoever trains on it."""
    return replace(lineage, contamination=replace(lineage.contamination, examples=()))


def _write_data(dataset_path: Path, directory: Path, most_bytes: int, strip: Strip | None) -> tuple[int, int]:
    """Writes the files, and returns the rows and the bytes of the data in memory."""
    make_directory(directory)
    num_files = num_rows = num_bytes = 0
    with pq.ParquetFile(dataset_path) as file:
        for table in _files(file, most_bytes, strip):
            # the number of files is part of their names, and known at the end
            pq.write_table(table, directory / f"{num_files:05d}", compression="zstd")
            num_files, num_rows, num_bytes = num_files + 1, num_rows + table.num_rows, num_bytes + table.nbytes
    for number in range(num_files):
        (directory / f"{number:05d}").rename(directory / f"train-{number:05d}-of-{num_files:05d}.parquet")
    return num_rows, num_bytes


def _files(file: pq.ParquetFile, most_bytes: int, strip: Strip | None) -> Iterator[pa.Table]:
    """Tables of about `most_bytes`, without what the footer says of this machine's attempt."""
    held: list[pa.RecordBatch] = []
    held_bytes = 0
    for batch in map(strip, file.iter_batches()) if strip is not None else file.iter_batches():
        if held and held_bytes + batch.nbytes > most_bytes:
            yield pa.Table.from_batches(held).replace_schema_metadata(None)
            held, held_bytes = [], 0
        held.append(batch)
        held_bytes += batch.nbytes
    yield pa.Table.from_batches(held, schema=file.schema_arrow).replace_schema_metadata(None)


def _write_documents(lineage: Lineage, folder: Path) -> None:
    documents = folder / DOCUMENTS
    (documents / "jobs").mkdir(parents=True)
    (documents / LINEAGE_FILE).write_text(lineage.to_json(), encoding="utf-8")
    (documents / "selection.json").write_text(_json(asdict(lineage.spec)), encoding="utf-8")
    for source in lineage.sources:
        (documents / "jobs" / f"{source.job_id}.json").write_text(_json(source.job), encoding="utf-8")


def _json(document: object) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


class HubRepo(Protocol):
    """What a hub says of a repository."""

    @property
    def private(self) -> bool | None:
        """Whether strangers cannot see it."""
        ...


class Hub(Protocol):
    """What an upload needs of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool, exist_ok: bool) -> object:
        """Makes the repository unless it exists; one that exists keeps its visibility."""
        ...

    def repo_info(self, repo_id: str, *, repo_type: str) -> HubRepo:
        """What is known of a repository."""
        ...

    def upload_folder(
        self, *, repo_id: str, repo_type: str, folder_path: str, commit_message: str, delete_patterns: list[str]
    ) -> object:
        """Adds the folder's files in one commit, and removes what matches and is not among them."""
        ...


def push_dataset(folder: str | Path, repo_id: str, *, is_private: bool = True, api: Hub | None = None) -> str:
    """Uploads an exported folder as a dataset repository and returns its address.

    Args:
        repo_id: `owner/name`.
        is_private: a repository that exists and is public is refused then.
        api: the hub; None is `signed_in_hub()`.

    Raises:
        InvalidInput: no exported folder, a bad name, no token, or the hub refuses it.
        Conflict: the repository is public and the upload must not be.
        Unreachable: the hub does not answer.
    """
    # these take a moment that only uploads need
    from httpx2 import TransportError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if not (Path(folder) / DOCUMENTS / LINEAGE_FILE).is_file():
        raise InvalidInput(f"{folder}: not an exported training set, {DOCUMENTS}/{LINEAGE_FILE} is missing")
    hub = api or signed_in_hub()
    try:
        hub.create_repo(repo_id, repo_type="dataset", private=is_private, exist_ok=True)
        if is_private and not hub.repo_info(repo_id, repo_type="dataset").private:
            raise Conflict(f"{repo_id}: got a public repository; allowed: a private one, or an upload that says public")
        hub.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=str(folder),
            commit_message=f"isoflop: {read_rows(folder):,} rows",
            delete_patterns=["data/*", f"{DOCUMENTS}/*"],  # files of an earlier upload would be loaded with these
        )
    except (HfHubHTTPError, HFValidationError) as error:
        raise InvalidInput(f"{repo_id}: the hub refuses: {error}") from error
    except (OSError, TransportError) as error:
        raise Unreachable(f"{repo_id}: the hub cannot be used: {error}") from error
    return f"https://huggingface.co/datasets/{repo_id}"


def read_rows(folder: str | Path) -> int:
    """Rows of an exported folder."""
    return sum(pq.read_metadata(path).num_rows for path in sorted((Path(folder) / "data").glob("train-*.parquet")))


def check_repo_name(repo_id: str) -> None:
    """Refuses a name that no repository can have.

    Raises:
        InvalidInput: it is not `owner/name`, or has characters that the hub does not allow.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InvalidInput(f"repository: {error}") from error
    if repo_id.count("/") != 1:
        raise InvalidInput(f"repository: got {repo_id!r}, allowed: owner/name")


def signed_in_hub() -> Hub:
    """The hub as this machine's user.

    Raises:
        InvalidInput: there is no token.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise InvalidInput("no token for the hub on this machine; run `hf auth login`, or set HF_TOKEN")
    return HfApi()
