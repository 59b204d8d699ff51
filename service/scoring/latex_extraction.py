r"""Finds the final answer in a completion written in LaTeX, as the piece of text it is.

Order of trust: the last `\boxed{...}` (several in a row are one list), `#### x`, "the answer is $x$", the last formula
between dollar signs, the last number. A box comes first here because Markdown headings look like `####`. Invariant:
linear in the completion's length, at most MAX_SEGMENT characters of an answer are taken. Pure.
"""

import re
from dataclasses import dataclass

from service.scoring.extraction import MARKER, find_answer, phrase_end
from service.scoring.plaintext import MAX_SEGMENT

MAX_BOXES = 8
_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z]) ?")
_BETWEEN_BOXES = re.compile(r"[\s$,;.]*(?:(?:and|or)\b|\\text\{ ?(?:and|or) ?\})?[\s$]*")
_FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_HEADING = re.compile(r"\d{1,2}[.):] +[^\W\d]|(?:Step|Solution|Answer|Final|Explanation|Conclusion)\b")
_SENTENCE_END = re.compile(r"\.(?:\s|$)|\n")
_TAIL_CHARS = 4000


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of an answer.

    Attributes:
        text: LaTeX as it was written.
        is_marked: announced by a box, marker or phrase, not merely the last formula.
        is_closed: surely whole, even if the completion was cut off behind it.
    """

    text: str
    is_marked: bool
    is_closed: bool


def find_piece(text: str) -> Piece | None:
    """The final answer of `text`, or None if there is nothing to read."""
    boxed = _boxes(text)
    if boxed is not None:
        return boxed if boxed.text.strip() else None
    return _hash_line(text) or _said(text) or _last(text)


def _boxes(text: str) -> Piece | None:
    """The content of the last box, with those that stand right before it."""
    contents: list[str] = []
    end, following = len(text), -1
    for _ in range(MAX_BOXES):
        at = max(text.rfind("\\boxed", 0, end), text.rfind("\\fbox", 0, end))
        found = _BOX.match(text, at) if at >= 0 else None
        if found is None:
            break
        content, close = _braced(text, found.end())
        if not contents and content is None:
            return None
        if contents and (content is None or not _BETWEEN_BOXES.fullmatch(text, close, following)):
            break
        if content is not None and content not in contents:
            contents.append(content)
        end = following = at
    if not contents:
        return None
    return Piece(", ".join(reversed(contents)), is_marked=True, is_closed=True)


def _braced(text: str, start: int) -> tuple[str | None, int]:
    """What stands in braces at `start`, or up to the end of the formula where there are none; and where it ends."""
    if text[start : start + 1] != "{":
        rest = re.split(r"[$\n\s]", text[start : start + MAX_SEGMENT], maxsplit=1)[0].rstrip(".,")
        return rest or None, start + len(rest)
    depth = 0
    for end in range(start, min(len(text), start + MAX_SEGMENT + 2)):
        if text[end] in "{}" and text[end - 1] != "\\":
            depth += 1 if text[end] == "{" else -1
            if depth == 0:
                return text[start + 1 : end], end + 1
    return None, start


def _hash_line(text: str) -> Piece | None:
    at = text.rfind(MARKER)
    if at < 0:
        return None
    rest = text[at + len(MARKER) : at + len(MARKER) + MAX_SEGMENT].lstrip(" *:\n")
    line = rest.split("\n", 1)[0].strip()
    if not line or _HEADING.match(line):
        return None
    return Piece(line, is_marked=True, is_closed="\n" in rest)


def _said(text: str) -> Piece | None:
    start = phrase_end(text)
    if start < 0:
        return None
    rest = text[start : start + MAX_SEGMENT].lstrip(" *:\n")
    sentence_end = _SENTENCE_END.search(rest)
    sentence = rest[: sentence_end.start()] if sentence_end else rest
    formulas = list(_FORMULA.finditer(sentence if "$$" not in rest[:3] and "\\[" not in rest[:3] else rest))
    if formulas:
        return Piece(_inside(formulas[-1]), is_marked=True, is_closed=True)
    return Piece(sentence, is_marked=True, is_closed=sentence_end is not None) if sentence.strip() else None


def _last(text: str) -> Piece | None:
    formula = None
    for formula in _FORMULA.finditer(text[-_TAIL_CHARS:]):  # noqa: B007  the loop only finds the last match
        pass
    if formula is not None:
        inside = _inside(formula)
        return Piece(inside.rpartition("=")[2] or inside, is_marked=False, is_closed=True)
    found = find_answer(text)
    return Piece(found.text, is_marked=found.is_marked, is_closed=not found.is_last) if found else None


def _inside(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group is not None)
