"""What a scorer is and what it says of one sample.

Invariant: a scorer is a pure function of its arguments; it reads no file, clock or environment and never raises for any
completion. Imports nothing of the project, so that scorers and their users share these types without a cycle.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Verdict(StrEnum):
    """Whether the answer of a sample is right.

    Only CORRECT counts as solved. INCOMPLETE means cut off by the token limit before a final answer; UNPARSABLE means
    finished without an answer that can be read; TIMEOUT and ERROR mean the scorer could not judge, which is never the
    model's fault and never INCORRECT.
    """

    CORRECT = "correct"
    INCORRECT = "incorrect"
    INCOMPLETE = "incomplete"
    UNPARSABLE = "unparsable"
    TIMEOUT = "timeout"
    ERROR = "error"


class Steps(StrEnum):
    """Whether the reasoning of a sample holds, as far as a check can tell."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """One scorer's judgement of one sample. None means: this scorer does not judge that.

    Attributes:
        verdict: set by answer scorers.
        predicted_answer: the answer read from the completion in canonical form (equal values give equal text, so that
            it can be voted on), or None where none was found.
        steps: set by reasoning scorers.
        explanation: one line for a person, possibly empty.
    """

    verdict: Verdict | None
    predicted_answer: str | None
    steps: Steps | None
    explanation: str


class Scorer(Protocol):
    """Judges one sample at a time.

    `version` changes whenever a judgement may change, so that stored scores say which rules made them.
    """

    @property
    def name(self) -> str:
        """The name in SCORERS and in job documents."""
        ...

    @property
    def version(self) -> str:
        """The version of its rules."""
        ...

    def grade(
        self, *, completion: str, reference: str, finish_reason: str, question: str, structure: str | None
    ) -> Graded:
        """Judge `completion`.

        Args:
            completion: raw text of the model, reasoning tags included.
            reference: gold answer, bare (`18`) or a worked solution that ends in one.
            finish_reason: "stop", "length" or "error", as the engine reported it.
            question: the problem's text.
            structure: the problem's machine-readable form where its data set has one.
        """
        ...
