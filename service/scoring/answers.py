"""The `math_answer` scorer: does the final answer of a solution equal the reference?

Numbers are compared exactly, as integers or rationals. Answers that are not one number (expressions, tuples, words) are
compared as normalised text: an equivalent expression written otherwise counts as incorrect here. Invariant: pure and
linear in the completion's length; hostile text is bounded by the constants of extraction, numerals and plaintext.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from service.reasoning import DEFAULT_TAGS, ReasoningTags
from service.scoring.base import Graded, Verdict
from service.scoring.extraction import MARKER, UNCLOSED, Found, find_answer, visible_text
from service.scoring.numerals import Numeral, read_numeral
from service.scoring.plaintext import MAX_SEGMENT, comparable, plain

# the common case, a completion that ends in `#### 18` or `#### 1,080`, without any of the general machinery
_FAST = re.compile(r"[ ]?\$?(-?[0-9]{1,3}(?:,[0-9]{3}){1,4}|-?[0-9]{1,15})\.?\s*\Z")
_FIGURES = re.compile(r"[0-9]")


@dataclass(frozen=True, slots=True)
class _Reference:
    numeral: Numeral | None
    canonical: str

    @property
    def is_integer(self) -> bool:
        """Whether only the same digits can equal it."""
        return self.numeral is not None and self.numeral.scale == 1 and self.numeral.value.denominator == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MathAnswer:
    """Reads the final answer and compares it with the reference.

    Verdicts: `incomplete` if the token limit cut the completion off before an announced answer, or in the middle of one
    that is not right as far as it goes; `unparsable` if it ended by itself without an answer that can be read; `error`
    if the engine failed or the reference is empty.

    Attributes:
        tags: of a thinking model's reasoning; only what follows it is read.
    """

    name: str = "math_answer"
    version: str = "2"
    tags: ReasoningTags = DEFAULT_TAGS

    def grade(
        self, *, completion: str, reference: str, finish_reason: str, question: str, structure: str | None
    ) -> Graded:
        """Judge the answer of `completion` against `reference`; `question` and `structure` play no part."""
        expected = _read_reference(reference)
        if not expected.canonical or finish_reason == "error":
            return _graded(Verdict.ERROR, None, "the reference is empty" if not expected.canonical else "engine error")
        text = visible_text(completion, self.tags)
        if text is None:
            return _graded(Verdict.INCOMPLETE, None, UNCLOSED)
        marker = text.rfind(MARKER)
        fast = _FAST.match(text, marker + len(MARKER)) if marker >= 0 else None
        if fast is not None:
            predicted = str(int(fast[1].replace(",", "")))
            if predicted == expected.canonical:
                return Graded(verdict=Verdict.CORRECT, predicted_answer=predicted, steps=None, explanation="")
            if expected.is_integer and finish_reason != "length":
                return _graded(Verdict.INCORRECT, predicted, f"expected {expected.canonical}")
        return _judged(find_answer(text), expected, is_cut=finish_reason == "length")


def expected_answer(reference: str) -> str:
    """The canonical form of a reference's answer, comparable with `Graded.predicted_answer`; empty if it has none."""
    return _read_reference(reference).canonical


@lru_cache(maxsize=4096)  # many samples share one reference, and shards hold them side by side
def _read_reference(reference: str) -> _Reference:
    at = reference.rfind(MARKER)
    answer = reference[at + len(MARKER) :].strip() if at >= 0 else reference.strip()
    if at < 0 and "\\boxed" in answer:
        found = find_answer(answer)
        return _Reference(numeral=found.numeral, canonical=_canonical(found)) if found else _Reference(None, "")
    if len(answer) > MAX_SEGMENT:
        return _Reference(None, answer)
    numeral = read_numeral(plain(answer))
    if numeral is None or _FIGURES.search(numeral.rest):
        return _Reference(None, comparable(answer))
    return _Reference(numeral, numeral.canonical())


def _canonical(found: Found) -> str:
    return found.numeral.canonical() if found.numeral is not None else comparable(found.text)


def _judged(found: Found | None, expected: _Reference, *, is_cut: bool) -> Graded:
    if found is None or (is_cut and not found.is_marked):
        if is_cut:
            return _graded(Verdict.INCOMPLETE, None, "cut off before a final answer")
        return _graded(Verdict.UNPARSABLE, None, "no final answer found")
    predicted = _canonical(found)
    if found.numeral is not None and expected.numeral is not None:
        is_correct = found.numeral.equals(expected.numeral)
    else:
        is_correct = predicted == expected.canonical
    if is_correct:
        return _graded(Verdict.CORRECT, predicted, "")
    if is_cut and found.is_last:
        return _graded(Verdict.INCOMPLETE, None, f"cut off in the answer {found.text[-80:]!r}")
    if found.numeral is None and expected.numeral is not None:
        return _graded(Verdict.UNPARSABLE, None, f"not one number: {found.text[:80]!r}")
    return _graded(Verdict.INCORRECT, predicted[:MAX_SEGMENT], f"expected {expected.canonical[:80]}")


def _graded(verdict: Verdict, predicted_answer: str | None, explanation: str) -> Graded:
    return Graded(verdict=verdict, predicted_answer=predicted_answer, steps=None, explanation=explanation)
