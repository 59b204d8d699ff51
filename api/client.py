"""The Python SDK: every resource of the service over HTTP, errors as the classes they were on the other side.

    from api.client import Client
    job = Client().jobs.create(problems="gsm-mini/train", models=["gsm-mini-small"], budget={"flops": 2e12})
    for event in job.watch(): ...

Synchronous. Imports httpx and nothing heavier, for the command line starts with it. Submitting carries an
Idempotency-Key, so that it makes one job however often it arrives.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import httpx

from api.client_artifacts import Artifact, Artifacts
from api.client_imports import Imports
from api.client_jobs import Documents, Job, Jobs
from api.transport import Document, Transport, default_url, part_of_path, read_events

__all__ = ["Artifact", "Artifacts", "Client", "Job", "Jobs", "Models", "Pools", "Problems"]


class Models:
    """/v1/models."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def register(
        self,
        *,
        name: str,
        path: str | Path | None = None,
        base: str | None = None,
        engine: Mapping[str, Any] | None = None,
        price: Mapping[str, float] | None = None,
        endpoint: Mapping[str, Any] | None = None,
        context_len: int | None = None,
        parameters: int | None = None,
    ) -> Document:
        """Registers a directory with a model or an adapter on the service's machine, or a server elsewhere.

        Tracing may take a minute. Merging an adapter takes as long as reading and writing its base; where that is
        longer than the client waits, the service goes on, and registering it again finds what was merged.

        Args:
            base: of an adapter, the registered model that it is merged into; without one, the one that it names.
            endpoint: `base_url`, `model` and what `GET /openapi.json` lists, of a server that draws for it.
            context_len: of an endpoint without config.json.
            parameters: of an endpoint, where they are known.
            price: `input_usd`, `output_usd` and perhaps `cached_usd`, of a million tokens.
        """
        given = {
            "path": None if path is None else str(path),
            "base": base,
            "engine": None if engine is None else dict(engine),
            "price": None if price is None else dict(price),
            "endpoint": None if endpoint is None else dict(endpoint),
            "context_len": context_len,
            "parameters": parameters,
        }
        body = {"name": name} | {field: value for field, value in given.items() if value is not None}
        return self._transport.request("POST", "/v1/models", body=body).json()

    def list(self) -> Documents:
        """Every model."""
        return self._transport.get("/v1/models")["items"]

    def get(self, name: str) -> Document:
        """One model."""
        return self._transport.get(f"/v1/models/{part_of_path(name, 'model')}")

    def change(self, name: str, *, price: Mapping[str, float] | None) -> Document:
        """Changes what a model's tokens cost, for jobs submitted from now on; None takes the price away."""
        return self._change(name, {"price": None if price is None else dict(price)})

    def limit(self, name: str, **limits: float | None) -> Document:
        """Changes how an endpoint's server is treated, for jobs submitted from now on; what is not named stays.

        Args:
            limits: e.g. `max_in_flight`, `requests_per_minute`, `max_lost_tries`; None takes a limit a minute away.
        """
        return self._change(name, {"endpoint": limits})

    def _change(self, name: str, body: Mapping[str, Any]) -> Document:
        return self._transport.request("PATCH", f"/v1/models/{part_of_path(name, 'model')}", body=body).json()


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
        self.imports = Imports(self._transport, self.jobs)
        self.selections = Artifacts(self._transport, "/v1/selections", "selection", verbs=("cancel",))
        self.finetunes = Artifacts(self._transport, "/v1/finetunes", "finetune")
        self.evaluations = Artifacts(self._transport, "/v1/evaluations", "evaluation", verbs=("cancel",))
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
