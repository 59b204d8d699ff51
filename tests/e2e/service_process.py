"""Runs the real service as a process of its own and speaks to it over HTTP, as a user would.

Owns the process, its output and its data directory. Facts that HTTP does not tell (process ids of hosts) come from the
database, which is only read. Kills nothing but what belongs to this service.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from service.cluster import HostKind
from service.planner.plan import HostView
from service.store import Store
from service.verify import VerifyReport, verify_directory
from tests.e2e.builders import make_problems
from workers.hosts import Process
from workers.ray_head import RayHead, find_head

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parents[2]
TINY_WORLD = REPOSITORY / "examples" / "tiny-world"
ENDED = {"succeeded", "finished_with_errors", "failed", "cancelled"}
POLL_S = 0.05


def until(look: Callable[[], T | None], what: str, patience_s: float, explain: Callable[[], str] = str) -> T:
    """What `look` finds, asked again until it finds something; fails with `what` and an explanation otherwise."""
    deadline = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for {what}; {explain()}"
        time.sleep(POLL_S)
    return found


def command(data_dir: Path, *, port: int = 0, roots: tuple[Path, ...] = ()) -> list[str]:
    """The command line that runs a service until it gets a signal."""
    options = [option for root in roots for option in ("--root", str(root))]
    return [sys.executable, "-m", "api.cli", "--data-dir", str(data_dir), "up", "--port", str(port), *options]


class ServiceProcess:
    """A service on one data directory that may be ended and started any number of times.

    Args:
        directory: holds data, output and whatever tests add to it; models and problems may be registered from it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.log_path = directory / "service.log"
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client(timeout=60.0)
        self._store: Store | None = None
        self._registered: set[str] = set()

    # -- life

    def start(self, patience_s: float = 120.0) -> None:
        """Starts the process and waits until its control loop ticks."""
        offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command(self.data_dir, roots=(self.directory, TINY_WORLD)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=REPOSITORY,
                start_new_session=True,
            )
        self.url = until(lambda: self._announced_url(offset), "the service to say its address", 60.0, self.output)
        until(self._is_ready, "the control loop to tick", patience_s, self.output)

    def ensure_running(self) -> None:
        """Starts the service unless it runs."""
        if not self.is_running():
            self.start()

    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the service's own process."""
        assert self._process is not None, "the service has never been started"
        return self._process.pid

    def kill(self) -> None:
        """kill -9 of the service's process; its Ray head and engines live on."""
        os.kill(self.pid, signal.SIGKILL)
        assert self._process is not None
        self._process.wait(timeout=10)

    def stop(self, patience_s: float = 90.0) -> int:
        """SIGTERM; returns the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self.wait_exit(patience_s)

    def wait_exit(self, patience_s: float) -> int:
        """The exit code, once there is one."""
        assert self._process is not None, "the service has never been started"
        return self._process.wait(timeout=patience_s)

    def close(self) -> None:
        """Ends the service and everything it started, however it is."""
        if self.is_running():
            try:
                self.stop(30.0)
            except subprocess.TimeoutExpired:
                self.kill()
        if (head := self.head()) is not None:
            head.stop()
        self._client.close()
        if self._store is not None:
            self._store.close()

    def output(self) -> str:
        """The last words of the process."""
        return self.log_path.read_text(errors="replace")[-4000:]

    def _announced_url(self, offset: int) -> str | None:
        assert self.is_running(), f"the service ended: {self.output()}"
        with self.log_path.open("rb") as log:
            log.seek(offset)
            lines = log.read().decode(errors="replace").splitlines()
        return next((line.split()[1] for line in lines if line.startswith("isoflop  http")), None)

    def _is_ready(self) -> bool:
        assert self.is_running(), f"the service ended: {self.output()}"
        return self._client.get(f"{self.url}/readyz").status_code == 200

    # -- the machine

    def head(self) -> RayHead | None:
        """The Ray head of this data directory, if it runs."""
        return find_head(self.data_dir.absolute() / "ray")

    def cluster_processes(self) -> list[Process]:
        """The Ray head and everything below it."""
        head = self.head()
        assert head is not None, "no Ray head runs"
        root = psutil.Process(head.process.pid)
        found = [head.process]
        for child in root.children(recursive=True):
            try:
                found.append(Process(pid=child.pid, started_at=child.create_time()))
            except psutil.NoSuchProcess:
                continue
        return found

    @property
    def store(self) -> Store:
        """The service's database, for reading."""
        if self._store is None:
            self._store = Store.open(f"sqlite:///{self.data_dir.absolute() / 'isoflop.db'}")
        return self._store

    def hosts(self, kind: HostKind) -> list[HostView]:
        """Hosts of a kind that are not known to be gone and have a process."""
        return [h for h in self.store.reads.hosts() if h.kind is kind and h.ended_at is None and h.pid is not None]

    def host_pid(self, kind: HostKind, model: str | None = None) -> int:
        """Process id of the only host of that kind and model."""
        (host,) = [host for host in self.hosts(kind) if host.model == model]
        assert host.pid is not None
        return host.pid

    # -- requests

    def get(self, path: str, **parameters: Any) -> Any:
        """The answer's JSON; anything but success fails."""
        answer = self._client.get(self.url + path, params=parameters)
        assert answer.is_success, f"GET {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def try_post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """The whole answer."""
        return self._client.post(self.url + path, json=body)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer's JSON; anything but success fails."""
        answer = self.try_post(path, body)
        assert answer.is_success, f"POST {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def items(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        """Every item of a paged list."""
        page = self.get(path, **parameters)
        found = list(page["items"])
        while page.get("next_cursor"):
            page = self.get(path, **parameters, cursor=page["next_cursor"])
            found += page["items"]
        return found

    def register_tiny_world(self) -> None:
        """The small model, and the 250 test problems as `gsm-mini/test`; once, for a model is inspected for seconds."""
        if "tiny world" in self._registered:
            return
        self._registered.add("tiny world")
        self.post("/v1/models", {"name": "gsm-mini-small", "path": str(TINY_WORLD / "models" / "gsm-mini-small")})
        self.post("/v1/problems", {"name": "gsm-mini/test", "path": str(TINY_WORLD / "problems" / "test.jsonl")})

    def register_simulated(self, num_problems: int = 200) -> None:
        """A model without an engine, `simulated`, and problems that it solves at times, `marked`; once."""
        if "simulated" in self._registered:
            return
        self._registered.add("simulated")
        path = str(TINY_WORLD / "models" / "gsm-mini-small")
        self.post("/v1/models", {"name": "simulated", "path": path, "engine": {"simulated": True, "max_num_seqs": 32}})
        problems = self.directory / "problems.jsonl"
        if not problems.exists():
            make_problems(self.directory, num_problems)
        self.post("/v1/problems", {"name": "marked", "path": str(problems)})

    def submit(self, **document: Any) -> str:
        """Submits a job on the tiny world, unless the document says otherwise; returns its id."""
        defaults = {
            "problems": "gsm-mini/test",
            "models": ["gsm-mini-small"],
            "sampling": {"temperature": 0.8, "max_tokens": "auto"},
        }
        return self.post("/v1/jobs", defaults | document)["id"]

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as it is now."""
        return self.get(f"/v1/jobs/{job_id}")

    def wait_ended(self, job_id: str, patience_s: float = 180.0) -> dict[str, Any]:
        """The job once it has ended."""

        def look() -> dict[str, Any] | None:
            assert self.is_running(), f"the service ended: {self.output()}"
            job = self.job(job_id)
            return job if job["phase"] in ENDED else None

        return until(look, f"{job_id} to end", patience_s, lambda: self.explain(job_id))

    def wait_parts(self, job_id: str, number: int, patience_s: float = 180.0) -> list[dict[str, Any]]:
        """Committed sample files once there are `number`; fails if the job ends before."""

        def look() -> list[dict[str, Any]] | None:
            phase = self.job(job_id)["phase"]
            assert phase not in ENDED, f"{job_id} is {phase} already; give it a larger budget"
            files = self.files(job_id)
            return files if len(files) >= number else None

        return until(look, f"{number} parts of {job_id}", patience_s, lambda: self.explain(job_id))

    def files(self, job_id: str) -> list[dict[str, Any]]:
        """Committed sample files."""
        return self.items(f"/v1/jobs/{job_id}/files", kind="generate")

    def tasks(self, job_id: str, kind: str) -> list[dict[str, Any]]:
        """Tasks of a kind."""
        return [task for task in self.items(f"/v1/jobs/{job_id}/tasks") if task["kind"] == kind]

    def usage(self, job_id: str) -> dict[str, dict[str, Any]]:
        """What generation used, by outcome."""
        rows = self.get("/v1/usage", job=job_id, by="stage,outcome")["items"]
        return {row["outcome"]: row for row in rows if row["stage"] == "generate"}

    def event_kinds(self, *, after: int = 0) -> list[str]:
        """Kinds of all events of the service and its jobs, oldest first."""
        return [event["kind"] for event in self.events(after=after)]

    def events(self, *, after: int = 0) -> list[dict[str, Any]]:
        """All events of the service and its jobs, oldest first."""
        found: list[dict[str, Any]] = []
        while page := self.get("/v1/events", after=after)["items"]:
            found += page
            after = page[-1]["id"]
        return found

    def explain(self, job_id: str) -> str:
        """What a person would want to see of a job that does not end."""
        job = self.job(job_id)
        events = [f"{event['kind']}: {event['message']}" for event in self.events()[-8:]]
        hosts = [f"{host.name} {host.state} {host.error or ''}" for host in self.store.reads.hosts(limit=4)]
        samples = job["progress"]["samples"]
        return f"phase {job['phase']}, {samples} samples, error {job['error']}, hosts {hosts}, events {events}"

    def verify(self, job_id: str) -> VerifyReport:
        """Checks the job from its files alone."""
        return verify_directory(self.data_dir / "jobs" / job_id)
