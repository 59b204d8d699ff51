"""What an answer in LaTeX can be: a number or formula, words, several of these in brackets, a matrix, a relation.

Invariant: immutable, and equal text gives equal values. Pure.
"""

from dataclasses import dataclass
from fractions import Fraction

from service.scoring.surds import Form

SCALES = {
    "%": Fraction(1, 100), "percent": Fraction(1, 100), "hundred": Fraction(100), "thousand": Fraction(10**3),
    "million": Fraction(10**6), "billion": Fraction(10**9), "trillion": Fraction(10**12),
}  # fmt: skip

_UNITS = {
    "length": {
        "mm millimeter": Fraction(1, 1000), "cm centimeter": Fraction(1, 100), "m meter": 1, "km kilometer": 1000,
    },
    "us length": {"in inch": 1, "ft foot feet": 12, "yd yard": 36, "mi mile": 63360},
    "mass": {"mg milligram": Fraction(1, 1000), "g gram": 1, "kg kilogram": 1000},
    "us mass": {"oz ounce": 1, "lb pound": 16},
    "time": {"s sec second": 1, "min minute": 60, "h hr hour": 3600, "day": 86400, "week": 604800},
    "money": {"cent": 1, "dollar": 100},
    "volume": {"ml milliliter": 1, "l liter": 1000},
    "speed": {"m/s": Fraction(36, 10), "km/h kmh": 1},
    "us speed": {"mph": 1},
    "angle": {"° degree": 1},
}  # fmt: skip
UNITS = {
    name: (kind, Fraction(factor))
    for kind, units in _UNITS.items()
    for names, factor in units.items()
    for name in names.split()
}
"""Kind and size of units by name. Units of different kinds are not compared, for a kind is one system's here."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number or formula.

    Attributes:
        form: its exact value, without scale and unit.
        is_decimal: written with a decimal point, so that it may be rounded.
        scale: 1, or what a percent sign or a word such as "million" multiplies by.
        unit: singular and lower case, with its power (`cm^2`); empty for none.
    """

    form: Form
    is_decimal: bool = False
    scale: Fraction = Fraction(1)
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Based:
    """Digits with a base, `1011_2`."""

    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Words:
    """Words, in the form they are compared in."""

    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """Several answers.

    Attributes:
        brackets: `()`, `[)` and so on; `{}` for a set, empty for a bare list, `U` for a union.
    """

    brackets: str
    items: tuple["Value", ...]

    @property
    def is_ordered(self) -> bool:
        """Whether the order of its items means something."""
        return self.brackets not in ("", "{}", "U")


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix, whatever its brackets."""

    rows: tuple[tuple["Value", ...], ...]


@dataclass(frozen=True, slots=True)
class Name:
    """What stands left of an equals sign and is only called so: `f(x)`, `A_{max}`."""

    text: str


@dataclass(frozen=True, slots=True)
class Relation:
    r"""One relation: its operator is one of `=`, `<`, `\\le`, `in`; greater than is turned around."""

    operator: str
    left: "Value | Name"
    right: "Value"


Value = Quantity | Based | Words | Group | Matrix | Relation
