r"""Finds the final answer in a completion: which piece of text it is, and how it was announced.

Order of trust: `#### 18`, `\boxed{18}`, "the answer is 18", a line `A: 18`, the last number. Invariant: linear in the
completion's length, at most MAX_SEGMENT characters of any one answer are read. Pure.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from service.reasoning import ReasoningTags
from service.scoring.numerals import Numeral, count_numerals, last_numeral, read_numeral
from service.scoring.plaintext import MAX_SEGMENT, plain

MARKER = "####"
_MAX_MARKERS = 8
_BEFORE_LAST_DIGIT = 60
_AFTER_LAST_DIGIT = 40

NEXT_QUESTION = re.compile(r"\n[ \t]*+(?:Q|Question|Problem|Human|User)(?: ?\d{1,4})?:")
_ANNOUNCED = re.compile(r"####|\\boxed|\\fbox|\b(?:[Aa]nswer|ANSWER)\b")
_PHRASE = re.compile(r"(?<![\w/])(?:[Aa]nswer|ANSWER)\b(?:[ *_]{0,4}(?:(?:is|IS)\b|=)[ *_]{0,4}:?|[ *_]{0,4}:)")
_ANSWER_LINE = re.compile(r"(?<=\n)[ \t]{0,8}\*{0,3}A\*{0,3}:|\A[ \t]{0,8}\*{0,3}A\*{0,3}:")
_ASIDE = re.compile(r"[,;:(.]|\b(?:because|since|as|so|for|from|if|when)\b")
_NUMBER_STARTS = tuple("-+$€£¥₹.(0123456789")
_TO_LAST_DIGIT = re.compile(r".*[0-9]", re.DOTALL)
_HEADING = re.compile(r"\d{1,2}[.):] +[^\W\d]")
_SENTENCE_END = re.compile(r"[.!?](?= |$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A final answer.

    Attributes:
        text: the piece of text that was taken for the answer, in plain form.
        numeral: the number in it, or None if it is not one number.
        is_marked: announced by a marker or phrase, not merely the last number.
        is_last: nothing follows it, so that a truncated completion may have lost a part of it.
    """

    text: str
    numeral: Numeral | None
    is_marked: bool
    is_last: bool


UNCLOSED = "the reasoning is not closed"


def visible_text(completion: str, tags: ReasoningTags) -> str | None:
    """The part of a completion in which an answer counts; None if there is none, for its reasoning is not closed.

    That is what follows the last closing reasoning tag, up to where a base model that has answered goes on to write a
    next question of its own.
    """
    answer = tags.answer_in(completion)
    if answer is None:
        return None
    completion = answer
    for following in NEXT_QUESTION.finditer(completion):
        head = completion[: following.start()]
        return head if _ANNOUNCED.search(head) else completion
    return completion


def find_answer(text: str) -> Found | None:
    """The final answer announced or given in `text`, numbers preferred; None if there is nothing to read."""
    wordy: Found | None = None
    for found in _marked(text):
        if found.numeral is not None or _has_digit(found.text):
            return found
        wordy = wordy or found
    if wordy is not None and wordy.text:
        return wordy
    return _last_number(text)


def _marked(text: str) -> Iterator[Found]:
    yield from _hash_marked(text)
    yield from _boxed(text)
    yield from _said(text)
    yield from _answer_line(text)


def _has_digit(text: str) -> bool:
    return any(map(str.isdigit, text))


def _line(text: str, start: int) -> tuple[str, int]:
    """The rest of the line at `start`, or the next line that is not empty; and where it ends."""
    while start < len(text) and text[start] in " \t\r\n*":
        start += 1
    end = text.find("\n", start)
    end = len(text) if end < 0 else end
    return text[start:end], end


def _found(text: str, segment: str, end: int, numeral: Numeral | None) -> Found:
    is_last = end >= len(text) and (numeral is None or not numeral.rest)
    return Found(text=segment, numeral=numeral, is_marked=True, is_last=is_last)


