"""How far a judge can be trusted: held against the step check, and the false positive rate corrected for its errors.

Invariant: rates are of right answers alone, the population in which false positives are counted. The step check sees
arithmetic and nothing else, so agreement with it is no proof. Needs numpy.
"""

from dataclasses import dataclass

import numpy as np

from service.selection.operators import NO, UNKNOWN, YES, Candidates
from service.stats import Estimate, NotEstimable, corrected_prevalence, wilson_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeCounts:
    """Samples by what a judge and the step check said of them.

    Args:
        yes: judged right.
        no: judged wrong.
        undecided: asked, and as many votes for as against, or none that could be read.
        right_yes: of `yes`, those with a right answer; the next five are of these as well.
        right_no: of `no`.
        valid_yes: with steps that hold, judged right.
        valid_no: with steps that hold, judged wrong.
        invalid_yes: with a false step, judged right.
        invalid_no: with a false step, judged wrong.
    """

    yes: int
    no: int
    undecided: int
    right_yes: int
    right_no: int
    valid_yes: int
    valid_no: int
    invalid_yes: int
    invalid_no: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeQuality:
    """What the counts say; intervals are 95 %.

    Args:
        sensitivity: of right answers with a false step, the share judged wrong.
        specificity: of right answers whose steps hold, the share judged right.
        apparent: false positive rate as judged, the share of right answers judged wrong.
        corrected: the same, corrected for both kinds of errors of the judge (Rogan and Gladen 1978).
    """

    sensitivity: Estimate | NotEstimable
    specificity: Estimate | NotEstimable
    apparent: Estimate | NotEstimable
    corrected: Estimate | NotEstimable

    def in_words(self) -> tuple[tuple[str, Estimate | NotEstimable], ...]:
        """What each rate is, for people, and the rate."""
        return (
            ("false positives as judged, of right answers", self.apparent),
            ("false positives corrected for the judge's errors", self.corrected),
            ("judged wrong, of right answers with a false step", self.sensitivity),
            ("judged right, of right answers whose steps hold", self.specificity),
        )


def count_judged(candidates: Candidates, is_asked: np.ndarray) -> JudgeCounts:
    """Counts over the samples that a judge was asked about.

    Args:
        is_asked: bool [N].
    """
    judged, steps = candidates.judged, candidates.steps
    is_right = is_asked & (candidates.correct == YES)

    def count(rows: np.ndarray) -> int:
        return int(np.count_nonzero(rows))

    return JudgeCounts(
        yes=count(is_asked & (judged == YES)),
        no=count(is_asked & (judged == NO)),
        undecided=count(is_asked & (judged == UNKNOWN)),
        right_yes=count(is_right & (judged == YES)),
        right_no=count(is_right & (judged == NO)),
        valid_yes=count(is_right & (judged == YES) & (steps == YES)),
        valid_no=count(is_right & (judged == NO) & (steps == YES)),
        invalid_yes=count(is_right & (judged == YES) & (steps == NO)),
        invalid_no=count(is_right & (judged == NO) & (steps == NO)),
    )


def judge_quality(counts: JudgeCounts) -> JudgeQuality:
    """Rates of these counts, each with its interval and its n."""
    return JudgeQuality(
        sensitivity=_share(counts.invalid_no, counts.invalid_yes, "no right answer with a false step was judged"),
        specificity=_share(counts.valid_yes, counts.valid_no, "no right answer with steps that hold was judged"),
        apparent=_share(counts.right_no, counts.right_yes, "no right answer was judged"),
        corrected=corrected_prevalence(
            positive=(counts.right_no, counts.right_no + counts.right_yes),
            sensitivity=(counts.invalid_no, counts.invalid_no + counts.invalid_yes),
            specificity=(counts.valid_yes, counts.valid_yes + counts.valid_no),
        ),
    )


def _share(hits: int, misses: int, reason: str) -> Estimate | NotEstimable:
    return wilson_interval(hits, hits + misses) if hits + misses else NotEstimable(reason)
