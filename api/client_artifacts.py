"""The SDK's selections, finetunes and comparisons: submit, look at, wait for, cancel.

selection = client.selections.create(sources=[{"job": job.id}], keep="verified").wait()
student = client.finetunes.create(base="gsm-mini-small", dataset=selection.id, preset="tiny").wait()
student.document["checkpoints"][-1]["model"]  # a model that jobs can name
SFTTrainer(train_dataset=selection.to_trl(), ...)  # or train elsewhere
"""

import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from api.transport import Document, Transport, part_of_path
from service.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from service.selection.export import Exported

TERMINAL_PHASES = ("succeeded", "finished_with_errors", "failed", "cancelled")
_POLL_S = 0.5


class Artifact:
    """A selection, finetune or comparison on the service. `document` is what it was when last asked."""

    def __init__(self, artifacts: "Artifacts", document: Document) -> None:
        self._artifacts, self.document = artifacts, document
        self.id: str = document["id"]

    @property
    def phase(self) -> str:
        """The phase when last asked."""
        return self.document["phase"]

    @property
    def is_over(self) -> bool:
        """Whether it will never change again."""
        return self.phase in TERMINAL_PHASES

    def refresh(self) -> Self:
        """Asks again."""
        self.document = self._artifacts.get(self.id).document
        return self

    def watch(self) -> Iterator[Document]:
        """Its document as it is now, whenever it has changed, until it has ended."""
        last: Document = {}
        while True:
            if self.document != last:
                last = self.document
                yield last
            if self.is_over:
                return
            time.sleep(_POLL_S)
            self.refresh()

    def wait(self) -> Self:
        """Returns when it has ended."""
        for _ in self.watch():
            pass
        return self

    def training_set_path(self) -> Path:
        """The file of a selection that succeeded.

        Raises:
            Conflict: it is not made.
            InvalidInput: the service's files cannot be read from here.
        """
        path = self.document.get("path")
        if path is None:
            raise Conflict(f"{self.id} is {self.phase}, allowed: a selection that succeeded")
        if not Path(path).is_file():
            raise InvalidInput(
                f"{self.id}: its training set is {path} on the service's machine, which is no file here; allowed: a "
                "machine that can read the service's data directory"
            )
        return Path(path)

    def table(self) -> "pa.Table":
        """The training set of a selection that succeeded, see `training_set_path`."""
        import pyarrow.parquet as pq

        from service.records import SELECTED_SCHEMA

        return pq.ParquetFile(self.training_set_path()).read(columns=SELECTED_SCHEMA.names)

    def dataset(self) -> "Dataset":
        """The training set as a dataset, every column of `service.records.SelectedRow`."""
        from datasets import Dataset

        return Dataset(self.table())

    def to_trl(self) -> "Dataset":
        """What TRL trains on as it is: `prompt` and `completion`, and nothing else."""
        return self.dataset().select_columns(["prompt", "completion"])

    def export(self, folder: str | Path) -> "Exported":
        """Writes a folder that `datasets.load_dataset` loads, see `service.selection.export.export_dataset`."""
        from service.selection.export import export_dataset

        path = self.training_set_path()
        return export_dataset(dataset_path=path, sha256=self.document["sha256"], folder=folder)

    def cancel(self) -> Self:
        """Ends it; committed checkpoints stay."""
        return self._act("cancel")

    def pause(self) -> Self:
        """Stops a finetune at the next step; pauses a comparison."""
        return self._act("pause")

    def resume(self) -> Self:
        """Goes on; a finetune from its last checkpoint."""
        return self._act("resume")

    def _act(self, verb: str) -> Self:
        self.document = self._artifacts.act(self.id, verb).document
        return self


class Artifacts:
    """/v1/selections, /v1/finetunes or /v1/comparisons."""

    def __init__(self, transport: Transport, path: str, noun: str) -> None:
        self._transport, self._path, self._noun = transport, path, noun

    def create(
        self, document: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None, **fields: Any
    ) -> Artifact:
        """Submits one: a whole document, its fields as keywords, or both (keywords win)."""
        headers = {"Idempotency-Key": str(uuid.uuid4()) if idempotency_key is None else idempotency_key}
        body = {**(document or {}), **fields}
        response = self._transport.request("POST", self._path, body=body, headers=headers, is_repeatable=True)
        return Artifact(self, response.json())

    def get(self, artifact_id: str) -> Artifact:
        """One of them."""
        return Artifact(self, self._transport.get(self._one(artifact_id)))

    def list(self, *, limit: int = 50) -> list[Artifact]:
        """The latest, newest first."""
        items: list[Artifact] = []
        for item in self._transport.pages(self._path, limit=min(limit, 200)):
            items.append(Artifact(self, item))
            if len(items) == limit:
                break
        return items

    def log(self, artifact_id: str) -> "list[Document]":
        """The training log of a finetune so far, one entry a logged step."""
        return self._transport.get(self._one(artifact_id) + "/log")["items"]

    def results(self, artifact_id: str) -> Document:
        """What a comparison has found so far."""
        return self._transport.get(self._one(artifact_id) + "/results")

    def report(self, artifact_id: str, form: Literal["html", "md", "json", "zip"] = "zip") -> bytes:
        """The report of a comparison so far as a file; the zip holds the other three and figures as PNG."""
        return self._transport.request("GET", f"{self._one(artifact_id)}/report.{form}").content

    def plan(self, document: Mapping[str, Any]) -> Document:
        """What a comparison would be; nothing is stored."""
        return self._transport.request(
            "POST", self._path, params={"dry_run": "true"}, body=dict(document), is_repeatable=True
        ).json()

    def act(self, artifact_id: str, verb: str) -> Artifact:
        """Cancels, pauses or resumes."""
        path = f"{self._one(artifact_id)}/{verb}"
        return Artifact(self, self._transport.request("POST", path, is_repeatable=True).json())

    def _one(self, artifact_id: str) -> str:
        return f"{self._path}/{part_of_path(artifact_id, self._noun)}"
