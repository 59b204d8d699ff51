"""What a request must be before a handler sees it: addressed to this service, from this service's pages, not too large.

A browser can be made to send requests to loopback addresses: under a foreign name that resolves to 127.0.0.1 (DNS
rebinding), or from a foreign page. The Host header stops the first, the Origin header the second. Pure ASGI.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problem import problem
from service.config import LOOPBACK_NAMES

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Refuses foreign hosts (421), foreign origins (403) and large bodies (413).

    Args:
        hosts: names besides the loopback ones that this service is reached by, without port.
        max_body_bytes: largest body.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str], max_body_bytes: int) -> None:
        self._app = app
        self._hosts = frozenset(host.strip("[]").lower() for host in (*LOOPBACK_NAMES, *hosts))
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request through or answers it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], headers)
        if refusal is None and scope["method"] not in _SAFE_METHODS:
            body = await _read_body(receive, self._max_body_bytes)
            if body is None:
                refusal = (413, "body too large", f"body: allowed: at most {self._max_body_bytes:,} bytes")
            else:
                receive = _replay(body, receive)
        if refusal is None:
            await self._app(scope, receive, send)
            return
        status, title, detail = refusal
        response = problem(status=status, title=title, detail=detail, instance=scope["path"], kind="refused")
        await response(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str, str] | None:
        host = _host_name(f"//{headers.get('host', '')}")
        if host not in self._hosts:
            allowed = ", ".join(sorted(self._hosts))
            return 421, "unknown host", f"Host: got {headers.get('host', '')[:100]!r}, allowed: {allowed}"
        origin = headers.get("origin")
        if method not in _SAFE_METHODS and origin is not None and _host_name(origin) not in self._hosts:
            return 403, "foreign origin", f"Origin: got {origin[:100]!r}, allowed: pages of this service"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_body_bytes:
            return 413, "body too large", f"body: got {length} bytes, allowed: at most {self._max_body_bytes:,}"
        return None


def _host_name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


async def _read_body(receive: Receive, limit: int) -> bytes | None:
    """The whole body, or None once it passes the limit."""
    chunks: list[bytes] = []
    size, is_more = 0, True
    while is_more:
        message = await receive()
        chunk = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            return None
        is_more = message["type"] == "http.request" and message.get("more_body", False)
    return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives `body` once and then what the server says (a disconnect)."""
    is_sent = False

    async def replayed() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
