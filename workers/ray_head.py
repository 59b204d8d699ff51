"""A Ray head of one's own on this machine, apart from the process that started it.

Owns the head's process, its directory, ports and token. Invariants: it listens on the loopback interface alone and
asks for a token; it outlives whoever started it, with every actor, and `find_head` finds it again; `stop` leaves no
process of it, even of a head that is half started. Several heads on one machine share nothing. Starts Ray's command
line; must not import ray.
"""

import contextlib
import hashlib
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from service.errors import InvalidInput, Unreachable
from workers.hosts import Process

# Ray replaces 127.0.0.1 by the machine's outer address; the rest of 127.0.0.0/8 is as local and is left alone
LOOPBACK = "127.0.0.2"
# "/session_2026-01-31_23-59-59_123456_4194304/sockets/plasma_store" of the 107 bytes a socket's path may have
_LONGEST_DIR = 107 - 65
_STARTED = "Ray runtime started"
_ATTEMPTS = 3
_KILL_S = 5.0
_HALF_STARTED_S = 1.0  # a head without actors has nothing to finish
_POLL_S = 0.1
_STATE_FILE = "head.json"
_LOG_FILE = "head.log"


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class RayHead:
    """A running head.

    Args:
        address: what `RayCluster` connects to.
        token_path: file with the secret that a connection needs.
        temp_dir: where Ray keeps sessions, sockets and logs.
    """

    address: str
    token_path: Path
    temp_dir: Path
    process: Process

    def is_alive(self) -> bool:
        """Whether the head's process runs."""
        return self.process.is_alive()

    def stop(self, timeout_s: float = 20.0, *, is_hurried: Callable[[], bool] = _never) -> None:
        """Ends the cluster: every actor, task and Ray process. Returns when they are gone.

        Args:
            timeout_s: how long processes may take to end by themselves before they are killed [s].
            is_hurried: looked at all the time; once true, they are killed at once.

        Raises:
            Unreachable: processes are left five seconds after SIGKILL.
        """
        members = _members(self.process)
        if self.is_alive():
            os.kill(self.process.pid, signal.SIGTERM)
        if not _wait_gone(members, timeout_s, is_hurried):
            deadline = time.monotonic() + _KILL_S
            while left := _kill_all(self.process, members):
                if time.monotonic() > deadline:
                    raise Unreachable(f"Ray head {self.address}: processes {left} do not end")
                time.sleep(_POLL_S)
        # one that was started while the others were counted
        _kill_all(self.process, [])
        _reap(self.process)
        (self.temp_dir / _STATE_FILE).unlink(missing_ok=True)


def start_head(
    temp_dir: str | Path,
    *,
    num_cpus: int,
    num_gpus: int | None = None,
    object_store_bytes: int = 200_000_000,
    timeout_s: float = 120.0,
    should_stop: Callable[[], bool] = _never,
) -> RayHead:
    """Starts a head and waits until it takes connections.

    Args:
        temp_dir: this head's alone; too long a path is replaced by a short one under the system's.
        num_cpus: logical CPUs of the cluster, which need not be the machine's.
        num_gpus: logical GPUs; None lets Ray look.
        should_stop: looked at all the time; once true, the half-started head is ended and `Unreachable` raised.

    Raises:
        InvalidInput: no directory short enough, or one that somebody else owns.
        Unreachable: Ray did not come up; the message ends with its last words.
    """
    directory = _own_directory(Path(temp_dir))
    token_path = directory / "token"
    _write_secret(token_path)
    last_words = ""
    for _ in range(_ATTEMPTS):  # a port that was free may be taken a moment later
        port, client_port = _free_ports(2)
        command = _command(directory, port, client_port, num_cpus, num_gpus, object_store_bytes)
        log_path = directory / _LOG_FILE
        process = _spawn(command, _environment(token_path), log_path)
        head = RayHead(address=f"{LOOPBACK}:{port}", token_path=token_path, temp_dir=directory, process=process)
        _remember(head)
        if _has_started(head, timeout_s, should_stop):
            return head
        is_slow = head.is_alive()
        head.stop(_HALF_STARTED_S)
        if should_stop():
            raise Unreachable(f"Ray head {head.address}: told to stop while it started")
        last_words = log_path.read_text(errors="replace")[-2000:]
        if is_slow:
            break
    raise Unreachable(f"Ray did not start within {timeout_s:.0f} s; it last said: {last_words}")


def find_head(
    temp_dir: str | Path, *, timeout_s: float = 120.0, should_stop: Callable[[], bool] = _never
) -> RayHead | None:
    """The head that an earlier process started in this directory, if it still runs; one half started is waited for."""
    head = recorded_head(temp_dir)
    return head if head is not None and _has_started(head, timeout_s, should_stop) else None


def recorded_head(temp_dir: str | Path) -> RayHead | None:
    """The head of this directory if its process lives, however far it has come."""
    directory = _short(Path(temp_dir))
    try:
        state = json.loads((directory / _STATE_FILE).read_text())
    except FileNotFoundError:
        return None
    head = RayHead(
        address=state["address"],
        token_path=directory / "token",
        temp_dir=directory,
        process=Process(pid=state["pid"], started_at=state["started_at"]),
    )
    return head if head.is_alive() else None


