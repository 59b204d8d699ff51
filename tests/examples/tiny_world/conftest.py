"""Puts the example's folder on the path, as running one of its scripts does, and shares its files."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gsm_mini.world import Problem

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


@pytest.fixture(scope="session")
def tom() -> "Problem":
    """46 + 6 x 3 = 64."""
    from gsm_mini.checker import problem_from_row

    structure: Any = {
        "values": [46, 3, 6],
        "terms": [["+", [0]], ["+", [1, 2]]],
        "closing": {"kind": "none", "operand": None},
    }
    question = "Tom has 46 books. He gets 6 books on each of 3 days. How many books does he have now?"
    return problem_from_row({"question": question, "answer": "64", "level": 2, "structure": structure})
