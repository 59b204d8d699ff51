"""The registry of scorers: a name in a job document becomes a scorer here and nowhere else.

To add one: write a module with a frozen dataclass that fulfils `Scorer`, add it to SCORERS, and add its table of
judgements under tests/service/scoring. Must not import anything heavier than the standard library.
"""

from dataclasses import replace
from typing import Protocol

from service.errors import UnknownName
from service.reasoning import DEFAULT_TAGS, ReasoningTags
from service.scoring.answers import MathAnswer
from service.scoring.base import Graded, Scorer, Steps, Verdict
from service.scoring.latex import MathLatex
from service.scoring.steps import StepCheck
from service.scoring.symbolic import Judge
from service.scoring.yes_no import YesNo


class MakeScorer(Protocol):
    """What makes a scorer."""

    def __call__(self, *, tags: ReasoningTags) -> Scorer:
        """One that reads what follows the reasoning between `tags`."""
        ...


SCORERS: dict[str, MakeScorer] = {
    "math_answer": MathAnswer,
    "math_latex": MathLatex,
    "steps": StepCheck,
    "yes_no": YesNo,
}


def scorer_named(name: str, tags: ReasoningTags = DEFAULT_TAGS) -> Scorer:
    """A fresh scorer.

    Args:
        tags: between which the models think before they answer.

    Raises:
        UnknownName: if no scorer has this name.
    """
    if name not in SCORERS:
        raise UnknownName(kind="scorer", got=name, allowed=SCORERS)
    return SCORERS[name](tags=tags)


def with_judge(scorer: Scorer, judge: Judge) -> Scorer:
    """`scorer` with `judge` for what it cannot decide itself; a scorer that decides everything as it is."""
    return replace(scorer, judge=judge) if isinstance(scorer, MathLatex) else scorer


__all__ = ["SCORERS", "Graded", "Scorer", "Steps", "Verdict", "scorer_named", "with_judge"]
