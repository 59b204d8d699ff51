"""Finds the calculations written in a solution and says of each whether it holds, exactly.

Two notations are read. Calculator marks, `<<48/2=24>>`, are exact claims; where a text has any, only they are judged.
Otherwise equations in running text, such as `12+3=15.` or `12 + 3 = $15`, are; what cannot be read there is left alone,
for prose is not a claim. Invariant: time is linear in the length of the text. Pure; imports only the expression parser.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice

from service.scoring.expressions import MAX_CHARS, UnreadableExpression, as_number, evaluate

MAX_CALCULATIONS = 1000

_PERCENT_READINGS = (Fraction(1, 100), Fraction(1))

_MARK = re.compile(r"<<([^<>\n]{1,400})>>")
_SIMPLE = re.compile(r"(\d{1,15})([-+*/])(\d{1,15})=(\d{1,30})", re.ASCII)
_CURRENCY = re.compile(r"\\?\$|[€£¥₹]")
_NOISE = re.compile(r"\s+|,(?=\d{3})")

# one character class, possessive: no backtracking on any text
_RUN = re.compile(r"[0-9+\-*/().,%=$€£¥₹ \t]++")
_CLAUSE_END = re.compile(r"[.,](?!\d)")
_TIMES = re.compile(r"(?<=[\d)%])[ \t]*+[x×X·✕][ \t]*+(?=[\d($€£.])")
_LIST_BULLET = re.compile(r"^[ \t]*(?:[-*+][ \t]+|\d+\)[ \t]+)", re.MULTILINE)
_LATEX = re.compile(r"\\(?:times|cdot|div|left|right|[()\[\]$,!; ]|[dt]?frac\{([^{}\\]{1,60})\}\{([^{}\\]{1,60})\})")
_LATEX_SIGN = {r"\times": "*", r"\cdot": "*", r"\div": "/"}
_SIGNS = str.maketrans(
    {"\N{MINUS SIGN}": "-", "–": "-", "÷": "/", "\N{NO-BREAK SPACE}": " ", "\N{NARROW NO-BREAK SPACE}": " "}
)
# what stands around a run and makes it part of something not written in figures: `2x + 3 = 7`, `1 and 1/4 = 15`
_PART_BEFORE = re.compile(r"(?:[\w^}\\√:]|\b(?:x|X|of|times|plus|minus|by)[ \t]+|[\])}][ \t]*)$")
_BARE_FRACTION = re.compile(r"(\d{1,9})/(\d{1,9})[ \t]*=")
_MIXED_BEFORE = re.compile(r"\band[ \t]+$")
_PART_AFTER = re.compile(
    r"[a-zA-Z](?![a-zA-Z'])|[ \t]*(?:[\^{\\√:¢]|and[ \t]+[$(]*\d|cents?\b|(?:hundred|thousand|[mb]illion|dozen)s?\b)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calculation:
    """One claim that expressions are equal.

    Attributes:
        text: without spaces, currency and thousands separators: `48/2=24`.
        holds: None if it is marked as a calculation but cannot be read as one.
    """

    text: str
    holds: bool | None


def calculations(text: str) -> Iterator[Calculation]:
    """The calculations of a solution, in the order they are written, at most MAX_CALCULATIONS of them.

    A result written with decimals may be rounded to the decimals it shows (100/3=33.33); one written as a whole number
    must be exact (7/2=4 is a slip). A percent sign may mean a hundredth or be a unit: one reading for the whole
    calculation must hold, and in a product it is a hundredth. A mark without an operator counts only if it is false.
    """
    return islice(_calculations(text), MAX_CALCULATIONS)


def _calculations(text: str) -> Iterator[Calculation]:
    if "<<" in text:
        found = False
        for mark in _MARK.finditer(text):
            found = True
            yield from _judged(mark[1], is_mark=True)
        if found:
            return
    if "=" in text:
        for claim in _claims_in_prose(text):
            yield from _judged(claim, is_mark=False)


def _claims_in_prose(text: str) -> Iterator[str]:
    if "\\" in text:
        text = _LATEX.sub(_plain_latex, text)
    if not text.isascii():
        text = text.translate(_SIGNS)
    text = _TIMES.sub("*", _LIST_BULLET.sub("", text))
    for run in _RUN.finditer(text):
        if "=" not in run[0]:
            continue
        start, end = run.span()
        lead = len(run[0]) - len(run[0].lstrip())
        claims = _CLAUSE_END.split(run[0])
        if _is_part_of_more(text[max(0, start - 10) : start + lead], claims[0]):
            claims[0] = ""
        if claims[-1] and _PART_AFTER.match(text, end - len(claims[-1]) + len(claims[-1].rstrip())):
            claims[-1] = ""
        yield from (_balanced(claim) for claim in claims if "=" in claim)


def _is_part_of_more(before: str, claim: str) -> bool:
    """Whether what stands before a claim belongs to its first expression, so that its figures say something else."""
    claim = claim.lstrip()
    if claim.startswith("="):
        return False
    if claim.startswith(("-", "+", "*", "/")) and before.strip(" \t")[-1:] not in ("", "\n"):
        return True
    fraction = _BARE_FRACTION.match(claim)
    if fraction is not None and _MIXED_BEFORE.search(before):
        return int(fraction[1]) < int(fraction[2])
    return _PART_BEFORE.search(before) is not None


def _plain_latex(match: re.Match[str]) -> str:
    if match[1] is not None:
        return f"({match[1]})/({match[2]})"
    return _LATEX_SIGN.get(match[0], " ")


def _balanced(claim: str) -> str:
    """`claim` without a bracket that opens before it or closes after it, as in `(5 + 3 = 8)`."""
    claim = claim.strip()
    first, _, _ = claim.partition("=")
    _, _, last = claim.rpartition("=")
    if last.endswith(")") and last.count(")") > last.count("("):
        claim = claim[:-1]
    if first.startswith("(") and first.count("(") > first.count(")"):
        claim = claim[1:]
    return claim


def _judged(claim: str, *, is_mark: bool) -> Iterator[Calculation]:
    simple = _SIMPLE.fullmatch(claim)
    if simple is not None:
        yield Calculation(text=claim, holds=_simple_holds(simple))
        return
    sides = _sides(claim)
    if not is_mark:
        # "Week 2 = 35 + 35 = 70": a bare number in front is more often a label than a claim
        while sides and not _has_operator(sides[0]):
            del sides[0]
    holds = _holds(sides) if len(sides) > 1 else None
    if (any(map(_has_operator, sides)) and holds is not None) or (is_mark and holds is not True):
        yield Calculation(text="=".join(_NOISE.sub("", side) for side in sides), holds=holds)


def _has_operator(side: str) -> bool:
    return any(operator in side[1:] for operator in "+-*/")


def _sides(claim: str) -> list[str]:
    if len(claim) > 4 * MAX_CHARS:
        return []
    return [side for side in (part.strip() for part in _CURRENCY.sub("", claim).split("=")) if side]


def _simple_holds(match: re.Match[str]) -> bool:
    left, operator, right, result = int(match[1]), match[2], int(match[3]), int(match[4])
    if operator == "+":
        return left + right == result
    if operator == "-":
        return left - right == result
    if operator == "*":
        return left * right == result
    return right != 0 and left == right * result


def _holds(sides: list[str]) -> bool | None:
    """True if all sides are equal under one reading of the percent sign; None if one cannot be read."""
    may_be_unit = any("%" in side for side in sides) and not any(
        "%" in side and ("*" in side or "/" in side) for side in sides
    )
    readings = _PERCENT_READINGS if may_be_unit else _PERCENT_READINGS[:1]
    for percent in readings:
        try:
            first = evaluate(sides[0], percent=percent)
            if all(_equals(first, side, percent) for side in sides[1:]):
                return True
        except UnreadableExpression:
            return None
        except ZeroDivisionError:
            return False
    return False


def _equals(value: Fraction, side: str, percent: Fraction) -> bool:
    if evaluate(side, percent=percent) == value:
        return True
    unit = percent if side.endswith("%") else Fraction(1)
    sign = -1 if side.startswith("-") else 1
    try:
        shown, num_decimals = as_number(side.strip("-% "))
    except UnreadableExpression:
        return False
    return num_decimals > 0 and abs(value / unit - sign * shown) <= Fraction(1, 2 * 10**num_decimals)