def _hash_marked(text: str) -> Iterator[Found]:
    """Answers after `####`, last first. A Markdown heading (`#### 1. Find x`, `#### Solution`) announces no number."""
    at = len(text)
    for _ in range(_MAX_MARKERS):
        at = text.rfind(MARKER, 0, at)
        if at < 0:
            return
        line, end = _line(text, at + len(MARKER))
        if len(line) > MAX_SEGMENT:
            yield _found(text, line[:MAX_SEGMENT], end, None)
            continue
        segment = plain(line)
        if _HEADING.match(segment):
            continue
        numeral = _number_of(segment)
        if numeral is not None or not _has_digit(segment) or segment.startswith(_NUMBER_STARTS):
            yield _found(text, segment, end, numeral)


def _number_of(segment: str) -> Numeral | None:
    """The number a segment starts with or, for `x = 18` and `48 + 24 = 72`, the one after its last equals sign.

    An equation in an aside (`18, because 2 * 9 = 18`) is not the answer.
    """
    first = read_numeral(segment)
    if first is not None and ("=" not in first.rest or _ASIDE.search(first.rest.partition("=")[0])):
        return first
    return read_numeral(segment[segment.rfind("=") + 1 :].lstrip())


def _boxed(text: str) -> Iterator[Found]:
    at = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if at < 0:
        return
    start = text.find("{", at, at + 12)
    if start < 0:
        segment, end = _line(text, at + len("\\boxed"))
        segment = segment[:MAX_SEGMENT].split("$")[0]
        yield _found(text, plain(segment), end, _number_of(plain(segment)))
        return
    depth = 0
    for end in range(start, min(len(text), start + MAX_SEGMENT)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            segment = plain(text[start + 1 : end])
            yield _found(text, segment, end, None if segment.endswith("!") else _number_of(segment))
            return


def phrase_end(text: str) -> int:
    """Where the last "answer is" or "Answer:" ends, or -1."""
    at = len(text)
    for _ in range(_MAX_MARKERS):  # str.rfind is several times faster than a search for the pattern
        at = max(text.rfind("nswer", 0, at), text.rfind("NSWER", 0, at))
        if at < 0:
            return -1
        phrase = _PHRASE.match(text, max(0, at - 1))
        if phrase is not None:
            return phrase.end()
    return -1


def _said(text: str) -> Iterator[Found]:
    """What follows "the answer is": the number it starts with or, in a sentence, its only one or the one after `=`."""
    start = phrase_end(text)
    if start < 0:
        return
    line, end = _line(text, start)
    segment = plain(line[:MAX_SEGMENT])
    sentence_end = _SENTENCE_END.search(segment)
    sentence = segment[: sentence_end.start()] if sentence_end else segment
    if "=" in sentence or sentence.startswith(_NUMBER_STARTS) or not _has_digit(sentence):
        yield _found(text, sentence, end, _number_of(sentence))
    elif count_numerals(sentence) == 1:
        yield _found(text, sentence, end, last_numeral(sentence))


def _answer_line(text: str) -> Iterator[Found]:
    """A line `A: 18 apples`. A line `A: She buys 3 ...` begins a worked solution and announces nothing."""
    at = text.rfind("A:") if "A:" in text else text.rfind("A**:")
    start = _ANSWER_LINE.match(text, text.rfind("\n", 0, at) + 1) if at >= 0 else None
    if start is None:
        return
    line, end = _line(text, start.end())
    segment = plain(line[:MAX_SEGMENT])
    numeral = read_numeral(segment)
    if numeral is not None and len(numeral.rest) <= 40 and not _has_digit(numeral.rest):
        yield _found(text, segment, end, numeral)


def _last_number(text: str) -> Found | None:
    """The number that holds the last digit of `text`."""
    last = _TO_LAST_DIGIT.match(text)
    if last is None:
        return None
    start, end = max(0, last.end() - _BEFORE_LAST_DIGIT), last.end() + _AFTER_LAST_DIGIT
    window = text[start:end]
    if start > 0:
        # a number cut at the window's edge would be another number
        space = window.find(" ", 0, last.end() - start)
        if space < 0:
            return None
        window = window[space:]
    numeral = last_numeral(plain(window))
    if numeral is None:
        return None
    return Found(text=numeral.canonical(), numeral=numeral, is_marked=False, is_last=not numeral.rest)
