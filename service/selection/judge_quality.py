"""How far a judge can be trusted: held against the step check, and the false positive rate corrected for its errors.

Invariant: rates are of right answers alone, the population in which false positives are counted, and their intervals
are over problems. The step check sees arithmetic and nothing else, so agreement with it is no proof. Needs numpy.
"""

from dataclasses import dataclass

import numpy as np

from service.selection.operators import NO, UNKNOWN, YES, Bools, Candidates
from service.stats import Estimate, Floats, NotEstimable, bootstrap_ratio, corrected_prevalence

_RESAMPLES = 1000
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What judges said of the samples they were asked about; intervals are 95 %, over problems.

    Args:
        yes: samples judged right.
        no: judged wrong.
        undecided: as many votes for as against, or none that could be read.
        apparent: false positive rate as judged, the share of right answers judged wrong.
        corrected: the same, corrected for both kinds of errors of the judge (Rogan and Gladen 1978).
        sensitivity: of right answers with a false step, the share judged wrong.
        specificity: of right answers whose steps hold, the share judged right.
    """

    yes: int
    no: int
    undecided: int
    apparent: Estimate | NotEstimable
    corrected: Estimate | NotEstimable
    sensitivity: Estimate | NotEstimable
    specificity: Estimate | NotEstimable

    def in_words(self) -> tuple[tuple[str, Estimate | NotEstimable], ...]:
        """What each rate is, for people, and the rate."""
        return (
            ("false positives as judged, of right answers", self.apparent),
            ("false positives corrected for the judge's errors", self.corrected),
            ("judged wrong, of right answers with a false step", self.sensitivity),
            ("judged right, of right answers whose steps hold", self.specificity),
        )


def summarise_judged(candidates: Candidates, is_asked: Bools) -> Judged:
    """What judges said, and rates of it.

    Args:
        is_asked: bool [N], whether a judge was asked about each sample.
    """
    judged, steps = candidates.judged, candidates.steps
    is_right = is_asked & (candidates.correct == YES)

    def by_problem(rows: Bools) -> Floats:
        return np.bincount(candidates.problem[rows], minlength=len(candidates.problem_key)).astype(np.float64)

    yes, no = is_right & (judged == YES), is_right & (judged == NO)
    wrong = (by_problem(no), by_problem(no | yes))
    caught = (by_problem(no & (steps == NO)), by_problem((no | yes) & (steps == NO)))
    passed = (by_problem(yes & (steps == YES)), by_problem((no | yes) & (steps == YES)))
    return Judged(
        yes=int(np.count_nonzero(is_asked & (judged == YES))),
        no=int(np.count_nonzero(is_asked & (judged == NO))),
        undecided=int(np.count_nonzero(is_asked & (judged == UNKNOWN))),
        apparent=_share(wrong, "no right answer was judged"),
        corrected=corrected_prevalence(
            positive=wrong, sensitivity=caught, specificity=passed, resamples=_RESAMPLES, seed=_SEED
        ),
        sensitivity=_share(caught, "no right answer with a false step was judged"),
        specificity=_share(passed, "no right answer with steps that hold was judged"),
    )


def _share(counts: tuple[Floats, Floats], reason: str) -> Estimate | NotEstimable:
    if not counts[1].any():
        return NotEstimable(reason)
    return bootstrap_ratio(*counts, resamples=_RESAMPLES, seed=_SEED)
