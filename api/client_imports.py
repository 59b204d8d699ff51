"""The SDK's imports: completions that exist already, submitted as a job."""

from collections.abc import Mapping
from typing import Any

from api.client_jobs import Job, Jobs
from api.client_resources import Resources
from api.transport import Document, Transport


class Imports(Resources[Job]):
    """/v1/imports. What is made is a job, and looked at as one."""

    def __init__(self, transport: Transport, jobs: Jobs) -> None:
        super().__init__(transport, "/v1/imports", "import", make=Job, verbs=())
        self._jobs = jobs

    def create(
        self, document: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None, **fields: Any
    ) -> Job:
        """Imports files of the service's machine; the same import is the same job (`document["is_new"]`)."""
        made = super().create(document, idempotency_key=idempotency_key, **fields)
        return Job(self._jobs, made.document)

    def plan(self, document: Mapping[str, Any] | None = None, **fields: Any) -> Document:
        """What an import would be, every row looked at; nothing is stored."""
        return super().plan(document, **fields)
