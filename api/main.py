"""The composition root: settings -> store -> cluster -> controller -> application, and the life of the process.

Owns start, signals and stop of the embedded service. The HTTP server answers before the cluster is up; the Ray head
lives apart from this process, so that a killed controller finds its engines again. Must stay the only module of `api`
outside `api/local` that imports `workers`.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from types import FrameType

import uvicorn

from api.app import create_app
from service.cluster import Cluster
from service.config import Settings
from service.controller import Controller
from service.errors import InvalidInput, IsoflopError
from service.flops import ForwardCost
from service.lock import DirectoryLock
from service.models import EngineOptions, ModelSpec
from service.planner import Options
from service.shards import file_sha256
from service.status import ControllerStatus
from service.store import Store
from workers.ray_head import RayHead, find_head, start_head

log = logging.getLogger(__name__)

CONNECT_S = 150.0
"""Longest wait for the loop to end: it may be starting a Ray head, which must not be left behind."""
DRAIN_S = 60.0
"""How long a leaving service waits for its engines to finish what they hold; longer samples are drawn again."""


class Service:
    """The embedded service: one process beside one Ray head.

    Args:
        use_ray: False runs hosts as threads of this process, for debugging.
        num_cpus: logical CPUs of the embedded cluster.
    """

    def __init__(self, settings: Settings, *, use_ray: bool = True, num_cpus: int | None = None) -> None:
        self.settings = settings
        self._use_ray = use_ray
        self._num_cpus = num_cpus or os.cpu_count() or 1
        self._lock = DirectoryLock(settings.data_dir)
        self._store = Store.open(settings.url)
        self._controller: Controller | None = None
        self._cluster: Cluster | None = None
        self._head: RayHead | None = None
        self._started_at = datetime.now(UTC)
        self._stop = threading.Event()
        self._failed = threading.Event()
        self._loop = threading.Thread(target=self._run_loop, name="controller", daemon=True)
        app = create_app(
            store=self._store,
            settings=settings,
            wake=self._wake,
            controller_status=self._status,
            inspect_model=self._inspect_model,
        )
        config = uvicorn.Config(
            app, host=settings.host, port=settings.port, log_level="warning", timeout_graceful_shutdown=3
        )
        self._server = uvicorn.Server(config)
        self._http = threading.Thread(target=self._server.run, name="http", daemon=True)

    # -- life

    def start(self) -> None:
        """Begins to answer HTTP, and brings the cluster up behind it.

        Raises:
            InvalidInput: the port is taken.
        """
        self._http.start()
        while not self._server.started:
            if not self._http.is_alive():
                self._store.close()
                self._lock.release()
                raise InvalidInput(
                    f"port {self.settings.port} on {self.settings.host} is in use or not allowed; "
                    "stop what listens there or pass another --port"
                )
            time.sleep(0.02)
        (self.settings.data_dir / "url").write_text(self.url)
        self._loop.start()

    @property
    def url(self) -> str:
        """Where the service answers; the port is the real one where 0 was asked for."""
        sockets = self._server.servers[0].sockets
        return f"http://{self.settings.host}:{sockets[0].getsockname()[1]}"

    @property
    def has_failed(self) -> bool:
        """Whether the control loop has ended by itself, which ends the process."""
        return self._failed.is_set()

    def drain(self) -> None:
        """Begins to hand work back; the loop goes on and HTTP still answers."""
        if self._controller is not None:
            self._controller.drain()

    def is_quiet(self) -> bool:
        """Whether no engine holds work any more."""
        return self._controller is None or self._controller.is_quiet()

    def stop(self, *, ends_engines: bool = True) -> None:
        """Ends loop, cluster and server, in this order; what was not handed back is drawn again by the next start.

        Args:
            ends_engines: end the Ray head too; otherwise engines go on within their credit until the next start.
        """
        self._stop.set()
        self._wake()
        if self._loop.is_alive():
            self._loop.join(timeout=CONNECT_S)
        self._server.should_exit = True
        self._http.join(timeout=10)
        if self._cluster is not None:
            self._cluster.close()
        if self._head is not None and ends_engines:
            self._head.stop()
        self._store.close()
        (self.settings.data_dir / "url").unlink(missing_ok=True)
        self._lock.release()

    # -- the loop's thread

    def _run_loop(self) -> None:
        try:
            self._cluster = self._connect()
            options = Options(data_dir=str(self.settings.data_dir.absolute()))
            self._controller = Controller(store=self._store, cluster=self._cluster, options=options)
            self._controller.run(self._stop)
        finally:
            if not self._stop.is_set():
                self._failed.set()

    def _connect(self) -> Cluster:
        if not self._use_ray:
            from workers.local_cluster import LocalCluster

            return LocalCluster()
        from workers.ray_cluster import RayCluster  # ray takes a second to import; HTTP answers meanwhile

        ray_dir = self.settings.data_dir.absolute() / "ray"
        self._head = find_head(ray_dir) or start_head(ray_dir, num_cpus=self._num_cpus)
        return RayCluster(address=self._head.address, token_path=self._head.token_path)

    # -- what the application is given

    def _wake(self) -> None:
        if self._controller is not None:
            self._controller.wake()

    def _status(self) -> ControllerStatus:
        if self._controller is not None:
            return self._controller.status()
        return ControllerStatus(
            last_tick_at=None,
            tick_age_s=(datetime.now(UTC) - self._started_at).total_seconds(),
            num_ticks=0,
            num_errors=0,
            cpu_s=0.0,
            is_draining=False,
            cluster="starting",
        )

    def _inspect_model(self, name: str, path: Path, engine: EngineOptions) -> ModelSpec:
        # in a process of its own: torch and transformers would stay in the service's memory for ever
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            traces = self.settings.data_dir.absolute() / "traces"
            return pool.submit(_inspect, name, path, engine, traces).result()


def _inspect(name: str, path: Path, engine: EngineOptions, traces: Path) -> ModelSpec:
    from workers.model_files import inspect_model  # imports transformers

    files = inspect_model(path)
    return ModelSpec(
        name=name,
        path=str(path),
        revision=files.revision,
        context_len=min(files.context_len, engine.max_model_len or files.context_len),
        cost=_traced(path / "config.json", traces),
        engine=engine,
    )


def _traced(config: Path, traces: Path) -> ForwardCost:
    """FLOP coefficients of a model, traced once per content of its config."""
    known = traces / f"{file_sha256(config)}.json"
    if known.exists():
        return ForwardCost.from_json(json.loads(known.read_text()))
    from workers.flop_trace import trace_forward_cost  # imports torch

    cost = trace_forward_cost(config)
    traces.mkdir(parents=True, exist_ok=True)
    temporary = known.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(cost.to_json()))
    temporary.replace(known)
    return cost


def _listen(note: Callable[[int, FrameType | None], None]) -> None:
    """Makes `note` the handler of both signals, again and again.

    When Ray connects, it puts a handler for crashes over the one for SIGTERM: a stack trace, and an alarm that aborts
    the process three seconds later, in the middle of handing work back.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, note)


