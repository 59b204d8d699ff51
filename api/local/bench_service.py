"""The real service as a child process, for benchmarks: started, timed, read from outside, stopped.

Owns the process and its data directory. What HTTP does not tell (when a host was asked for, when a part was committed)
is read from the service's database, which is never written here.
"""

import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from api.client import Client, Job
from api.local.tiny_world import EXAMPLE_DIR, model_dir
from service.errors import IsoflopError, Unreachable
from service.store import Store

START_S = 90.0
STOP_S = 120.0
_LOOK_S = 0.02
_POLL_S = 0.5


class BenchService:
    """A service on a directory of its own; may be started again after it was stopped.

    Args:
        directory: made if it does not exist; holds data, log, and problem files that a benchmark registers.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.data_dir = self.directory / "data"
        self.database = self.data_dir / "isoflop.db"
        self._log = self.directory / "service.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._client: Client | None = None
        self._store: Store | None = None

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._store is not None:
            self._store.close()

    def start(self) -> float:
        """Starts the service; returns seconds until its first 200 of /healthz.

        Raises:
            Unreachable: it ended, or was silent for `START_S`.
        """
        url_file = self.data_dir / "url"
        url_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "api.cli", "--data-dir", str(self.data_dir), "up", "--port", "0"]
        command += ["--root", str(EXAMPLE_DIR), "--root", str(self.directory)]
        with self._log.open("ab") as output:
            started = time.perf_counter()
            self._process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        while not (url_file.exists() and _answers(url_file.read_text().strip())):
            self._look(started)
        seconds = time.perf_counter() - started
        self._client = Client(url_file.read_text().strip())
        return seconds

    def _look(self, started: float) -> None:
        assert self._process is not None, "start() comes first"
        if self._process.poll() is not None:
            raise Unreachable(f"the service ended; the last of its log: {self._log.read_text()[-1500:]}")
        if time.perf_counter() - started > START_S:
            raise Unreachable(f"the service was not ready within {START_S:.0f} s; its log: {self._log}")
        time.sleep(_LOOK_S)

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ends the service and its cluster, if it runs."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is not None and self.is_running:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(STOP_S)

    @property
    def client(self) -> Client:
        """Speaks to the running service."""
        assert self._client is not None, "start() comes first"
        return self._client

    @property
    def process(self) -> psutil.Process:
        """The service's own process: control loop and HTTP, no engine."""
        assert self._process is not None, "start() comes first"
        return psutil.Process(self._process.pid)

    @property
    def store(self) -> Store:
        """The service's database, for reading."""
        if self._store is None:
            self._store = Store.open(f"sqlite:///{self.database}")
        return self._store

    def metric(self, name: str) -> float:
        """A sample without labels of /metrics."""
        return parse_metric(httpx.get(f"{self.client.base_url}/metrics", timeout=30.0).text, name)

    def register_model(self, name: str, files: str, **engine: Any) -> None:
        """A shipped model's files under a name."""
        self.client.models.register(name=name, path=model_dir(files), engine=engine)

    def run(self, job: Job) -> Job:
        """The job when it has ended.

        Raises:
            IsoflopError: it did not succeed.
        """
        while not job.is_over:
            time.sleep(_POLL_S)
            job.refresh()
        if job.phase != "succeeded":
            raise IsoflopError(f"{job.id} {job.phase}: {job.document['error'] or f'see {self._log}'}")
        return job


def parse_metric(text: str, name: str) -> float:
    """The value of a sample without labels in the Prometheus text format.

    Raises:
        ValueError: there is no such sample.
    """
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"/metrics has no sample {name!r} without labels")
    return float(found[1])


def moment(text: str) -> datetime:
    """A time of the API."""
    return datetime.fromisoformat(text)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=5.0).status_code == 200
    except httpx.TransportError:
        return False
