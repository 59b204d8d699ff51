"""The SDK's selections, finetunes, evaluations and comparisons: submit, look at, wait for, cancel.

selection = client.selections.create(sources=[{"job": job.id}], keep="verified").wait()
student = client.finetunes.create(base="gsm-mini-small", dataset=selection.id, preset="tiny").wait()
student.document["checkpoints"][-1]["model"]  # a model that jobs can name
SFTTrainer(train_dataset=selection.to_trl(), ...)  # or train elsewhere
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from api.client_resources import Resource, Resources, file_here
from api.transport import Document, Transport
from service.errors import Conflict

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

    from service.selection.export import Exported

_POLL_S = 0.5


class Artifact(Resource):
    """A selection, finetune, evaluation or comparison on the service. `document` is what it was when last asked."""

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

    def training_set_path(self) -> Path:
        """The file of a selection that succeeded.

        Raises:
            Conflict: it is not made.
            InvalidInput: the service's files cannot be read from here.
        """
        path = self.document.get("path")
        if path is None:
            raise Conflict(f"{self.id} is {self.phase}, allowed: a selection that succeeded")
        return file_here(path, f"{self.id}: its training set")

    def table(self) -> "pa.Table":
        """The training set of a selection that succeeded, see `training_set_path`."""
        import pyarrow.parquet as pq

        from service.records import SELECTED_SCHEMA

        return pq.ParquetFile(self.training_set_path()).read(columns=SELECTED_SCHEMA.names)

    def dataset(self) -> "Dataset":
        """The training set as a dataset, every column of `service.records.SelectedRow`."""
        from datasets import Dataset

        return Dataset(self.table())

    def export(self, folder: str | Path, *, reasoning: Literal["keep", "strip"] = "keep") -> "Exported":
        """Writes a folder that `datasets.load_dataset` loads, see `service.selection.export.export_dataset`."""
        from service.selection.export import export_dataset

        path = self.training_set_path()
        return export_dataset(dataset_path=path, sha256=self.document["sha256"], folder=folder, reasoning=reasoning)


class Artifacts(Resources[Artifact]):
    """/v1/selections, /v1/finetunes, /v1/evaluations or /v1/comparisons."""

    def __init__(
        self, transport: Transport, path: str, noun: str, verbs: Sequence[str] = ("cancel", "pause", "resume")
    ) -> None:
        super().__init__(transport, path, noun, make=Artifact, verbs=verbs)

    def log(self, artifact_id: str) -> list[Document]:
        """The training log of a finetune so far, one entry a logged step."""
        return self._transport.get(self._one(artifact_id, "/log"))["items"]

    def results(self, artifact_id: str) -> Document:
        """What an evaluation or comparison has found so far."""
        return self._transport.get(self._one(artifact_id, "/results"))

    def report(self, artifact_id: str, form: Literal["html", "md", "json", "zip"] = "zip") -> bytes:
        """The report of a comparison so far as a file; the zip holds the other three and figures as PNG."""
        return self._transport.request("GET", self._one(artifact_id, f"/report.{form}")).content
