"""Reads one number out of a short text, the way people and models write final answers.

Invariant: values are exact (int or Fraction, never float) and work is bounded by the constants below, so `9e999999999`
or a million digits cost nothing. Pure; imports nothing of the project.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 400
MAX_EXPONENT = 400

# 1,234,567 or 12,34,567 (Indian) or 1 234 567 or plain digits; `3,5` is none of them
_INT = (
    r"\d{1,3}(?:,\d{3})++(?!,?\d)|\d{1,2}(?:,\d{2})+,\d{3}(?!,?\d)"
    r"|\d{1,3}(?: \d{3})++(?!\d|[,.]\d| ?/)|\d++(?!,\d)"
)
_DECIMAL = rf"(?:(?:{_INT})(?:\.\d+)?|\.\d+)"
_EXPONENT = r"(?:[eE](?P<exp>[-+]?\d+)|\*10\^\{?(?P<power>[-+]?\d+)\}?)"
_NUMBER = re.compile(
    r"(?P<sign>[-+]?) ?(?P<currency>[$€£¥₹]|(?:USD|EUR|GBP|US\$|Rs\.?) ?)? ?(?P<sign2>[-+]?)"
    rf"(?:(?P<mixed>\d+) (?P<mnum>\d+)/(?P<mden>\d+)|(?P<num>{_DECIMAL})/(?P<den>{_DECIMAL})"
    rf"|(?P<plain>{_DECIMAL}){_EXPONENT}?)",
    re.ASCII,
)
# what may not follow a number that is the whole answer: more mathematics, a ratio, a time, a list, an alternative
_NOT_ALONE = re.compile(
    r" ?[*×·/+:=] ?[-\d($.\\]| ?x ?\d| ?-{1,2} ?[\d$.]| ?(?:\\?(?:sqrt|pi)(?![a-zA-Z])|[√π])|[(_^]\S|[xyzn](?![a-zA-Z])"
    r"|,? ?(?:or|and) [-$]?\d|[,;]? ?[-$]{0,2}\d"
)
_SCALE = re.compile(
    r" ?(?:(?P<percent>%|percent\b|per cent\b)|(?P<word>thousand|million|billion|trillion)s?\b)", re.IGNORECASE
)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number as written.

    Attributes:
        value: the number in front of any percent sign or scale word.
        scale: 1, or what the percent sign (1/100) or scale word ("million") multiplies by.
        rest: the text that follows, such as a unit.
        end: where the number, scale included, ends in the text it was read from.
    """

    value: Fraction
    scale: Fraction
    rest: str
    end: int

    def equals(self, other: "Numeral") -> bool:
        """Whether two answers mean the same number.

        A percent sign or scale word that only one side has may be a unit the question already stated (`50%` answers
        "how many percent?" like `50`) or a factor (`50%` is `1/2`): either reading is accepted. If both sides have
        one, the scaled values must be equal.
        """
        if self.value == other.value:
            return self.scale == other.scale or 1 in (self.scale, other.scale)
        return self.value * self.scale == other.value * other.scale

    def canonical(self) -> str:
        """Text that is equal for equal values: `18`, `-2.5`, `1/3`, `50%`."""
        if self.scale == 1:
            return _decimal_text(self.value)
        return _decimal_text(self.value) + "%" if self.scale < 1 else _decimal_text(self.value * self.scale)


def read_numeral(text: str, at: int = 0) -> Numeral | None:
    r"""The number that stands at `at`, or None if none stands there for itself.

    A number that goes on as an expression (`2x`, `3*4`, `5-6`, `3:30`, `5\sqrt{2}`), a list or a choice (`5 or 6`)
    is none: a reader who takes its first figure would reward hedging.

    Args:
        text: plain text as `service.scoring.plaintext.plain` makes it.
    """
    match = _NUMBER.match(text, at)
    if match is None or match.end() - at > MAX_DIGITS or _NOT_ALONE.match(text, match.end()):
        return None
    value = _value(match)
    if value is None:
        return None
    scale, end = Fraction(1), match.end()
    scaled = _SCALE.match(text, end)
    if scaled is not None:
        scale = Fraction(1, 100) if scaled["percent"] else Fraction(_SCALES[scaled["word"].lower()])
        end = scaled.end()
        if _NOT_ALONE.match(text, end):
            return None
    return Numeral(value=value, scale=scale, rest=text[end:], end=end)


def last_numeral(text: str) -> Numeral | None:
    """The last number of `text`, or None if there is none or the last one does not stand for itself."""
    last: re.Match[str] | None = None
    for last in _NUMBER.finditer(text):  # noqa: B007  the loop only finds the last match
        pass
    if last is None:
        return None
    is_range = bool(last["sign"]) and text[last.start() - 1 : last.start()].isalnum()
    return read_numeral(text, last.start() + 1 if is_range else last.start())


def count_numerals(text: str) -> int:
    """How many numbers `text` holds, whether they stand for themselves or not."""
    return sum(1 for _ in _NUMBER.finditer(text))


def _value(match: re.Match[str]) -> Fraction | None:
    if match["mixed"]:
        denominator = int(match["mden"])
        value = int(match["mixed"]) + Fraction(int(match["mnum"]), denominator) if denominator else None
    elif match["num"]:
        denominator = _decimal(match["den"])
        value = _decimal(match["num"]) / denominator if denominator else None
    else:
        value = _decimal(match["plain"])
        exponent = int(match["exp"] or match["power"] or 0)
        if exponent:
            value = value * Fraction(10) ** exponent if abs(exponent) <= MAX_EXPONENT else None
    is_negative = "-" in (match["sign"], match["sign2"])
    return -value if is_negative and value is not None else value


def _decimal(text: str) -> Fraction:
    whole, _, decimals = text.replace(",", "").replace(" ", "").partition(".")
    return Fraction(int(whole + decimals), 10 ** len(decimals)) if decimals else Fraction(int(whole))


def _decimal_text(value: Fraction) -> str:
    """Terminating decimals as decimals, other fractions as p/q."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, twos, fives = value.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest != 1 or places > 30:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' if value < 0 else ''}{digits[:-places]}.{digits[-places:]}"
