r"""The `math_latex` scorer: is the final answer of a solution, written in LaTeX, the reference?

First the texts are compared, then exact values; what neither decides is a `Pair` for the judge the scorer was given.
Invariant: pure but for that judge, and bounded. Must not import math_verify or sympy.
"""

from dataclasses import dataclass
from functools import lru_cache

from service.reasoning import DEFAULT_TAGS, ReasoningTags
from service.scoring.base import Graded, Verdict
from service.scoring.extraction import MARKER, UNCLOSED, visible_text
from service.scoring.latex_compare import canonical, compare
from service.scoring.latex_extraction import Piece, find_piece
from service.scoring.latex_reader import read_value, tight_text
from service.scoring.latex_tokens import Unread
from service.scoring.latex_values import Value, Words
from service.scoring.plaintext import MAX_SEGMENT
from service.scoring.symbolic import Judge, Judgement, Pair, Ruling

_NO_JUDGE = Judgement(Ruling.ERROR, "no judge of formulas is at hand")


@dataclass(frozen=True, slots=True)
class _Reading:
    text: str
    tight: str
    value: Value | None
    canonical: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """What is left to a judge.

    Attributes:
        pair: what to ask it.
        expected: canonical form of the reference.
        predicted: canonical form of the answer.
        is_cut: the completion ended in this answer, cut off by the token limit.
    """

    pair: Pair
    expected: str
    predicted: str
    is_cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MathLatex:
    """Reads the final answer and compares it with the reference.

    Verdicts are those of `math_answer`; besides, `timeout` and `error` where the judge took too long or broke, and
    `error` where the reference itself cannot be read. An answer equal to the reference gets the reference's canonical
    form, so that its variants are one vote.

    Attributes:
        judge: decides what exact comparison does not; without one such an answer is an `error`.
        tags: of a thinking model's reasoning; only what follows it is read.
    """

    judge: Judge | None = None
    name: str = "math_latex"
    version: str = "2"
    tags: ReasoningTags = DEFAULT_TAGS

    def grade(
        self, *, completion: str, reference: str, finish_reason: str, question: str, structure: str | None
    ) -> Graded:
        """Judge the answer of `completion` against `reference`; `question` and `structure` play no part."""
        found = self.begin(completion=completion, reference=reference, finish_reason=finish_reason)
        if isinstance(found, Graded):
            return found
        return self.settle(found, self.judge.judge([found.pair])[0] if self.judge else _NO_JUDGE)

    def begin(self, *, completion: str, reference: str, finish_reason: str) -> Graded | Open:
        """The judgement, or what a judge has to decide first."""
        expected = _read_reference(reference)
        if finish_reason == "error" or not expected.tight or len(expected.text) > MAX_SEGMENT:
            return _graded(Verdict.ERROR, None, _no_verdict(expected, finish_reason))
        is_cut = finish_reason == "length"
        text = visible_text(completion, self.tags)
        if text is None:
            return _graded(Verdict.INCOMPLETE, None, UNCLOSED)
        piece = find_piece(text)
        if piece is None or (is_cut and not piece.is_marked):
            if is_cut:
                return _graded(Verdict.INCOMPLETE, None, "cut off before a final answer")
            return _graded(Verdict.UNPARSABLE, None, "no final answer found")
        if len(piece.text) > MAX_SEGMENT:
            return _graded(Verdict.UNPARSABLE, None, f"an answer of {len(piece.text):,} characters")
        return _decided(expected, _read(piece.text), is_cut=is_cut and not piece.is_closed)

    def settle(self, found: Open, judgement: Judgement) -> Graded:
        """The judgement that follows from what a judge said."""
        shown = f"expected {found.expected[:80]}"
        match judgement.ruling:
            case Ruling.SAME:
                return _graded(Verdict.CORRECT, found.expected, "")
            case Ruling.TIMEOUT:
                return _graded(Verdict.TIMEOUT, found.predicted, judgement.explanation)
            case Ruling.ERROR:
                return _graded(Verdict.ERROR, found.predicted, judgement.explanation)
            case Ruling.UNREADABLE_REFERENCE:
                return _graded(Verdict.ERROR, found.predicted, f"cannot read the reference {found.expected[:80]!r}")
            case Ruling.DIFFERENT | Ruling.UNREADABLE if found.is_cut:
                return _graded(Verdict.INCOMPLETE, None, f"cut off in the answer {found.predicted[-80:]!r}")
            case Ruling.UNREADABLE:
                return _graded(Verdict.UNPARSABLE, None, f"cannot read {found.predicted[:80]!r}; {shown}")
            case Ruling.DIFFERENT:
                return _graded(Verdict.INCORRECT, found.predicted, shown)

    def expected_answer(self, reference: str) -> str:
        """The canonical form of a reference's answer; empty if it has none."""
        return _read_reference(reference).canonical


@lru_cache(maxsize=4096)  # many samples share one reference, and shards hold them side by side
def _read_reference(reference: str) -> _Reading:
    """A bare answer, or a worked solution that ends in a box or `####`."""
    if "\\boxed" in reference or "\\fbox" in reference or MARKER in reference:
        piece: Piece | None = find_piece(reference)
        return _read(piece.text if piece is not None else "")
    return _read(reference)


@lru_cache(maxsize=4096)  # samples of a problem give the same few answers
def _read(text: str) -> _Reading:
    if len(text) > MAX_SEGMENT:
        return _Reading(text, text, None, text[:MAX_SEGMENT])
    text = text.strip()
    bare = tight_text(text)
    try:
        value = read_value(text)
    except Unread:
        return _Reading(text, bare, None, bare)
    return _Reading(text, bare, value, canonical(value) or bare)


def _decided(expected: _Reading, answer: _Reading, *, is_cut: bool) -> Graded | Open:
    if not answer.tight:
        return _graded(Verdict.UNPARSABLE, None, "an empty answer")
    if expected.tight == answer.tight:
        return _graded(Verdict.CORRECT, expected.canonical, "")
    same = None
    if expected.value is not None and answer.value is not None:
        same = compare(expected.value, answer.value)
    elif isinstance(expected.value, Words) and answer.value is None and _is_wordy(answer.text):
        same = False
    if same:
        return _graded(Verdict.CORRECT, expected.canonical, "")
    if same is None:
        pair = Pair(expected.text, answer.text)
        return Open(pair=pair, expected=expected.canonical, predicted=answer.canonical, is_cut=is_cut)
    if is_cut:
        return _graded(Verdict.INCOMPLETE, None, f"cut off in the answer {answer.text[-80:]!r}")
    # the same number in another unit is another answer
    predicted = answer.canonical if answer.canonical != expected.canonical else answer.tight
    return _graded(Verdict.INCORRECT, predicted[:MAX_SEGMENT], f"expected {expected.text[:80]}")


def _is_wordy(text: str) -> bool:
    """Whether most of a text that is no value are words."""
    return len(text) > 20 and sum(character.isalpha() or character == " " for character in text) > 0.9 * len(text)


def _no_verdict(expected: _Reading, finish_reason: str) -> str:
    if finish_reason == "error":
        return "engine error"
    if not expected.tight:
        return "the reference is empty"
    return f"the reference has {len(expected.text):,} characters, at most {MAX_SEGMENT:,} are read"


def _graded(verdict: Verdict, predicted_answer: str | None, explanation: str) -> Graded:
    return Graded(verdict=verdict, predicted_answer=predicted_answer, steps=None, explanation=explanation)
