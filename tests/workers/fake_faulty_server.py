"""A fake OpenAI-compatible server on loopback that fails as it is told to, request after request.

It draws nothing: a completion is its prompt's first token and a fixed number of tokens.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMPLETION_TOKENS = 3


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"  # type: ignore[assignment]

    def do_GET(self) -> None:
        code, models = self.server.fake.models
        self.send(code, json.dumps({"data": [{"id": name} for name in models]}).encode())

    def do_POST(self) -> None:
        fake = self.server.fake
        self.document: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = fake.enter(self)
        try:
            (fault or completes(fake.says))(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            fake.leave()

    def send(self, status: int, body: bytes, content_type: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send_event(self, document: object) -> None:
        data = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)
        self.send_chunk(f"data: {data}\n\n".encode())

    def send_chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def cut(self) -> None:
        """Closes the connection in the middle of the answer."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


Fault = Callable[[Handler], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    fake: "FakeFaultyServer"


class FakeFaultyServer:
    """What it was asked, and how it answers.

    Args:
        faults: how the first requests are answered, in order; every later one gets a completion.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.released = threading.Event()
        self.says: str | None = None
        self.models: tuple[int, list[str]] = (200, ["there"])
        self.documents: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.peak = 0
        self._inside = 0
        self._faults = list(faults)
        self._lock = threading.Condition()
        self._http = _Server(("127.0.0.1", 0), Handler)
        self._http.fake = self
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def enter(self, handler: Handler) -> Fault | None:
        with self._lock:
            self.documents.append(handler.document)
            self.headers.append(dict(handler.headers))
            self._inside += 1
            self._lock.notify_all()
            self.peak = max(self.peak, self._inside)
            return self._faults.pop(0) if self._faults else None

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1

    def wait_for(self, num_requests: int) -> None:
        with self._lock:
            assert self._lock.wait_for(lambda: len(self.documents) >= num_requests, timeout=30)

    @contextmanager
    def running(self) -> Iterator["FakeFaultyServer"]:
        thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._http.shutdown()
            thread.join()
            self._http.server_close()


def completes(
    text: str | None = None,
    *,
    finish_reason: str = "stop",
    usage: dict[str, Any] | None = None,
    has_usage: bool = True,
    ends: bool = True,
) -> Fault:
    def answer(handler: Handler) -> None:
        prompt = handler.document["prompt"]
        said = str(prompt[0]) if text is None else text
        counts = {"prompt_tokens": len(prompt), "completion_tokens": COMPLETION_TOKENS} | (usage or {})
        told = {"usage": counts} if has_usage else {}
        if not handler.document["stream"]:
            choice = {"index": 0, "text": said, "finish_reason": finish_reason}
            handler.send(200, json.dumps({"choices": [choice], **told}).encode())
            return
        handler.begin_stream()
        for piece in said:
            handler.send_event({"choices": [{"index": 0, "text": piece, "finish_reason": None}]})
        handler.send_event({"choices": [{"index": 0, "text": "", "finish_reason": finish_reason}]})
        if told:
            handler.send_event({"choices": [], **told})
        if ends:
            handler.send_event("[DONE]")
        handler.send_chunk(b"")

    return answer


def status(code: int, message: str = "no reason", **headers: str) -> Fault:
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    return lambda handler: handler.send(code, body, **headers)


def says_of_key(code: int) -> Fault:
    """Repeats what it was sent, as some servers do."""

    def answer(handler: Handler) -> None:
        handler.send(code, json.dumps({"error": {"message": f"bad {handler.headers['Authorization']}"}}).encode())

    return answer


def is_no_json(handler: Handler) -> None:
    handler.send(200, b"<html>a proxy's page</html>")


def is_silent(handler: Handler) -> None:
    handler.server.fake.released.wait(30)
    handler.cut()


def is_silent_after_a_piece(handler: Handler) -> None:
    handler.begin_stream()
    handler.send_event({"choices": [{"index": 0, "text": "so", "finish_reason": None}]})
    handler.wfile.flush()
    handler.server.fake.released.wait(30)
    handler.cut()


def never_ends(handler: Handler) -> None:
    """Sends something again and again, so that no silence gives it away."""
    handler.begin_stream()
    while not handler.server.fake.released.is_set():
        handler.send_event({"choices": [{"index": 0, "text": "so", "finish_reason": None}]})
        time.sleep(0.01)
    handler.cut()


def cuts_stream(handler: Handler) -> None:
    handler.begin_stream()
    handler.send_event({"choices": [{"index": 0, "text": "so", "finish_reason": None}]})
    handler.cut()


def ends_stream_early(handler: Handler) -> None:
    """A proper end of the transfer without an end of the completion."""
    handler.begin_stream()
    handler.send_event({"choices": [{"index": 0, "text": "so", "finish_reason": None}]})
    handler.send_chunk(b"")


def fails_in_stream(handler: Handler) -> None:
    handler.begin_stream()
    handler.send_event({"error": {"message": "engine died", "code": 500}})
    handler.send_event("[DONE]")
    handler.send_chunk(b"")


def rejects_in_stream(handler: Handler) -> None:
    """As vLLM does, which has said 200 before it looks at the prompt."""
    handler.begin_stream()
    _reject(handler)


def rejects_after_a_piece(handler: Handler) -> None:
    handler.begin_stream()
    handler.send_event({"choices": [{"index": 0, "text": "so", "finish_reason": None}]})
    _reject(handler)


def _reject(handler: Handler) -> None:
    handler.send_event({"error": {"message": "no such token", "code": 400}})
    handler.send_event("[DONE]")
    handler.send_chunk(b"")


def cuts_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.cut()


def hangs_up(handler: Handler) -> None:
    handler.cut()


def held_until_released(handler: Handler) -> None:
    handler.server.fake.released.wait(30)
    completes()(handler)
