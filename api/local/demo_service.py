"""The demo's service: the real one, as a process of its own, stopped at the end."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api.client import Client
from api.local.tiny_world import EXAMPLE_DIR
from service.errors import Unreachable

START_S = 60.0
STOP_S = 90.0


@contextmanager
def demo_service(directory: Path, port: int, engine_places: int | None = None) -> Iterator[Client]:
    """The service as a child process, stopped at the end unless it is to be kept."""
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "service.log"
    command = [sys.executable, "-m", "api.cli", "--data-dir", str(directory), "up"]
    command += ["--port", str(port), "--root", str(EXAMPLE_DIR)]
    command += [] if engine_places is None else ["--engine-places", str(engine_places)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield _connect(directory, process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_S)


def _connect(directory: Path, process: "subprocess.Popen[bytes]", log: Path) -> Client:
    url = directory / "url"
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unreachable(f"the service did not start: {log.read_text().strip()[-1500:]}")
        if url.exists() and _belongs_to(url, process):
            return Client(url.read_text().strip())
        time.sleep(0.1)
    raise Unreachable(f"the service did not answer within {START_S:.0f} s; see {log}")


def _belongs_to(url: Path, process: "subprocess.Popen[bytes]") -> bool:
    """Whether the address was written by this process, not left by one that was killed."""
    return url.stat().st_mtime >= _started_at(process)


def _started_at(process: "subprocess.Popen[bytes]") -> float:
    import psutil

    return psutil.Process(process.pid).create_time() - 1.0
