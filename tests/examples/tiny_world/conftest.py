"""Puts the example's folder on the path, as running one of its scripts does, and shares its files."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "tiny-world"
sys.path.insert(0, str(EXAMPLE))


@pytest.fixture(scope="session")
def example() -> Path:
    return EXAMPLE


@pytest.fixture(scope="session")
def shipped_rows(example: Path) -> dict[str, list[Any]]:
    """Rows of every committed problem file, by the name of the set."""
    return {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in (example / "problems").glob("*.jsonl")
    }
