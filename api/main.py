"""The composition root: settings -> store -> cluster -> controller -> application, and the life of the process.

Owns start, signals and stop of the embedded service. The HTTP server answers before the cluster is up; the Ray head
lives apart from this process, so that a killed controller finds its engines again. Must stay the only module of `api`
outside `api/local` that imports `workers`.
"""

import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing import active_children
from types import FrameType

import uvicorn

from api.app import create_app
from api.cli_output import exit_code_of
from api.local.model_files import inspect_adapter, inspect_endpoint, inspect_model, render_prompt
from service.cluster import Cluster
from service.config import Settings
from service.controller import Controller
from service.endpoints import read_keys
from service.errors import AlreadyRunning, IsoflopError, Unreachable
from service.lock import DirectoryLock
from service.planner import Options
from service.status import ControllerStatus
from service.store import Store
from service.store.fence import DatabaseLock
from workers.ray_head import find_head, recorded_head, start_head

log = logging.getLogger(__name__)

LOOP_S = 30.0
"""Longest wait for the loop to end its tick."""
CONNECT_S = 5.0
"""... and for one that is still connecting to Ray: the head is ended under it."""
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
        self._keys = read_keys(settings.endpoints, os.environ)
        self._use_ray = use_ray
        self._num_cpus = num_cpus or os.cpu_count() or 1
        self._lock = DirectoryLock(settings.data_dir)
        self._store = Store.open(settings.url)
        try:
            self._database_lock = DatabaseLock(self._store.engine)
        except AlreadyRunning:
            self._store.close()
            self._lock.release()
            raise
        self._controller: Controller | None = None
        self._cluster: Cluster | None = None
        self._ray_dir = settings.data_dir.absolute() / "ray"
        self._started_at = datetime.now(UTC)
        self._stop = threading.Event()
        self._failed = threading.Event()
        self._loop = threading.Thread(target=self._run_loop, name="controller", daemon=True)
        app = create_app(
            store=self._store,
            settings=settings,
            wake=self._wake,
            controller_status=self._status,
            inspect_model=functools.partial(inspect_model, traces=settings.data_dir.absolute() / "traces"),
            inspect_adapter=functools.partial(inspect_adapter, merged=settings.data_dir.absolute() / "merged"),
            inspect_endpoint=functools.partial(inspect_endpoint, traces=settings.data_dir.absolute() / "traces"),
            render_prompt=render_prompt,
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
            AlreadyRunning: the port is taken.
        """
        self._http.start()
        while not self._server.started:
            if not self._http.is_alive():
                self._let_go()
                raise AlreadyRunning(
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

    def num_attempts(self) -> int:
        """Attempts that hosts held as of the last tick."""
        return 0 if self._controller is None else self._controller.num_attempts()

    def stop(self, *, ends_engines: bool = True, is_hurried: Callable[[], bool] = lambda: False) -> bool:
        """Ends loop, server and cluster; what was not handed back is drawn again by the next start.

        Args:
            ends_engines: end the Ray head too; otherwise engines go on within their credit until the next start.
            is_hurried: looked at all the time; once true, nothing is waited for any more.

        Returns:
            Whether the loop has ended. If not, it waits for something in Ray, and so would the interpreter's end.
        """
        self._stop.set()
        self._wake()
        has_ended = _wait(lambda: not self._loop.is_alive(), CONNECT_S if self._cluster is None else LOOP_S, is_hurried)
        self._server.should_exit = True
        _wait(lambda: not self._http.is_alive(), 10.0, is_hurried)
        (self.settings.data_dir / "url").unlink(missing_ok=True)
        if has_ended and self._cluster is not None and not is_hurried():
            self._cluster.close()
        # not what the loop found or started: it may be on its way there
        head = recorded_head(self._ray_dir) if self._use_ray and ends_engines else None
        if head is not None:
            print("stopping Ray", flush=True)
            head.stop(20.0 if self._cluster is not None else 1.0, is_hurried=is_hurried)
        if has_ended:
            self._let_go()
        return has_ended

    def _let_go(self) -> None:
        self._database_lock.release()
        self._store.close()
        self._lock.release()

    # -- the loop's thread

    def _run_loop(self) -> None:
        try:
            self._cluster = self._connect()
            options = Options(
                data_dir=str(self.settings.data_dir.absolute()), places_per_node=self.settings.engine_places
            )
            self._controller = Controller(store=self._store, cluster=self._cluster, options=options)
            self._controller.run(self._stop)
        except Unreachable:
            if not self._stop.is_set():
                raise  # otherwise it is our own doing
        finally:
            if not self._stop.is_set():
                self._failed.set()

    def _connect(self) -> Cluster:
        if not self._use_ray:
            from workers.local_cluster import LocalCluster

            return LocalCluster(keys=self._keys)
        from workers.ray_cluster import RayCluster  # ray takes a second to import; HTTP answers meanwhile

        is_stopping = self._stop.is_set
        head = find_head(self._ray_dir, should_stop=is_stopping)
        if is_stopping():
            raise Unreachable("told to stop before Ray was started")
        if head is None:
            head = start_head(self._ray_dir, num_cpus=self._num_cpus, should_stop=is_stopping)
        return RayCluster(
            address=head.address,
            token_path=head.token_path,
            silence_s=self.settings.host_silence_s,
            keys=self._keys,
        )

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
        return exit_code_of(error)
    print(f"isoflop  {service.url}  data in {settings.data_dir}  (Ctrl-C stops)", flush=True)
    while not asked.wait(0.2):
        _listen(note)
        if service.has_failed:
            print("isoflop up: the control loop ended by itself; see the log above", file=sys.stderr)
            service.stop(ends_engines=False)
            return 1

    def is_hurried() -> bool:
        _listen(note)
        return len(signals) > 1

    _hand_back(service, is_hurried)
    has_ended = service.stop(is_hurried=is_hurried)
    code = 130 if is_hurried() else 0
    if not has_ended or is_hurried():
        for child in active_children():
            child.kill()
        sys.stdout.flush()
        os._exit(code)  # the interpreter would wait for threads inside Ray
    return code


def _hand_back(service: Service, is_hurried: Callable[[], bool]) -> None:
    """Waits until no host holds work, and says so whenever the number of attempts changes."""
    service.drain()
    told = 0
    deadline = time.monotonic() + DRAIN_S
    while not service.is_quiet() and time.monotonic() < deadline and not is_hurried():
        if (number := service.num_attempts()) and number != told:
            told = number
            what = "1 attempt to write what it has" if number == 1 else f"{number} attempts to write what they have"
            print(f"waiting for {what}; press Ctrl-C again to stop at once", flush=True)
        time.sleep(0.1)


def _wait(is_over: Callable[[], bool], timeout_s: float, is_hurried: Callable[[], bool]) -> bool:
    """Whether it was over in time."""
    deadline = time.monotonic() + timeout_s
    while not (over := is_over()) and time.monotonic() < deadline and not is_hurried():
        time.sleep(0.05)
    return over
