"""Exact value of a short arithmetic expression: + - * / // ( ) % and decimals, in rational numbers.

Invariant: work is bounded by the constants below whatever the text, so a scorer can be given anything a model writes.
There is no exponentiation, because its results are not bounded. Must not use eval, float or decimal contexts.
"""

import re
from fractions import Fraction

MAX_CHARS = 200
MAX_NUMBER_CHARS = 40
MAX_DEPTH = 20

_TOKEN = re.compile(r"\s*(?:(\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)|(//|[-+*/()%]))", re.ASCII)
_HUNDREDTH = Fraction(1, 100)


class UnreadableExpression(ValueError):
    """The text is not an expression of this grammar, or passes a bound."""


def evaluate(text: str, *, percent: Fraction = _HUNDREDTH) -> Fraction:
    """Exact value of `text`.

    Args:
        text: an expression, spaces and thousands separators allowed.
        percent: what a percent sign multiplies by; people write both `20%*50=10` and `5/20*100=25%`.

    Raises:
        UnreadableExpression: if it is none, or longer or deeper than the bounds of this module.
        ZeroDivisionError: if it divides by zero.
    """
    tokens = _tokens(text)
    value, end = _sum(tokens, 0, 0, percent)
    if end != len(tokens):
        raise UnreadableExpression(f"unexpected {tokens[end]!r} in {text!r}")
    return value


def as_number(text: str) -> tuple[Fraction, int]:
    """Value of a decimal literal and the number of decimals it shows.

    Raises:
        UnreadableExpression: if `text` is no decimal literal or longer than MAX_NUMBER_CHARS.
    """
    digits = text.replace(",", "")
    whole, _, decimals = digits.partition(".")
    if len(digits) > MAX_NUMBER_CHARS or not (whole + decimals).isdecimal():
        raise UnreadableExpression(f"not a number of at most {MAX_NUMBER_CHARS} characters: {text[:60]!r}")
    return Fraction(int(whole + decimals), 10 ** len(decimals)), len(decimals)


def _tokens(text: str) -> list[str]:
    text = text.strip()
    if len(text) > MAX_CHARS:
        raise UnreadableExpression(f"{len(text)} characters, at most {MAX_CHARS} are read")
    tokens: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise UnreadableExpression(f"unexpected {text[at]!r} in {text!r}")
        tokens.append(match[1] or match[2])
        at = match.end()
    if not tokens:
        raise UnreadableExpression("empty expression")
    return tokens


def _sum(tokens: list[str], at: int, depth: int, percent: Fraction) -> tuple[Fraction, int]:
    value, at = _product(tokens, at, depth, percent)
    while at < len(tokens) and tokens[at] in "+-":
        sign = 1 if tokens[at] == "+" else -1
        term, at = _product(tokens, at + 1, depth, percent)
        value += sign * term
    return value, at


def _product(tokens: list[str], at: int, depth: int, percent: Fraction) -> tuple[Fraction, int]:
    value, at = _factor(tokens, at, depth, percent)
    while at < len(tokens) and tokens[at] in ("*", "/", "//"):
        operator = tokens[at]
        factor, at = _factor(tokens, at + 1, depth, percent)
        if operator == "*":
            value *= factor
        else:
            value = value / factor if operator == "/" else Fraction(value // factor)
    return value, at


def _factor(tokens: list[str], at: int, depth: int, percent: Fraction) -> tuple[Fraction, int]:
    if at >= len(tokens) or depth > MAX_DEPTH:
        raise UnreadableExpression("ends too early" if at >= len(tokens) else f"deeper than {MAX_DEPTH}")
    token = tokens[at]
    if token in ("-", "+"):
        value, at = _factor(tokens, at + 1, depth + 1, percent)
        return (-value if token == "-" else value), at
    if token == "(":
        value, at = _sum(tokens, at + 1, depth + 1, percent)
        if at >= len(tokens) or tokens[at] != ")":
            raise UnreadableExpression("unbalanced parenthesis")
        at += 1
    else:
        value, at = as_number(token)[0], at + 1
    if at < len(tokens) and tokens[at] == "%":
        return value * percent, at + 1
    return value, at
