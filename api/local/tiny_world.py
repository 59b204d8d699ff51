"""Where the tiny world lies in this checkout, and its exact checker as a judge for reports.

The checker knows every problem's formula, which no user has, so it is for reporting only: jobs are never given it.
"""

import json
import sys
from functools import cache
from pathlib import Path

from service.sample_columns import Judge

EXAMPLE_DIR = Path(__file__).parents[2] / "examples" / "tiny-world"


def model_dir(name: str) -> Path:
    """Directory of a shipped model, e.g. "gsm-mini-small"."""
    return EXAMPLE_DIR / "models" / name


def problem_file(split: str) -> Path:
    """A problem file: train, validation, test or transfer."""
    return EXAMPLE_DIR / "problems" / f"{split}.jsonl"


def exact_judge(split: str) -> Judge:
    """Judges reasoning by the problem's own formula. Row i of the file is problem index i."""
    if str(EXAMPLE_DIR) not in sys.path:
        sys.path.append(str(EXAMPLE_DIR))  # the example is a plain folder, not an installed package
    from gsm_mini.checker import check, problem_from_row

    rows = [json.loads(line) for line in problem_file(split).read_text().splitlines() if line.strip()]
    problem_of = cache(lambda index: problem_from_row(rows[index]))

    def judge(problem: int, completion: str) -> bool:
        return check(problem_of(problem), completion).reason == "ok"

    return judge
