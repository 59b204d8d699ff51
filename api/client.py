"""The Python SDK: every resource of the service over HTTP, errors as the classes they were on the other side.

    from api.client import Client
    job = Client().jobs.create(problems="gsm-mini/train", models=["gsm-mini-small"], budget={"flops": 2e12})
    for event in job.watch(): ...

Synchronous. Imports httpx and nothing heavier, for the command line starts with it. Submitting carries an
Idempotency-Key, so that it makes one job however often it arrives.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import httpx

from api.client_artifacts import TERMINAL_PHASES, Artifacts
from api.transport import RETRY_S, Document, Transport, WatchEvent, default_url, part_of_path, read_events
from service.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

_RECONNECT_S = 30.0
"""A stream that cannot be opened again for this long is given up; the job goes on."""

Documents = list[Document]


def _job_path(job_id: str, rest: str = "") -> str:
    return f"/v1/jobs/{part_of_path(job_id, 'job')}{rest}"


class Job:
    """A job on the service. `document` is what it was when last asked."""

    def __init__(self, jobs: "Jobs", document: Document) -> None:
        self._jobs, self.document = jobs, document
        self.id: str = document["id"]

    @property
    def phase(self) -> str:
        """The phase when last asked."""
        return self.document["phase"]

    @property
    def is_over(self) -> bool:
        """Whether the job will never change again."""
        return self.phase in TERMINAL_PHASES

    def refresh(self) -> Self:
        """Asks again."""
        self.document = self._jobs.get(self.id).document
        return self

    def watch(self, *, after: int = 0) -> Iterator[WatchEvent]:
        """Events and progress until the job ends, see `Jobs.watch`."""
        return self._jobs.watch(self.id, after=after)

    def wait(self) -> Self:
        """Returns when the job has ended."""
        for _ in self.watch():
            pass
        return self.refresh()

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
        """Every committed sample (or score) as an Arrow table; the service's files must be readable from here."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from service.records import SAMPLE_SCHEMA, SCORE_SCHEMA

        schema = SAMPLE_SCHEMA if kind == "generate" else SCORE_SCHEMA
        tables = [pq.ParquetFile(file["path"]).read(columns=schema.names) for file in self.files(kind)]
        return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])

    def cancel(self) -> Self:
        """Drops running samples, keeps finished ones."""
        self.document = self._jobs.cancel(self.id).document
        return self

    def pause(self) -> Self:
        """Finishes running samples, starts no new ones."""
        self.document = self._jobs.pause(self.id).document
        return self

    def resume(self) -> Self:
        """Goes on."""
        self.document = self._jobs.resume(self.id).document
        return self


class Jobs:
    """/v1/jobs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self,
        document: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Job:
        """Submits a job: a whole document, its fields as keywords, or both (keywords win)."""
        body = {**(document or {}), **fields}
        key = str(uuid.uuid4()) if idempotency_key is None else idempotency_key
        if not (0 < len(key) <= 200 and key.isascii() and key.isprintable() and " " not in key):
            # other characters have no place in a header
            raise InvalidInput(f"idempotency key: got {key[:200]!a}, allowed: 1 to 200 printable ASCII characters")
        headers = {"Idempotency-Key": key}
        response = self._transport.request("POST", "/v1/jobs", body=body, headers=headers, is_repeatable=True)
        return Job(self, response.json())

    def plan(self, document: Mapping[str, Any] | None = None, **fields: Any) -> Document:
        """What a job would be and cost; nothing is stored."""
        body = {**(document or {}), **fields}
        params = {"dry_run": "true"}
        return self._transport.request("POST", "/v1/jobs", params=params, body=body, is_repeatable=True).json()

    def get(self, job_id: str) -> Job:
        """One job."""
        return Job(self, self._transport.get(_job_path(job_id)))

    def list(self, *, limit: int = 50) -> list[Job]:
        """The latest jobs, newest first."""
        items: list[Job] = []
        for item in self._transport.pages("/v1/jobs", limit=min(limit, 200)):
            items.append(Job(self, item))
            if len(items) == limit:
                break
        return items

    def cancel(self, job_id: str) -> Job:
        """Drops running samples, keeps finished ones."""
        return self._act(job_id, "cancel")

    def pause(self, job_id: str) -> Job:
        """Finishes running samples, starts no new ones."""
        return self._act(job_id, "pause")

    def resume(self, job_id: str) -> Job:
        """Goes on."""
        return self._act(job_id, "resume")

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
                for event in self._transport.stream(_job_path(job_id, "/events"), {"Last-Event-ID": str(last)}):
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
        return self._transport.get(_job_path(job_id, "/metrics"))

    def samples(
        self,
        job_id: str,
        *,
        verdict: str | None = None,
        problem: str | None = None,
        model: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Document]:
        """Samples with what their scorers say, in the order of commitment; all of them without a limit."""
        size = min(limit or 200, 200)
        found = self._transport.pages(
            _job_path(job_id, "/samples"), limit=size, verdict=verdict, problem=problem, model=model
        )
        for number, sample in enumerate(found):
            if limit is not None and number == limit:
                return
            yield sample

    def events(self, job_id: str, *, after: int = 0) -> Documents:
        """Every event after an id."""
        return list(read_events(self._transport, _job_path(job_id, "/events"), after))

    def tasks(self, job_id: str, *, state: str | None = None) -> Documents:
        """Tasks in order."""
        return list(self._transport.pages(_job_path(job_id, "/tasks"), state=state))

    def files(self, job_id: str, *, kind: str | None = None) -> Documents:
        """Committed Parquet files in order."""
        return list(self._transport.pages(_job_path(job_id, "/files"), kind=kind))

    def _act(self, job_id: str, verb: str) -> Job:
        response = self._transport.request("POST", _job_path(job_id, f"/{verb}"), is_repeatable=True)
        return Job(self, response.json())


class Models:
    """/v1/models."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def register(self, *, name: str, path: str | Path, engine: Mapping[str, Any] | None = None) -> Document:
        """Registers a model directory on the service's machine; tracing its cost may take a minute."""
        body = {"name": name, "path": str(path), "engine": dict(engine or {})}
        return self._transport.request("POST", "/v1/models", body=body).json()

    def list(self) -> Documents:
        """Every model."""
        return self._transport.get("/v1/models")["items"]

    def get(self, name: str) -> Document:
        """One model."""
        return self._transport.get(f"/v1/models/{part_of_path(name, 'model')}")


