"""The `steps` scorer: is the arithmetic of a solution right, calculation by calculation?

It judges arithmetic alone: a solution may calculate flawlessly with the wrong numbers and still be `valid`. That limit
is what makes the check cheap, exact and free of a reference. Invariant: pure, linear in the completion's length.
"""

from dataclasses import dataclass

from service.reasoning import DEFAULT_TAGS, ReasoningTags
from service.scoring.base import Graded, Steps
from service.scoring.calculations import calculations
from service.scoring.extraction import UNCLOSED


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCheck:
    """Reads what follows a thinking model's reasoning, whose false starts are no part of the solution.

    Valid: at least one calculation is written and all hold. Invalid: one is false. Unknown: none could be judged.

    A solution with a calculator mark that cannot be read is unknown unless another calculation is false: half a check
    is no check.
    """

    name: str = "steps"
    version: str = "2"
    tags: ReasoningTags = DEFAULT_TAGS

    def grade(
        self, *, completion: str, reference: str, finish_reason: str, question: str, structure: str | None
    ) -> Graded:
        """Judge the calculations of `completion`; the other arguments play no part."""
        solution = self.tags.answer_in(completion)
        if solution is None:
            return _steps(Steps.UNKNOWN, UNCLOSED)
        count = 0
        unreadable: str | None = None
        for calculation in calculations(solution):
            if calculation.holds is False:
                return _steps(Steps.INVALID, f"{calculation.text[:80]} does not hold")
            if calculation.holds is None:
                unreadable = unreadable or calculation.text
            else:
                count += 1
        if unreadable is not None:
            return _steps(Steps.UNKNOWN, f"cannot read the calculation {unreadable[:80]!r}")
        if count == 0:
            return _steps(Steps.UNKNOWN, "no calculation found")
        return _steps(Steps.VALID, f"{count} calculations hold" if count > 1 else "1 calculation holds")


def _steps(steps: Steps, explanation: str) -> Graded:
    return Graded(verdict=None, predicted_answer=None, steps=steps, explanation=explanation)
