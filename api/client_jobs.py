"""The SDK's jobs: submit, watch, and what they have drawn so far."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import httpx

from api.client_resources import Resource, Resources, file_here
from api.transport import RETRY_S, Document, Transport, WatchEvent, read_events

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_RECONNECT_S = 30.0
"""A stream that cannot be opened again for this long is given up; the job goes on."""

Documents = list[Document]


class Job(Resource):
    """A job on the service. `document` is what it was when last asked."""

    def __init__(self, jobs: "Jobs", document: Document) -> None:
        super().__init__(jobs, document)
        self._jobs = jobs

    def watch(self, *, after: int = 0) -> Iterator[WatchEvent]:
        """Events and progress until the job ends, see `Jobs.watch`."""
        return self._jobs.watch(self.id, after=after)

    def metrics(self) -> Document:
        """Coverage, diversity, false positives, see `Jobs.metrics`."""
        return self._jobs.metrics(self.id)

    def samples(self, **filters: Any) -> Iterator[Document]:
        """Samples with verdicts, see `Jobs.samples`."""
        return self._jobs.samples(self.id, **filters)

    def files(self, kind: Literal["generate", "score"] | None = None) -> Documents:
        """Committed Parquet files."""
        return self._jobs.files(self.id, kind=kind)

    def table(self, kind: Literal["generate", "score"] = "generate") -> "pa.Table":
        """Every committed sample (or score) as an Arrow table, also while the job runs.

        Raises:
            InvalidInput: the service's files cannot be read from here.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        from service.records import SAMPLE_SCHEMA, SCORE_SCHEMA

        schema = SAMPLE_SCHEMA if kind == "generate" else SCORE_SCHEMA
        paths = [file_here(file["path"], f"{self.id}: a file of it") for file in self.files(kind)]
        tables = [pq.ParquetFile(path).read(columns=schema.names) for path in paths]
        return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])

    def dataset(self) -> "Dataset":
        """Every committed sample as a dataset, right or wrong, without the rows that stand for an error.

        A training set of the right ones, without duplicates and held-out questions, is a selection.
        """
        import pyarrow.compute as pc
        from datasets import Dataset

        table = self.table()
        return Dataset(table.filter(pc.is_null(table["error"])))


class Jobs(Resources[Job]):
    """/v1/jobs."""

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport, "/v1/jobs", "job", make=Job)

    def watch(
        self, job_id: str, *, after: int = 0, on_reconnect: Callable[[], None] | None = None
    ) -> Iterator[WatchEvent]:
        """Events after an id, and progress, until the job ends. A broken connection is taken up where it broke.

        Raises:
            Unreachable: the service has not answered for half a minute; the job goes on without anybody watching.
        """
        last, lost_at = after, None
        while True:
            try:
                for event in self._transport.stream(self._one(job_id, "/events"), {"Last-Event-ID": str(last)}):
                    lost_at = None
                    last = int(event.id) if event.id else last
                    yield event
                    if event.kind == "end":
                        return
            except httpx.TransportError as error:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > _RECONNECT_S:
                    raise self._transport.unreachable(error) from error
                if on_reconnect is not None:
                    on_reconnect()
            time.sleep(RETRY_S)

    def metrics(self, job_id: str) -> Document:
        """Coverage, diversity and false positives against FLOPs; `summary` is None before the first score."""
        return self._transport.get(self._one(job_id, "/metrics"))

    def samples(
        self,
        job_id: str,
        *,
        verdict: str | None = None,
        problem: str | None = None,
        model: str | None = None,
        arm: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Document]:
        """Samples with what their scorers say, in the order of commitment; all of them without a limit."""
        size = min(limit or 200, 200)
        found = self._transport.pages(
            self._one(job_id, "/samples"), limit=size, verdict=verdict, problem=problem, model=model, arm=arm
        )
        for number, sample in enumerate(found):
            if limit is not None and number == limit:
                return
            yield sample

    def events(self, job_id: str, *, after: int = 0) -> Documents:
        """Every event after an id."""
        return list(read_events(self._transport, self._one(job_id, "/events"), after))

    def tasks(self, job_id: str, *, state: str | None = None) -> Documents:
        """Tasks in order."""
        return list(self._transport.pages(self._one(job_id, "/tasks"), state=state))

    def files(self, job_id: str, *, kind: str | None = None) -> Documents:
        """Committed Parquet files in order."""
        return list(self._transport.pages(self._one(job_id, "/files"), kind=kind))
