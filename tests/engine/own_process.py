"""Runs a driver of the engine in a process of its own: engines read their environment when they are imported."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from service.models import ModelSpec
from workers.engine import engine_environment

_ROOT = Path(__file__).parents[2]


def drive(script: str, model: ModelSpec, *arguments: object) -> dict[str, Any]:
    """What a script beside this file prints on its last line.

    Args:
        model: decides the environment.
    """
    environment = {**os.environ, **engine_environment(model, 1), "PYTHONPATH": str(_ROOT)}
    command = [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.splitlines()[-1])
