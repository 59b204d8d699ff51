"""The seam to a slower judge of whether two answers are the same: what it is asked, and what it may say.

A judge runs a computer algebra system on text a model wrote. That may take for ever or break, and must not run in the
process that grades, so this package holds the question alone; who answers is handed in. Invariant: imports nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Ruling(StrEnum):
    """What a judge says of a pair. UNREADABLE is the answer's fault, UNREADABLE_REFERENCE is not."""

    SAME = "same"
    DIFFERENT = "different"
    UNREADABLE = "unreadable"
    UNREADABLE_REFERENCE = "unreadable_reference"
    TIMEOUT = "timeout"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers in LaTeX. Their order matters: `x=1` answers `1`, and `2x+z=1` is not answered by `1`."""

    reference: str
    answer: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a judge found, and one line for a person where it could not judge."""

    ruling: Ruling
    explanation: str = ""


class Judge(Protocol):
    """Says of pairs whether they are the same answer. Never raises for any text."""

    def judge(self, pairs: Sequence[Pair]) -> Sequence[Judgement]:
        """One judgement for each of `pairs`, in their order."""
        ...
