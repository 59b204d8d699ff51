"""A measurement in a process of its own: its memory, imports and environment are nobody else's.

The process prints what it found as JSON on its last line.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.errors import IsoflopError


def measure_apart(
    module: str,
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    niceness: int | None = None,
    limit_s: float | None = None,
) -> dict[str, Any]:
    """Runs `python -m module arguments`, and returns what it printed.

    Args:
        environment: variables beside those of this process.
        niceness: to run at; this process's own without.
        limit_s: seconds after which it is ended.

    Raises:
        IsoflopError: it failed; the message ends with what it wrote.
        subprocess.TimeoutExpired: it took longer than `limit_s`.
    """
    slower = [] if niceness is None else ["nice", "-n", str(niceness - os.nice(0))]
    command = [*slower, sys.executable, "-m", module, *map(str, arguments)]
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=limit_s, check=False)
    if done.returncode != 0:
        raise IsoflopError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_mib() -> float:
    """Highest resident memory of this process; `getrusage` would count its parent's as well."""
    found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, "Linux writes it"
    return int(found[1]) / 1024