def up(settings: Settings, *, use_ray: bool = True, num_cpus: int | None = None) -> int:
    """Runs the service until a signal; returns the exit code.

    The first SIGINT or SIGTERM hands work back and waits for the engines, the second leaves at once.
    """
    signals: list[int] = []
    asked = threading.Event()

    def note(number: int, _frame: FrameType | None) -> None:
        signal.alarm(0)  # see `_listen`
        signals.append(number)
        asked.set()

    _listen(note)
    try:
        service = Service(settings, use_ray=use_ray, num_cpus=num_cpus)
        service.start()
    except IsoflopError as error:
        print(f"isoflop up: {error}", file=sys.stderr)
        return 1
    print(f"isoflop  {service.url}  data in {settings.data_dir}  (Ctrl-C stops)", flush=True)
    while not asked.wait(0.2):
        _listen(note)
        if service.has_failed:
            print("isoflop up: the control loop ended by itself; see the log above", file=sys.stderr)
            service.stop(ends_engines=False)
            return 1
    print("finishing what the engines hold; once more to leave at once", flush=True)
    service.drain()
    deadline = time.monotonic() + DRAIN_S
    while time.monotonic() < deadline and len(signals) < 2 and not service.is_quiet():
        time.sleep(0.1)
    service.stop()
    return 130 if len(signals) > 1 else 0
