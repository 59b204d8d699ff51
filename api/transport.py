"""Requests to the service and its answers: addresses, retries, event streams, and errors as their classes again.

The lower half of `api/client.py`. Imports httpx and nothing heavier. Reading is repeated after a broken connection, and
so is whatever the caller says may be repeated.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import httpx

from service import errors
from service.errors import IsoflopError, Unreachable

DEFAULT_URL = "http://127.0.0.1:8265"
URL_FILE = "url"
"""Where a running service writes its address, in its data directory."""
TYPE_PREFIX = "urn:isoflop:problem:"
_ATTEMPTS = 3
RETRY_S = 0.5

Document = dict[str, Any]


class ApiError(IsoflopError):
    """An answer that none of the project's errors stands for.

    Args:
        problem: the problem document.
    """

    def __init__(self, problem: Mapping[str, Any]) -> None:
        self.problem = dict(problem)
        self.status = int(problem.get("status", 500))
        self.title = str(problem.get("title", "error"))
        super().__init__(str(problem.get("detail", self.title)))


_PLAIN_ERRORS: dict[str, type[IsoflopError]] = {
    "invalid-input": errors.InvalidInput,
    "not-found": errors.NotFound,
    "conflict": errors.Conflict,
    "budget-too-small": errors.BudgetTooSmall,
    "stale-attempt": errors.StaleAttempt,
    "corrupt-file": errors.CorruptFile,
    "already-running": errors.AlreadyRunning,
    "unreachable": errors.Unreachable,
}


def error_of(problem: Mapping[str, Any]) -> IsoflopError:
    """The error that a problem document stands for."""
    slug = str(problem.get("type", "")).removeprefix(TYPE_PREFIX)
    if slug == "unknown-name":
        return errors.UnknownName(kind=problem["kind"], got=problem["got"], allowed=problem["allowed"])
    if slug == "budget-exceeded":
        return errors.BudgetExceeded(account=problem["account"], asked=problem["got"], available=problem["allowed"])
    if slug in _PLAIN_ERRORS:
        return _PLAIN_ERRORS[slug](problem["detail"])
    return ApiError(problem)


def default_url(data_dir: Path | None = None) -> str:
    """ISOFLOP_URL, or the address of the service that runs on the data directory, or the usual one."""
    if url := os.environ.get("ISOFLOP_URL"):
        return url
    directory = data_dir or Path(os.environ.get("ISOFLOP_DATA_DIR", ".isoflop"))
    try:
        return (directory / URL_FILE).read_text().strip() or DEFAULT_URL
    except OSError:
        return DEFAULT_URL


def part_of_path(name: str, kind: str) -> str:
    """A name as it stands in a path, so that it names that resource and never another one.

    Raises:
        NotFound: a name that nothing can have.
    """
    if any(part in ("", ".", "..") for part in name.split("/")) or (kind == "job" and "/" in name):
        raise errors.NotFound(f"no {kind} {name[:200]!a}")
    return quote(name, safe="/", errors="backslashreplace")


class Transport:
    """Requests and answers as plain documents."""

    def __init__(self, base_url: str, *, timeout_s: float, transport: httpx.BaseTransport | None) -> None:
        """Opens no connection yet.

        Raises:
            InvalidInput: an address that is none.
        """
        self.base_url = base_url.rstrip("/")
        _check_url(self.base_url)
        self._http = httpx.Client(base_url=self.base_url, timeout=timeout_s, transport=transport, trust_env=False)

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: object | None = None,
        headers: Mapping[str, str] | None = None,
        is_repeatable: bool = False,
        expected: int | None = None,
    ) -> httpx.Response:
        """An answer that is no error.

        Args:
            is_repeatable: arriving twice does no harm.
            expected: an error status that is an answer here.

        Raises:
            Unreachable: nobody answers.
            IsoflopError: what the service says.
        """
        given = {name: _sendable(value) for name, value in (params or {}).items() if value is not None}
        # NaN and Infinity are sent as they are: what is wrong with a number is the service's to say
        content = None if body is None else json.dumps(body)
        sent = dict(headers or {}) | ({} if content is None else {"Content-Type": "application/json"})
        attempts = _ATTEMPTS if is_repeatable or method == "GET" else 1
        for attempt in range(1, attempts + 1):
            try:
                response = self._http.request(method, path, params=given, content=content, headers=sent)
            except httpx.ConnectError as error:
                raise self.unreachable(error) from error
            except httpx.TransportError as error:
                if attempt == attempts:
                    raise self.unreachable(error) from error
                time.sleep(RETRY_S * attempt)
                continue
            if response.status_code != expected:
                raise_for_problem(response)
            return response
        raise AssertionError("the loop returns or raises")

    def get(self, path: str, **params: Any) -> Any:
        """The JSON document at a path."""
        return self.request("GET", path, params=params).json()

    def pages(self, path: str, **params: Any) -> Iterator[Document]:
        """Items of every page."""
        cursor: str | None = None
        while True:
            page = self.get(path, **params, cursor=cursor)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator["WatchEvent"]:
        """Messages of one connection to an event stream."""
        timeout = httpx.Timeout(10.0, read=60.0)  # the stream sends a ping every 15 s
        accept = {"Accept": "text/event-stream", **headers}
        with self._http.stream("GET", path, headers=accept, timeout=timeout) as response:
            if response.is_error:
                response.read()
                raise_for_problem(response)
            yield from read_messages(response.iter_lines())

    def unreachable(self, error: Exception) -> Unreachable:
        """The error for a service that does not answer."""
        return Unreachable(
            f"{self.base_url} does not answer ({error}); start the service with `isoflop up`, or set ISOFLOP_URL to "
            "its address"
        )

    def close(self) -> None:
        """Closes every connection."""
        self._http.close()


def _check_url(text: str) -> None:
    try:
        url = urlsplit(text)
        is_address = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address:
        raise errors.InvalidInput(f"url: got {text[:200]!a}, allowed: an address such as {DEFAULT_URL}")


def _sendable(value: Any) -> Any:
    """The value without what a URL cannot hold: bytes of a command line that are no text."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def raise_for_problem(response: httpx.Response) -> None:
    """Raises what an error response stands for."""
    if not response.is_error:
        return
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "detail" not in problem:
        detail = f"{response.request.url}: {response.status_code} {response.reason_phrase}, no answer of isoflop"
        problem = {"status": response.status_code, "title": "unexpected answer", "detail": detail}
    raise error_of(problem)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    """A message of a job's event stream.

    Args:
        kind: `event` (a line people read), `progress` (numbers), `end` (the final phase, always last).
        id: of `event`, to resume from.
    """

    kind: Literal["event", "progress", "end"]
    id: str | None
    data: Document


def read_messages(lines: Iterator[str]) -> Iterator[WatchEvent]:
    """Server-sent events: lines to messages. Comments and unknown events are passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if fields.get("event") in ("event", "progress", "end"):
                kind: Any = fields["event"]
                yield WatchEvent(kind=kind, id=fields.get("id"), data=json.loads(fields["data"]))
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")


def read_events(transport: Transport, path: str, after: int, **filters: str) -> Iterator[Document]:
    """Events of every page after an id."""
    while items := transport.get(path, after=after, **filters)["items"]:
        yield from items
        after = items[-1]["id"]
