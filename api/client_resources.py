"""What the SDK's jobs, selections, finetunes, evaluations and comparisons share: submitted, looked at, waited for.

A `Resource` is one of them, `Resources` is the collection it is in. Submitting carries an Idempotency-Key, so that it
makes one however often it arrives. Imports nothing heavy: the command line starts with it.
"""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from api.transport import Document, Transport, part_of_path
from service.errors import InvalidInput

if TYPE_CHECKING:
    from datasets import Dataset

TERMINAL_PHASES = ("succeeded", "finished_with_errors", "failed", "cancelled")
_LARGEST_PAGE = 200
_LONGEST_KEY = 200


class Resource(ABC):
    """Something on the service that takes its time. `document` is what it was when last asked."""

    def __init__(self, resources: "Resources[Any]", document: Document) -> None:
        self._resources, self.document = resources, document
        self.id: str = document["id"]

    @property
    def phase(self) -> str:
        """The phase when last asked."""
        return self.document["phase"]

    @property
    def is_over(self) -> bool:
        """Whether it will never change again."""
        return self.phase in TERMINAL_PHASES

    @abstractmethod
    def watch(self) -> Iterator[object]:
        """What happens to it, until it has ended."""

    @abstractmethod
    def dataset(self) -> "Dataset":
        """Its rows as a dataset; the service's files must be readable from here."""

    def to_trl(self) -> "Dataset":
        """What TRL trains on as it is: `prompt` and `completion`, and nothing else."""
        return self.dataset().select_columns(["prompt", "completion"])

    def refresh(self) -> Self:
        """Asks again."""
        self.document = self._resources.get(self.id).document
        return self

    def wait(self) -> Self:
        """Returns when it has ended."""
        for _ in self.watch():
            pass
        return self.refresh()

    def cancel(self) -> Self:
        """Ends it: what runs is dropped, what is finished stays."""
        return self._act("cancel")

    def pause(self) -> Self:
        """Lets a job or comparison finish what runs and start nothing new; stops a finetune at its next step."""
        return self._act("pause")

    def resume(self) -> Self:
        """Goes on; a finetune from its last checkpoint."""
        return self._act("resume")

    def _act(self, verb: str) -> Self:
        self.document = self._resources.act(self.id, verb).document
        return self


ResourceT = TypeVar("ResourceT", bound=Resource)


class Resources(Generic[ResourceT]):
    """Everything of one kind.

    Args:
        path: where it is served, e.g. `/v1/jobs`.
        noun: what one is called.
        make: the type of one.
        verbs: what can be done with one.
    """

    def __init__(
        self,
        transport: Transport,
        path: str,
        noun: str,
        *,
        make: type[ResourceT],
        verbs: Sequence[str] = ("cancel", "pause", "resume"),
    ) -> None:
        self._transport, self._path, self._noun = transport, path, noun
        self._make, self._verbs = make, verbs

    def create(
        self, document: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None, **fields: Any
    ) -> ResourceT:
        """Submits one: a whole document, its fields as keywords, or both (keywords win)."""
        key = str(uuid.uuid4()) if idempotency_key is None else idempotency_key
        if not (0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable() and " " not in key):
            # other characters have no place in a header
            raise InvalidInput(
                f"idempotency key: got {key[:_LONGEST_KEY]!a}, allowed: 1 to {_LONGEST_KEY} printable ASCII characters"
            )
        body = {**(document or {}), **fields}
        headers = {"Idempotency-Key": key}
        response = self._transport.request("POST", self._path, body=body, headers=headers, is_repeatable=True)
        return self._make(self, response.json())

    def plan(self, document: Mapping[str, Any] | None = None, **fields: Any) -> Document:
        """What a job or comparison would be and cost; nothing is stored."""
        body = {**(document or {}), **fields}
        params = {"dry_run": "true"}
        return self._transport.request("POST", self._path, params=params, body=body, is_repeatable=True).json()

    def get(self, any_id: str) -> ResourceT:
        """One of them."""
        return self._make(self, self._transport.get(self._one(any_id)))

    def list(self, *, limit: int = 50) -> list[ResourceT]:
        """The latest, newest first."""
        items: list[ResourceT] = []
        for item in self._transport.pages(self._path, limit=min(limit, _LARGEST_PAGE)):
            items.append(self._make(self, item))
            if len(items) == limit:
                break
        return items

    def cancel(self, any_id: str) -> ResourceT:
        """Ends it: what runs is dropped, what is finished stays."""
        return self.act(any_id, "cancel")

    def pause(self, any_id: str) -> ResourceT:
        """Finishes what runs and starts nothing new."""
        return self.act(any_id, "pause")

    def resume(self, any_id: str) -> ResourceT:
        """Goes on."""
        return self.act(any_id, "resume")

    def act(self, any_id: str, verb: str) -> ResourceT:
        """Cancels, pauses or resumes.

        Raises:
            InvalidInput: nothing that can be done with one of this kind.
        """
        if verb not in self._verbs:
            allowed = ", ".join(self._verbs)
            raise InvalidInput(f"{verb}: got {self._noun} {any_id[:200]!a}, allowed for one: {allowed}")
        response = self._transport.request("POST", self._one(any_id, f"/{verb}"), is_repeatable=True)
        return self._make(self, response.json())

    def _one(self, any_id: str, rest: str = "") -> str:
        return f"{self._path}/{part_of_path(any_id, self._noun)}{rest}"


def file_here(path: str, what: str) -> Path:
    """A file that the service names, if it can be read from here.

    Args:
        what: what the file is, as it stands in the message.

    Raises:
        InvalidInput: no file here.
    """
    if not Path(path).is_file():
        raise InvalidInput(
            f"{what} is {path} on the service's machine, which is no file here; allowed: a machine that can read the "
            "service's data directory"
        )
    return Path(path)
