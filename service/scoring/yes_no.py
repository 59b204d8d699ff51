r"""The `yes_no` scorer: does a completion say yes or no, and is that the reference?

Made for judges, models that are asked whether a solution holds, and for any set of yes-or-no questions. It reads a word
only where the completion states it as its verdict, for "there are no errors" says no and means yes. Invariant: pure and
linear in the completion's length.
"""

import re
from dataclasses import dataclass

from service.reasoning import DEFAULT_TAGS, ReasoningTags
from service.scoring.base import Graded, Verdict
from service.scoring.extraction import NEXT_QUESTION, UNCLOSED

# "no" is a verdict in "no.", "**No**" and "no, because", and none in "no longer" and "no errors"
_WORD = r"[\"'*_]*(yes|no)[\"'*_]*(?=[ \t]*(?:\Z|[.,;:!?(){}\n]|\N{EM DASH}|because\b|since\b|as\b)|[ ][-\N{EN DASH}])"
_ANNOUNCED = re.compile(
    r"(?:\b(?:verdict|answer|conclusion|judge?ment)\b[\s*_]*+(?:\bis\b|[:=])[\s*_:]*+"
    r"|####[ ]*|\\boxed\{[ ]*(?:\\text\{)?)" + _WORD,
    re.IGNORECASE,
)
_OPENS = re.compile(r"\s*" + _WORD, re.IGNORECASE)
_LAST_LINE = re.compile(r"[\"'*_]*(yes|no)[\"'*_]*[.!]?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class YesNo:
    """Reads the last announced verdict, else a last line that is one word, else a word that opens the completion.

    Verdicts: `incomplete` if the token limit cut the completion off before it said so much; `unparsable` if it ended
    without; `error` if the engine failed or the reference is neither yes nor no.

    Attributes:
        tags: of a thinking model's reasoning; only what follows it is read.
    """

    name: str = "yes_no"
    version: str = "3"
    tags: ReasoningTags = DEFAULT_TAGS

    def grade(
        self, *, completion: str, reference: str, finish_reason: str, question: str, structure: str | None
    ) -> Graded:
        """Judge what `completion` says against `reference`, "yes" or "no"; `question` and `structure` play no part."""
        expected = reference.strip().lower()
        if expected not in ("yes", "no"):
            return _graded(Verdict.ERROR, None, f"the reference is {reference[:80]!r}, neither yes nor no")
        if finish_reason == "error":
            return _graded(Verdict.ERROR, None, "engine error")
        text = self.tags.answer_in(completion)
        if text is None:
            return _graded(Verdict.INCOMPLETE, None, UNCLOSED)
        said = stated_word(_own_part(text))
        if said is None:
            if finish_reason == "length":
                return _graded(Verdict.INCOMPLETE, None, "cut off before a verdict")
            return _graded(Verdict.UNPARSABLE, None, "states neither yes nor no")
        return _graded(Verdict.CORRECT if said == expected else Verdict.INCORRECT, said, "")


def _own_part(text: str) -> str:
    """Up to where a base model that has said its word goes on to write a next problem and a verdict of its own."""
    said = _OPENS.match(text) or _ANNOUNCED.search(text)
    following = NEXT_QUESTION.search(text, said.end()) if said else None
    return text if following is None else text[: following.start()]


def stated_word(text: str) -> str | None:
    """The word, yes or no, that `text` states as its verdict; None where it states neither."""
    announced = _ANNOUNCED.findall(text)
    if announced:
        return announced[-1].lower()
    lines = text.strip().rsplit("\n", 1)
    found = _LAST_LINE.fullmatch(lines[-1].strip()) or _OPENS.match(text)
    return found[1].lower() if found else None


def _graded(verdict: Verdict, predicted_answer: str | None, explanation: str) -> Graded:
    return Graded(verdict=verdict, predicted_answer=predicted_answer, steps=None, explanation=explanation)
