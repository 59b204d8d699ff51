"""Write the problem sets of gsm-mini to `problems/`: train, validation, test and transfer.

No question occurs twice, neither in two sets nor in the pretraining corpus. Transfer asks the same kinds of questions
from another distribution: every story mentions a number that does not matter, and a fifth need six steps, more than any
problem of the corpus.

    python examples/tiny-world/build_problems.py [--output FOLDER]
"""

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

from gsm_mini.corpus import corpus_questions
from gsm_mini.noise import clean_solution
from gsm_mini.world import Problem, ProblemRow, generate_distinct, row_from_problem

PROBLEMS = Path(__file__).parent / "problems"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSet:
    """How one set is drawn: equally many problems of each number of steps, in turn."""

    name: str
    num_problems: int
    step_counts: tuple[int, ...] = (1, 2, 3, 4, 5)
    has_distractor: bool | None = None


PROBLEM_SETS = (
    ProblemSet(name="test", num_problems=250),
    ProblemSet(name="transfer", num_problems=200, step_counts=(2, 3, 4, 5, 6), has_distractor=True),
    ProblemSet(name="validation", num_problems=200),
    ProblemSet(name="train", num_problems=2_000),
)


def build_problem_sets() -> dict[str, list[ProblemRow]]:
    """The rows of every set by name; the same rows on every call."""
    taken = corpus_questions()
    rows_by_set: dict[str, list[ProblemRow]] = {}
    for problem_set in PROBLEM_SETS:
        rng = random.Random(f"gsm-mini {problem_set.name}")
        levels = [problem_set.step_counts[i % len(problem_set.step_counts)] for i in range(problem_set.num_problems)]
        problems = generate_distinct(rng, levels, forbidden=taken, has_distractor=problem_set.has_distractor)
        taken.update(problem.question for problem in problems)
        rows_by_set[problem_set.name] = [
            _row(f"{problem_set.name}-{position:04d}", problem, rng) for position, problem in enumerate(problems)
        ]
    return rows_by_set


def _row(problem_id: str, problem: Problem, rng: random.Random) -> ProblemRow:
    return {"id": problem_id, **row_from_problem(problem), "solution": clean_solution(problem, rng)}


def main() -> None:
    """Write one JSONL file per set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=PROBLEMS, help="folder for the problem files")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    for name, rows in build_problem_sets().items():
        path = output / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
        print(f"{path}: {len(rows)} problems, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
