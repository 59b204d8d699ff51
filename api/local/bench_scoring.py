"""`isoflop bench` for scoring: how many solutions a second one core grades.

Invariant: texts are made from a seed, about as long and as full of calculations as GSM8K's solutions, and every verdict
is checked, so a scorer that is fast because it is wrong fails here. Must not import workers.
"""

import random
import time
from dataclasses import dataclass
from statistics import median

from service.scoring import Verdict, scorer_named

_PEOPLE = ("Maya", "Omar", "Lena", "Ivo", "Ruth", "Sami")
_THINGS = ("pencils", "oranges", "tickets", "stamps", "loaves", "marbles")
_SENTENCES = (
    "{name} starts with {a} and then gets {b} more, so that makes {a}+{b} = <<{a}+{b}={c}>>{c} {thing} in a week.",
    "After giving some of them to a friend, {name} has {a}-{b} = <<{a}-{b}={c}>>{c} {thing} to take home at night.",
    "Each box costs the same, so the {thing} for all the boxes cost {a}*{b} = $<<{a}*{b}={c}>>{c} before any discount.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """Measured speed of one scorer on one core.

    Attributes:
        scorer: its name.
        rows: solutions in the set.
        mean_chars: mean length of a solution.
        seconds: processor time of each repeat over the whole set; other processes only disturb it through caches.
        rows_per_second: of the median repeat.
        best_rows_per_second: of the fastest repeat, the one least disturbed by other processes.
        wrong_verdicts: solutions whose verdict was not the one they were made for; 0 unless the scorer is broken.
    """

    scorer: str
    rows: int
    mean_chars: float
    seconds: tuple[float, ...]
    rows_per_second: float
    best_rows_per_second: float
    wrong_verdicts: int


def bench_math_answer(rows: int, repeats: int, *, is_marked: bool = True) -> BenchResult:
    """Grade `rows` synthetic solutions `repeats` times with `math_answer`.

    A third have a wrong answer, and references are whole solutions, as in GSM8K; each reference serves four solutions.

    Args:
        is_marked: completions end in `#### 18`, which has a path of its own, or in a sentence with the answer in it.

    Raises:
        ValueError: if `rows` or `repeats` is below 1.
    """
    if rows < 1 or repeats < 1:
        raise ValueError(f"rows and repeats must be at least 1, got {rows} and {repeats}")
    cases = _cases(rows, is_marked=is_marked)
    scorer = scorer_named("math_answer")
    seconds: list[float] = []
    verdicts: list[Verdict | None] = []
    for _ in range(repeats):
        started = time.process_time()
        verdicts = [
            scorer.grade(
                completion=completion, reference=reference, finish_reason="stop", question="", structure=None
            ).verdict
            for completion, reference, _ in cases
        ]
        seconds.append(time.process_time() - started)
    return BenchResult(
        scorer=scorer.name,
        rows=rows,
        mean_chars=sum(len(completion) for completion, _, _ in cases) / rows,
        seconds=tuple(seconds),
        rows_per_second=rows / median(seconds),
        best_rows_per_second=rows / min(seconds),
        wrong_verdicts=sum(got is not wanted for got, (_, _, wanted) in zip(verdicts, cases, strict=True)),
    )


def _cases(rows: int, *, is_marked: bool) -> list[tuple[str, str, Verdict]]:
    """Completion, reference and the verdict it must get."""
    rng = random.Random(0)
    cases: list[tuple[str, str, Verdict]] = []
    reference, answer = "", 0
    for row in range(rows):
        if row % 4 == 0:
            answer = rng.choice((rng.randrange(2, 100), rng.randrange(100, 100_000)))
            reference = _solution(rng, answer)
        is_right = rng.random() < 2 / 3
        completion = _solution(rng, answer if is_right else answer + rng.randrange(1, 50), is_marked=is_marked)
        cases.append((completion, reference, Verdict.CORRECT if is_right else Verdict.INCORRECT))
    return cases


def _solution(rng: random.Random, answer: int, *, is_marked: bool = True) -> str:
    name, thing = rng.choice(_PEOPLE), rng.choice(_THINGS)
    lines: list[str] = []
    for _ in range(rng.choice((2, 3, 3, 4))):
        kind, a, b = rng.randrange(3), rng.randrange(20, 90), rng.randrange(2, 20)
        sentence = _SENTENCES[kind]
        lines.append(sentence.format(name=name, thing=thing, a=a, b=b, c=(a + b, a - b, a * b)[kind]))
    return "\n".join([*lines, f"#### {answer:,}" if is_marked else f"The answer is {answer:,}."])