class Problems:
    """/v1/problems."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def register(self, *, name: str, **source: Any) -> Document:
        """Registers a problem set from `path` or `dataset`, with `subset`, `split`, `columns`."""
        body = {"name": name} | {key: value for key, value in source.items() if value is not None}
        body |= {"path": str(source["path"])} if source.get("path") is not None else {}
        return self._transport.request("POST", "/v1/problems", body=body).json()

    def list(self) -> Documents:
        """Every problem set."""
        return self._transport.get("/v1/problems")["items"]

    def get(self, name: str) -> Document:
        """One problem set."""
        return self._transport.get(f"/v1/problems/{part_of_path(name, 'problem set')}")


class Pools:
    """/v1/pools."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Documents:
        """Every pool."""
        return self._transport.get("/v1/pools")["items"]

    def get(self, model: str) -> Document:
        """One pool; its `version` goes back with a change."""
        return self._transport.get(f"/v1/pools/{part_of_path(model, 'pool')}")

    def scale(
        self,
        model: str,
        *,
        replicas: int | None = None,
        min: int | None = None,
        idle_s: float | None = None,
        version: int | None = None,
    ) -> Document:
        """Changes a pool: with a version only if it is still the one stored, without one whatever is."""
        changes = {"replicas": replicas, "min": min, "idle_s": idle_s}
        body = {name: value for name, value in changes.items() if value is not None}
        headers = {"If-Match": "*" if version is None else f'"{version}"'}
        return self._transport.request(
            "PATCH", f"/v1/pools/{part_of_path(model, 'pool')}", body=body, headers=headers
        ).json()


class Client:
    """One service.

    Args:
        base_url: where it answers; see `default_url`.
        data_dir: data directory of the service to find, where no address is given.
        timeout_s: longest wait for an answer; registering a model may take a minute.
        transport: another way to send requests, for tests.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        data_dir: Path | None = None,
        timeout_s: float = 180.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        url = base_url or default_url(data_dir)
        self._transport = Transport(url, timeout_s=timeout_s, transport=transport)
        self.jobs = Jobs(self._transport)
        self.models = Models(self._transport)
        self.problems = Problems(self._transport)
        self.pools = Pools(self._transport)
        self.selections = Artifacts(self._transport, "/v1/selections", "selection")
        self.finetunes = Artifacts(self._transport, "/v1/finetunes", "finetune")
        self.evaluations = Artifacts(self._transport, "/v1/evaluations", "evaluation")
        self.comparisons = Artifacts(self._transport, "/v1/comparisons", "comparison")

    def artifacts_of(self, any_id: str) -> Artifacts | None:
        """The resource that an id belongs to, if it is no job's."""
        by_prefix = {
            "select": self.selections,
            "finetune": self.finetunes,
            "evaluate": self.evaluations,
            "compare": self.comparisons,
        }
        return by_prefix.get(any_id.partition("-")[0])

    @property
    def base_url(self) -> str:
        """Where the service answers."""
        return self._transport.base_url

    def usage(
        self,
        *,
        by: Sequence[str] = ("job", "model", "stage", "outcome"),
        job: str | None = None,
        bucket: Literal["minute"] | None = None,
    ) -> Documents:
        """Samples, tokens, FLOPs and busy seconds, summed by `by`."""
        return self._transport.get("/v1/usage", by=",".join(by), job=job, bucket=bucket)["items"]

    def events(self, *, after: int = 0, job: str | None = None) -> Documents:
        """Events of everything and of the service after an id, or of one job, selection or finetune."""
        filters = {} if job is None else {"job": job}
        return list(read_events(self._transport, "/v1/events", after, **filters))

    def scores(self, job_id: str) -> Documents:
        """Score files of a job."""
        return list(self._transport.pages("/v1/scores", job=job_id))

    def health(self) -> Document:
        """The control loop's pulse.

        Raises:
            Unreachable: nobody answers.
        """
        return self._transport.request("GET", "/healthz", expected=503).json()

    def close(self) -> None:
        """Closes every connection."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
