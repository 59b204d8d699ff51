r"""Reads one answer in LaTeX into a `Value`, or refuses.

Reads only what has one meaning; everything else is `Unread` and left to a slower judge. Invariant: bounded as
`latex_tokens` and `latex_formulas` are. Pure.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from service.scoring import surds
from service.scoring.latex_formulas import FormulaReader
from service.scoring.latex_tokens import Unread, tidy, tight, tokens_of
from service.scoring.latex_values import SCALES, UNITS, Based, Group, Matrix, Name, Quantity, Relation, Value, Words
from service.scoring.plaintext import comparable
from service.scoring.surds import TooLarge

_SIMPLE = re.compile(r"-? ?(?:[0-9]{1,30}|[0-9]{1,3}(?:,[0-9]{3}){1,6})")
_SIMPLE_FRACTION = re.compile(r"(-? ?)(?:\\frac\{([0-9]{1,30})\}\{([0-9]{1,30})\}|([0-9]{1,30}) ?/ ?([0-9]{1,30}))")
_MATRICES = ("\\begin{pmatrix}", "\\begin{bmatrix}", "\\begin{matrix}")
_OPEN = frozenset(("(", "[", "{", "\\{"))
_CLOSE = frozenset((")", "]", "}", "\\}"))
_AND = re.compile(r",? ?\\text\{ ?(?:,? ?and|,? ?or) ?\}|(?<=[\s\d)}$]),? (?:and|or)(?= )")
_RELATIONS = frozenset(("=", "<", ">", "\\le", "\\ge", "\\in"))
_REFUSED = frozenset(("\\ne", "\\approx", "\\sim", ":", "|", "\\mid", "\\to", "\\equiv", "\\implies", "\\iff"))
_NAME = re.compile(
    r"[A-Za-z](?:_\{?[A-Za-z0-9]+\}?)?(?:\([a-z](?:,[a-z])*\))?'?|\\text\{[A-Za-z ]+\}|\\angle[A-Z]{1,3}"
    r"|\([a-z](?:,[a-z])+\)"
)
# short ones without a space may be a product of letters
_PLAIN_WORDS = re.compile(
    r"[A-Za-z]{5,}|(?i:yes|no|true|false|even|odd|none|east|west)|[A-Za-z'-]+(?: [A-Za-z'-]{2,})+"
)
_WORD_UNIT = re.compile(r"(?<=[0-9}) ]) ?((?:[A-Za-z]{3,}|(?<= )(?:cm|mm|km|kg|ft|in|lb|oz|ml|mi|yd|m|g|s|h|L))"
                        r"(?: [A-Za-z]+){0,3}(?:\^\{?[23]\}?)?)$")  # fmt: skip
_UNIT_POWER = re.compile(r"\^\{?([23])\}?")
_COMMAS = re.compile(r"[0-9]{1,3}(?:, ?[0-9]{3})+")
_NAME_BY_SHORT_POWER = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}


def read_value(text: str) -> Value:
    """The value of one answer.

    Raises:
        Unread: it is not of the kind that is read here, or can be read in more than one way.
    """
    is_dollars = text.lstrip(" $-").startswith("\\$")
    text = tidy(text)
    try:
        value = _quick(text) or _value(text)
        if is_dollars and isinstance(value, Quantity) and not value.unit:
            return replace(value, unit="dollar")
        return value
    except (TooLarge, ZeroDivisionError, RecursionError) as error:
        raise Unread(str(error)) from error


def _quick(text: str) -> Value | None:
    """Integers and fractions of them, which most answers are."""
    if _SIMPLE.fullmatch(text):
        return Quantity(surds.number(int(text.replace(",", "").replace(" ", ""))))
    found = _SIMPLE_FRACTION.fullmatch(text)
    if found is None:
        return None
    value = Fraction(int(found[2] or found[4]), int(found[3] or found[5]))
    return Quantity(surds.number(-value if found[1] else value))


def _value(text: str) -> Value:
    text = _AND.sub(" , ", text)
    if _PLAIN_WORDS.fullmatch(text) or (text.startswith("\\text{") and text.find("}") == len(text) - 1):
        return Words(comparable(text))
    unit = ""
    words = _WORD_UNIT.search(text)
    if words is not None:
        text, unit = text[: words.start()], words[1]
    tokens = tokens_of(text)
    if unit:
        return _quantity(tokens, unit)
    return _read(tokens)


def _read(tokens: list[str]) -> Value:
    if not tokens:
        raise Unread("nothing")
    if tokens[0] in _MATRICES:
        return _matrix(tokens)
    for separator, brackets in (("\\cup", "U"), (",", ""), (";", "")):
        parts = _split(tokens, separator)
        if len(parts) > 1:
            return _group(brackets, parts)
    if _REFUSED.intersection(tokens):
        raise Unread("a sign that is not read")
    relation = _relation(tokens)
    if relation is not None:
        return relation
    return (_wrapped(tokens) if _is_wrapped(tokens) else None) or _single(tokens)


def _wrapped(tokens: list[str]) -> Value | None:
    """What stands in brackets, or None for one formula in parentheses."""
    if tokens[1] in _MATRICES:
        return _matrix(tokens[1:-1])
    inside = _split(tokens[1:-1], ",")
    if tokens[0] == "\\{":
        return _group("{}", inside)
    return _group(tokens[0] + tokens[-1], inside) if len(inside) > 1 else None


def _single(tokens: list[str]) -> Value:
    if tokens[-1] == "\\infty" and tokens[:-1] in ([], ["-"], ["+"]):
        infinity = surds.letter("infinity")
        return Quantity(surds.negate(infinity) if tokens[0] == "-" else infinity)
    if len(tokens) == 1 and tokens[0].startswith("\\text{"):
        return Words(comparable(tokens[0]))
    return _quantity(tokens, "")


def _split(tokens: Sequence[str], separator: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    depth = 0
    for token in tokens:
        depth += (token in _OPEN or token.startswith("\\begin")) - (token in _CLOSE or token.startswith("\\end"))
        if depth < 0:
            raise Unread("brackets that do not match")
        if token == separator and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    if depth:
        raise Unread("brackets that do not match")
    return parts


def _is_wrapped(tokens: list[str]) -> bool:
    """Whether the bracket that opens first closes last."""
    if tokens[0] not in ("(", "[", "\\{") or tokens[-1] not in (")", "]", "\\}"):
        return False
    if (tokens[0] == "\\{") != (tokens[-1] == "\\}"):
        return False
    depth = 0
    for token in tokens[:-1]:
        depth += (token in _OPEN) - (token in _CLOSE)
        if depth == 0:
            return False
    return True


def _group(brackets: str, parts: list[list[str]]) -> Group:
    if brackets == "" and not parts[-1]:
        parts = parts[:-1]
    if brackets == "" and _COMMAS.fullmatch(",".join("".join(part) for part in parts)):
        raise Unread("a list, or a number with spaces in it")
    items: list[Value] = []
    for part in parts:
        item = _read(part)
        if isinstance(item, Group) and item.brackets == "":
            # plus-minus gives two answers, of which a list has both
            if brackets not in ("", "{}"):
                raise Unread("plus-minus in a tuple")
            items += item.items
        else:
            items.append(item)
    return Group(brackets, tuple(items))


def _relation(tokens: list[str]) -> Relation | None:
    signs = [(index, token) for index, token in enumerate(tokens) if token in _RELATIONS]
    if not signs:
        return None
    if len(signs) > 1:
        raise Unread("a chain of relations")
    at, sign = signs[0]
    before, after = tokens[:at], tokens[at + 1 :]
    if sign in (">", "\\ge"):
        return Relation({">": "<", "\\ge": "\\le"}[sign], _side(after), _side(before))
    name = "".join(before)
    is_name = sign in ("=", "\\in") and bool(_NAME.fullmatch(name))
    return Relation(sign, Name(name) if is_name else _side(before), _read(after) if is_name else _side(after))


def _side(tokens: list[str]) -> Quantity:
    value = _read(tokens)
    if not isinstance(value, Quantity):
        raise Unread("a relation of no numbers")
    return value


def _matrix(tokens: list[str]) -> Matrix:
    if tokens[-1] != tokens[0].replace("begin", "end"):
        raise Unread("more than a matrix")
    rows = [row for row in _split(tokens[1:-1], "\\cr") if row]
    cells = tuple(tuple(_read(cell) for cell in _split(row, "&")) for row in rows)
    if not cells or len({len(row) for row in cells}) > 1:
        raise Unread("rows of different length")
    return Matrix(cells)


def _quantity(tokens: list[str], unit: str) -> Value:
    based = _based(tokens)
    if based is not None:
        return based
    if "\\pm" in tokens or "\\mp" in tokens:
        if unit:
            raise Unread("plus-minus with a unit")
        return Group("", tuple(_signed(tokens, unit, sign) for sign in (1, -1)))
    return _signed(tokens, unit, 1)


def _signed(tokens: list[str], unit: str, sign: int) -> Quantity:
    reader = FormulaReader(tokens, sign=sign)
    form = reader.read()
    rest = tokens[reader.at :]
    scale = Fraction(1)
    if rest[:1] == ["%"]:
        scale, rest = SCALES["%"], rest[1:]
    if rest[:1] == ["°"]:
        unit, rest = unit or "°", rest[1:]
    if rest[:1] and rest[0].startswith("\\text{"):
        power = "".join(rest[1:])
        if unit or (power and not _UNIT_POWER.fullmatch(power)):
            raise Unread("something behind a unit")
        unit, rest = rest[0][6:-1] + power, []
    if rest:
        raise Unread(f"something behind a formula: {rest[0]!r}")
    factor, unit = _unit(unit)
    return Quantity(form, reader.is_decimal, scale * factor, unit)


def _unit(text: str) -> tuple[Fraction, str]:
    """Scale and canonical name of a unit: `square centimeters` is `cm^2`, `million dollars` a scale and a unit."""
    words = text.lower().replace(".", " ").split()
    scale = Fraction(1)
    if words and words[0] in SCALES:
        scale, words = SCALES[words[0]], words[1:]
    power = ""
    if words and words[0] in _NAME_BY_SHORT_POWER:
        power, words = f"^{_NAME_BY_SHORT_POWER[words[0]]}", words[1:]
    name = " ".join(words)
    found = _UNIT_POWER.search(name)
    if found is not None:
        name, power = name[: found.start()], f"^{found[1]}"
    if name not in UNITS:
        name = {"inches": "inch", "feet": "foot"}.get(name, name.removesuffix("s"))
    return scale, name + power


def _based(tokens: list[str]) -> Based | None:
    if len(tokens) < 3 or tokens[1] != "_" or not tokens[0].isdecimal():
        return None
    base = "".join(tokens[2:]).strip("{}")
    if not base.isdecimal() or not 2 <= int(base[:3]) <= 36:
        raise Unread("an index that is no base")
    return Based(tokens[0].lstrip("0") or "0", int(base))


def tight_text(text: str) -> str:
    """Tidied text without spaces."""
    return tight(tidy(text))