def _has_started(head: RayHead, timeout_s: float, should_stop: Callable[[], bool]) -> bool:
    """Waits until the head takes connections; False if it ended, time did, or nobody wants it any more."""
    deadline = time.monotonic() + timeout_s
    while head.is_alive() and time.monotonic() < deadline and not should_stop():
        if _STARTED in (head.temp_dir / _LOG_FILE).read_text(errors="replace"):
            return True
        time.sleep(_POLL_S)
    return False


def _spawn(command: list[str], environment: dict[str, str], log_path: Path) -> Process:
    """Starts a process in a session of its own, so that neither Ctrl-C nor a closed terminal reaches it."""
    pid = os.posix_spawn(
        command[0],
        command,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log_path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    return Process(pid=pid, started_at=psutil.Process(pid).create_time())


def _command(
    directory: Path, port: int, client_port: int, num_cpus: int, num_gpus: int | None, object_store_bytes: int
) -> list[str]:
    options = {
        "port": port,
        "ray-client-server-port": client_port,
        "node-ip-address": LOOPBACK,
        "temp-dir": directory,
        "num-cpus": num_cpus,
        "object-store-memory": object_store_bytes,
        # 0: the kernel picks each worker's port, so that heads cannot collide
        "min-worker-port": 0,
        "max-worker-port": 0,
        "include-dashboard": "false",
        "include-log-monitor": "false",
        "log-style": "record",
    }
    if num_gpus is not None:
        options["num-gpus"] = num_gpus
    settings = [f"--{name}={value}" for name, value in options.items()]
    return [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
        *settings,
    ]


def _environment(token_path: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return inherited | {
        # explicit: Ray decides by itself when a token lies in the home directory
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_USAGE_STATS_ENABLED": "0",
        # children of a killed worker (an engine's) end with it
        "RAY_process_group_cleanup_enabled": "1",
        # the controller has drained the hosts before it ends the head
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        # A process that scores takes over a second to import what it needs and 0.05 s to score a part. Ray ends idle
        # processes after one second where actors alone are more than cores, so nearly every part paid for the imports.
        "RAY_idle_worker_killing_time_threshold_ms": "300000",
    }


def _own_directory(wanted: Path) -> Path:
    directory = _short(wanted)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if directory.is_symlink() or directory.stat().st_uid != os.getuid():
        raise InvalidInput(f"{directory}: belongs to user {directory.stat().st_uid}, not {os.getuid()}; remove it")
    return directory


def _short(wanted: Path) -> Path:
    """`wanted`, or a short directory that stands for it."""
    absolute = wanted.absolute()
    if len(os.fsencode(absolute)) <= _LONGEST_DIR:
        return absolute
    digest = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"isoflop-{os.getuid()}-{digest}"
    if len(os.fsencode(short)) > _LONGEST_DIR:
        raise InvalidInput(
            f"{absolute}: Ray's sockets need a directory of at most {_LONGEST_DIR} bytes, and {short} is longer too; "
            "set TMPDIR to a shorter one"
        )
    return short


def _write_secret(path: Path) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(secrets.token_hex(32))


def _remember(head: RayHead) -> None:
    state = {"address": head.address, "pid": head.process.pid, "started_at": head.process.started_at}
    temporary = head.temp_dir / f".{_STATE_FILE}.tmp"
    temporary.write_text(json.dumps(state))
    temporary.replace(head.temp_dir / _STATE_FILE)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]


def _members(head: Process) -> list[Process]:
    """The head's process and everything of it, as it is now: its descendants, and what is in its session.

    The session outlives the head's process, and with it the only tie to children that it left behind.
    """
    if not head.is_alive() and psutil.pid_exists(head.pid) and not _is_zombie(head.pid):
        return [head]  # its id is another process's by now, which the system does while nothing is left of its session
    below: set[int] = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        below = {child.pid for child in psutil.Process(head.pid).children(recursive=True)}
    in_session = {pid for pid in psutil.pids() if _session(pid) == head.pid}
    return [head, *_processes((below | in_session) - {head.pid})]


def _processes(pids: Iterable[int]) -> list[Process]:
    found: list[Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(Process(pid=pid, started_at=psutil.Process(pid).create_time()))
    return found


def _is_zombie(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return False


def _session(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return os.getsid(pid)
    return None


def _kill_all(head: Process, members: list[Process]) -> list[int]:
    """SIGKILL to every member and whatever has joined since; the ids of those that lived."""
    living = [member for member in {*members, *_members(head)} if member.is_alive()]
    for member in living:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member.pid, signal.SIGKILL)
    return [member.pid for member in living]


def _wait_gone(members: list[Process], timeout_s: float, is_hurried: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + timeout_s
    while any(member.is_alive() for member in members):
        if time.monotonic() > deadline or is_hurried():
            return False
        time.sleep(_POLL_S)
    return True


def _reap(process: Process) -> None:
    """Takes the exit status if the process is a child of ours that ended."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
