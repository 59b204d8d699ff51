"""`isoflop bench latex`: answers in LaTeX a second, of the scorer `math_latex` and of math-verify alone, on one core.

Both get the same mix in turns, in one process that may use one core; the scorer's judge, a process of its own, shares
that core and its processor time counts. Invariant: every verdict is checked against the one the answer was made for,
and every answer on which the two differ is listed.
"""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
from math_verify import parse, verify

from api.local.bench_latex_mix import Case, make_mix
from service.scoring import Verdict
from service.scoring.latex import MathLatex, Open
from service.scoring.symbolic import Pair
from workers.math_pool import MathPool

_BATCH_ROWS = 4096
"""As a task that scores a shard reads it."""
_WARM_UP_ROWS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """An answer that the two judge differently; `is_right` is what it was made to be."""

    reference: str
    answer: str
    scorer: str
    math_verify: bool
    is_right: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LatexResult:
    """What was measured.

    Attributes:
        rows: completions in each repeat's mix; every repeat has a mix of its own, so that none profits from another.
        mean_chars: mean length of a completion.
        scorer_rows_per_second: of each repeat, by processor time of the scorer and its judge together.
        math_verify_rows_per_second: of each repeat, by processor time.
        ratios: the first over the second, repeat by repeat.
        judged_share: share of completions that went to the judge, before equal pairs are asked once.
        scorer_wrong: verdicts, over all repeats, that are not what the answer was made for.
        math_verify_wrong: the same of math-verify.
        disagreements: each pair of reference and answer once.
    """

    rows: int
    mean_chars: float
    scorer_rows_per_second: tuple[float, ...]
    math_verify_rows_per_second: tuple[float, ...]
    ratios: tuple[float, ...]
    judged_share: float
    scorer_wrong: int
    math_verify_wrong: int
    disagreements: tuple[Disagreement, ...]


@dataclass(slots=True)
class _Totals:
    chars: int = 0
    judged: int = 0
    scorer_wrong: int = 0
    math_verify_wrong: int = 0
    disagreements: dict[tuple[str, str], Disagreement] = field(default_factory=dict)

    def add(self, cases: Sequence[Case], verdicts: Sequence[Verdict | None], plain: Sequence[bool]) -> None:
        """Takes the verdicts of one repeat."""
        self.chars += sum(len(case.completion) for case in cases)
        for case, verdict, is_same in zip(cases, verdicts, plain, strict=True):
            wanted = Verdict.CORRECT if case.is_right else Verdict.INCORRECT
            self.scorer_wrong += verdict is not wanted
            self.math_verify_wrong += is_same is not case.is_right
            if (verdict is Verdict.CORRECT) is not is_same:
                self.disagreements[case.reference, case.answer] = Disagreement(
                    reference=case.reference,
                    answer=case.answer,
                    scorer=str(verdict),
                    math_verify=is_same,
                    is_right=case.is_right,
                )


def bench_latex(rows: int, repeats: int, *, is_bare: bool = False) -> LatexResult:
    """Grade `rows` completions `repeats` times with each.

    Args:
        is_bare: completions are the boxed answer alone, which spares math-verify its search for it.

    Raises:
        ValueError: if `rows` or `repeats` is below 1.
    """
    if rows < 1 or repeats < 1:
        raise ValueError(f"rows and repeats must be at least 1, got {rows} and {repeats}")
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    totals = _Totals()
    fast: list[float] = []
    slow: list[float] = []
    with _one_core(), MathPool() as pool:
        # parsers build their tables on first use, and both go on with what they have built
        warm_up = make_mix(_WARM_UP_ROWS, seed=-1)
        _math_verify(warm_up, [case.completion for case in warm_up])
        pool.judge([Pair(case.reference, case.answer) for case in warm_up])
        for repeat in range(repeats):
            cases = make_mix(rows, seed=repeat)
            texts = [f"$\\boxed{{{case.answer}}}$" if is_bare else case.completion for case in cases]
            scorer_s, plain_s = _measure(pool, cases, texts, totals, is_scorer_first=repeat % 2 == 0)
            fast.append(rows / scorer_s)
            slow.append(rows / plain_s)
    return LatexResult(
        rows=rows,
        mean_chars=totals.chars / (rows * repeats),
        scorer_rows_per_second=tuple(fast),
        math_verify_rows_per_second=tuple(slow),
        ratios=tuple(a / b for a, b in zip(fast, slow, strict=True)),
        judged_share=totals.judged / (rows * repeats),
        scorer_wrong=totals.scorer_wrong,
        math_verify_wrong=totals.math_verify_wrong,
        disagreements=tuple(totals.disagreements.values()),
    )


def _measure(
    pool: MathPool, cases: Sequence[Case], texts: Sequence[str], totals: _Totals, *, is_scorer_first: bool
) -> tuple[float, float]:
    """Processor time of the scorer and of math-verify [s]; their verdicts go to `totals`."""
    verdicts: list[Verdict | None] = []
    plain: list[bool] = []
    seconds: dict[bool, float] = {}
    for is_scorer in (is_scorer_first, not is_scorer_first):
        started = _processor_s(pool)
        if is_scorer:
            verdicts = _scorer(pool, cases, texts, totals)
        else:
            plain = _math_verify(cases, texts)
        seconds[is_scorer] = _processor_s(pool) - started
    totals.add(cases, verdicts, plain)
    return seconds[True], seconds[False]


@contextmanager
def _one_core() -> Iterator[None]:
    """This process, and those it starts, on the last core it may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _processor_s(pool: MathPool) -> float:
    """Processor time of this process and the pool's [s]."""
    children = [psutil.Process(pid).cpu_times() for pid in pool.pids]
    return time.process_time() + sum(times.user + times.system for times in children)


def _scorer(pool: MathPool, cases: Sequence[Case], texts: Sequence[str], totals: _Totals) -> list[Verdict | None]:
    scorer = MathLatex(judge=pool)
    verdicts: list[Verdict | None] = []
    for start in range(0, len(cases), _BATCH_ROWS):
        batch = zip(cases[start : start + _BATCH_ROWS], texts[start : start + _BATCH_ROWS], strict=True)
        begun = [scorer.begin(completion=text, reference=case.reference, finish_reason="stop") for case, text in batch]
        pairs = [row.pair for row in begun if isinstance(row, Open)]
        totals.judged += len(pairs)
        judgements = iter(pool.judge(pairs))
        graded = [scorer.settle(row, next(judgements)) if isinstance(row, Open) else row for row in begun]
        verdicts += [row.verdict for row in graded]
    return verdicts


def _math_verify(cases: Sequence[Case], texts: Sequence[str]) -> list[bool]:
    """As its documentation has it; a reference is parsed once for its problem's samples."""
    verdicts: list[bool] = []
    reference, gold = "", []
    for case, text in zip(cases, texts, strict=True):
        if case.reference != reference:
            reference, gold = case.reference, parse(f"\\boxed{{{case.reference}}}")
        verdicts.append(verify(gold, parse(text)))
    return verdicts
