r"""Reads a formula, a list of tokens, into an exact `Form`.

Reads what can be read in one way only: `1/2x`, `f(2)`, `x^10` and `2 3` are none of these, and neither are functions,
roots other than square ones and sums to a symbolic power. Invariant: bounded by MAX_DEPTH and the bounds of `surds` and
`latex_tokens`. Pure.
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from service.scoring import surds
from service.scoring.latex_tokens import Unread
from service.scoring.surds import Form, TooLarge

MAX_DEPTH = 24
MAX_FACTORIAL = 60

_LETTER = re.compile(r"[a-zA-Z]")
_NUMBER = re.compile(r"[0-9.][0-9.,]*")
_GREEK = frozenset(
    ("\\alpha", "\\beta", "\\gamma", "\\delta", "\\epsilon", "\\theta", "\\lambda", "\\mu", "\\rho", "\\sigma", "\\phi")
)
_CALLED = frozenset("fghFGHPQT")
"""Letters that in front of a parenthesis are more likely a function than a factor."""
_CLOSES = {"(": ")", "[": "]", "{": "}"}


@dataclass(slots=True)
class FormulaReader:
    """One pass over tokens; `at` is where it stands, `is_decimal` whether a decimal point was seen.

    Args:
        sign: what a plus-minus sign means this time.
    """

    tokens: list[str]
    at: int = 0
    depth: int = 0
    is_decimal: bool = False
    sign: int = 1

    def read(self) -> Form:
        """The formula that starts here, as far as it goes.

        Raises:
            Unread: none starts here, or it can be read in more than one way.
            TooLarge: it passes a bound.
            ZeroDivisionError: it divides by zero.
        """
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unread(f"deeper than {MAX_DEPTH}")
        total = self._term()
        while self._next() in ("+", "-", "\\pm", "\\mp"):
            total = surds.add(total, self._term())
        self.depth -= 1
        return total

    def _next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _take(self, wanted: str) -> None:
        if self._next() != wanted:
            raise Unread(f"expected {wanted!r}, got {self._next()!r}")
        self.at += 1

    def _term(self) -> Form:
        sign = 1
        while self._next() in ("+", "-", "\\pm", "\\mp"):
            sign *= {"+": 1, "-": -1, "\\pm": self.sign, "\\mp": -self.sign}[self._next()]
            self.at += 1
        product = self._mixed() or self._factor()
        is_after_slash = False
        while True:
            token = self._next()
            if token in ("*", "/"):
                self.at += 1
                minus = self._next() == "-"
                self.at += minus
                factor = self._factor()
                factor = surds.negate(factor) if minus else factor
                product = surds.multiply(product, factor) if token == "*" else surds.divide(product, factor)
                is_after_slash = token == "/"
            elif self._starts_factor(token):
                # 1/2x is half of x to some and one over 2x to others; a number behind a factor is no product
                if is_after_slash or _NUMBER.fullmatch(token) or (self._is_number(self.at - 1) and token == "\\frac"):
                    raise Unread("can be read in more than one way")
                product = surds.multiply(product, self._factor())
            else:
                return product if sign > 0 else surds.negate(product)

    def _is_number(self, at: int) -> bool:
        return bool(_NUMBER.fullmatch(self.tokens[at]))

    def _starts_factor(self, token: str) -> bool:
        return bool(
            token in ("(", "{", "\\frac", "\\sqrt", "\\pi", "\\binom")
            or token in _GREEK
            or _LETTER.fullmatch(token)
            or _NUMBER.fullmatch(token)
        )

    def _mixed(self) -> Form | None:
        r"""A mixed number `3\frac{1}{2}` or `3 1/2`, if one stands here."""
        ahead = self.tokens[self.at : self.at + 8]
        if len(ahead) == 8 and ahead[1:3] == ["\\frac", "{"] and ahead[4:6] == ["}", "{"] and ahead[7] == "}":
            whole, top, bottom, length = ahead[0], ahead[3], ahead[6], 8
        elif len(ahead) >= 4 and ahead[2] == "/":
            whole, top, bottom, length = ahead[0], ahead[1], ahead[3], 4
        else:
            return None
        if not (whole.isdecimal() and top.isdecimal() and bottom.isdecimal()) or len(whole + top + bottom) > 60:
            return None
        if not 0 < int(top) < int(bottom):
            return None
        self.at += length
        return surds.number(int(whole) + Fraction(int(top), int(bottom)))

    def _factor(self) -> Form:
        base = self._base()
        while self._next() in ("^", "!"):
            token = self._next()
            self.at += 1
            base = surds.power(base, self._exponent()) if token == "^" else _factorial(base)
        return base

    def _exponent(self) -> Form:
        token = self._next()
        if token == "{":
            return self._braced()
        if len(token) == 1 and (token.isdecimal() or _LETTER.fullmatch(token)):
            self.at += 1
            return surds.number(int(token)) if token.isdecimal() else surds.letter(token)
        raise Unread(f"an exponent of several signs without braces, {token!r}")

    def _braced(self) -> Form:
        self._take("{")
        form = self.read()
        self._take("}")
        return form

    def _base(self) -> Form:
        token = self._next()
        self.at += 1
        if _NUMBER.fullmatch(token):
            return self._number(token)
        if token in _CLOSES:
            form = self.read()
            self._take(_CLOSES[token])
            return form
        if token == "\\frac":
            return surds.divide(self._braced(), self._braced())
        if token == "\\sqrt":
            return self._root()
        if token == "\\binom":
            return _binomial(self._braced(), self._braced())
        if token == "\\pi":
            return surds.letter("pi")
        if token in _GREEK or _LETTER.fullmatch(token):
            return self._letter(token)
        raise Unread(f"no formula starts with {token!r}")

    def _number(self, token: str) -> Form:
        is_repeating = self._next() == "\\overline"
        if len(token) > 200 or token.count(".") > 1 or (token.endswith((",", ".")) and not is_repeating):
            raise Unread(f"no number: {token[:40]!r}")
        whole, _, decimals = token.replace(",", "").partition(".")
        value = Fraction(int(whole + decimals), 10 ** len(decimals))
        if is_repeating and "." in token:
            value += self._repeating(len(decimals))
        elif decimals:
            self.is_decimal = True
        if self._next() == "_":
            raise Unread("a number with an index")
        return surds.number(value)

    def _repeating(self, places: int) -> Fraction:
        self.at += 1
        self._take("{")
        digits = self._next()
        if not digits.isdecimal() or len(digits) > 40:
            raise Unread(f"no repeating digits: {digits[:40]!r}")
        self.at += 1
        self._take("}")
        return Fraction(int(digits), (10 ** len(digits) - 1) * 10**places)

    def _root(self) -> Form:
        if self._next() == "[":
            if self.tokens[self.at + 1 : self.at + 3] != ["2", "]"]:
                raise Unread("a root that is no square root")
            self.at += 3
        return surds.square_root(self._braced())

    def _letter(self, token: str) -> Form:
        name = token.lstrip("\\")
        if self._next() == "_":
            self.at += 1
            name += "_" + self._index()
        if self._next() == "(" and token in _CALLED:
            raise Unread("a function or a product")
        if self._next() == "'":
            raise Unread("a derivative")
        return surds.letter(name)

    def _index(self) -> str:
        token = self._next()
        if token == "{" and self.tokens[self.at + 2 : self.at + 3] == ["}"]:
            token = self.tokens[self.at + 1]
            self.at += 2
        if not (token.isalnum() and token.isascii() and len(token) <= 20):
            raise Unread(f"an index that is no single sign: {token!r}")
        self.at += 1
        return token


def _factorial(base: Form) -> Form:
    value = base.rational
    if value is None or value.denominator != 1 or not 0 <= value <= MAX_FACTORIAL:
        raise TooLarge(f"a factorial of no integer from 0 to {MAX_FACTORIAL}")
    return surds.number(math.factorial(value.numerator))


def _binomial(top: Form, bottom: Form) -> Form:
    n, k = top.rational, bottom.rational
    if n is None or k is None or n.denominator != 1 or k.denominator != 1 or not 0 <= k <= n <= 200:
        raise TooLarge("a binomial coefficient of no small integers")
    return surds.number(math.comb(n.numerator, k.numerator))
