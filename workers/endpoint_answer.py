"""What an answer of an OpenAI-compatible server means: a completion with its token counts, or why there is none.

Owns the reading of bytes that a server sent, which may be cut, broken or of another kind than was asked for. Invariant:
whatever is not a whole completion with its usage is one of the errors below, and which one says whether the server may
have charged for it. Opens no connection.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

_SHOWN_CHARACTERS = 200
_REFUSING = (429, 503)
_LOSING = (408, 409, 425)  # beside 5xx: the server may have been at work
_REJECTING = (400, 404, 413, 422)  # in a stream; there anything else may pass
_DATA, _END = b"data:", b"[DONE]"


class TryFailed(Exception):
    """One try brought no completion; the message says what happened."""


class Refused(TryFailed):
    """The server did no work; it may later.

    Args:
        retry_after_s: how long it asked to wait [s]; None where it did not say.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Lost(TryFailed):
    """The server may have drawn tokens, and charge for them; trying again may help."""


class Rejected(TryFailed):
    """The server will never serve this request.

    Args:
        is_lost: it may have charged for it all the same.
    """

    def __init__(self, message: str, *, is_lost: bool = False) -> None:
        super().__init__(message)
        self.is_lost = is_lost


class KeyRefused(TryFailed):
    """The server does not take the key, and will not take it for any other request."""


class Served(NamedTuple):
    """A completion as the server tells of it.

    Args:
        finish_reason: the server's word.
        prompt_tokens: cached ones included [tokens].
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(slots=True)
class Completion:
    """A completion that grows by the documents of its answer: one, or a stream of pieces.

    Attributes:
        num_pieces: pieces of text so far; a server sends one for a token or a few.
    """

    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    num_pieces: int = 0

    def add(self, data: bytes) -> None:
        """Takes one JSON document.

        Raises:
            Lost: it is none, or tells of an error in the middle of the work.
            Rejected: it says what is wrong with the request; a server that streams may say so only here.
        """
        try:
            document = json.loads(data)
            choices = document.get("choices") or []
            if document.get("error"):
                raise self._failure(document)
            for choice in choices:
                piece = choice.get("text") or ""
                self.text += piece
                self.num_pieces += bool(piece)
                self.finish_reason = choice.get("finish_reason") or self.finish_reason
            self.usage = document.get("usage") or self.usage
        except (ValueError, AttributeError, TypeError) as error:
            raise Lost(f"the answer is no completion in JSON: {shown(data)}") from error

    def _failure(self, document: dict[str, Any]) -> TryFailed:
        error = document["error"]
        code = error.get("code") if isinstance(error, dict) else None
        message = f"the server ended the answer: {shown(_message(document))}"
        if code in _REJECTING:
            return Rejected(f"{message} ({code})", is_lost=self.num_pieces > 0)
        return Lost(message)

    def served(self, *, is_whole: bool) -> Served:
        """The whole completion.

        Args:
            is_whole: the server has said all it will say; else what is missing may have been cut off.

        Raises:
            Lost: it was cut.
            Rejected: it has no usage, and would have none if asked for again.
        """
        if self.finish_reason is None or not (self.usage or is_whole):
            raise Lost(f"the answer was cut after {self.num_pieces} pieces of text")
        usage = self.usage or {}
        counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
        details = usage.get("prompt_tokens_details")
        cached = (details.get("cached_tokens") if isinstance(details, dict) else None) or 0
        match [*counts, cached]:
            case [int(prompt), int(completion), int(cached)] if 0 <= cached <= prompt and completion >= 0:
                return Served(self.text, self.finish_reason, prompt, cached, completion)
        raise Rejected(
            f"the answer has no usage to charge by, got {shown(usage)}; needed: prompt_tokens, completion_tokens",
            is_lost=True,
        )


class EventLines:
    """Splits a stream of server-sent events into the documents of their data.

    By bytes: a line separator of Unicode may stand in the text of a completion as it is.
    """

    def __init__(self) -> None:
        self._rest = b""
        self.has_ended = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Documents that are whole now; sets `has_ended` at the server's word for it."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            data = line.strip().removeprefix(_DATA).strip() if line.startswith(_DATA) else b""
            if data == _END:
                self.has_ended = True
            elif data:
                yield data


def failure_of(status: int, body: bytes, retry_after: str | None, now: datetime) -> TryFailed:
    """What a status other than 200 means.

    Args:
        retry_after: that header, if there was one.
        now: aware time that a date in it is counted from.
    """
    if status in (401, 403):
        # what the server says of a key may show the key
        return KeyRefused(f"HTTP {status}: the server does not take the key")
    message = f"HTTP {status}: {shown(_message_of(body))}"
    if status in _REFUSING:
        return Refused(message, retry_after_s(retry_after, now))
    if status >= 500 or status in _LOSING:
        return Lost(message)
    return Rejected(message)


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Seconds that a `Retry-After` header asks to wait, given as a number or a date; None for none that can be read."""
    if header is None:
        return None
    try:
        if header.strip().isdecimal():
            return float(header)
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds())


def shown(said: object) -> str:
    """What a server said, on one short line."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}…"


def _message_of(body: bytes) -> object:
    try:
        return _message(json.loads(body))
    except ValueError:
        return body


def _message(document: object) -> object:
    error = document.get("error", document) if isinstance(document, dict) else document
    return error.get("message", error) if isinstance(error, dict) else error
