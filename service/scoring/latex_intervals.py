r"""Sets of real numbers, as intervals with rational ends: whether two ways to write one are the same set.

Reads intervals, unions of them and inequalities in one letter. `(1,2)` alone may be a point as well, so a caller has to
know that one side is no point. Invariant: exact. Pure.
"""

from collections.abc import Iterable
from fractions import Fraction

from service.scoring import surds
from service.scoring.latex_values import Group, Name, Quantity, Relation, Value

End = tuple[int, Fraction, int]
"""-1, 0 or 1 for minus infinity, a number, infinity; the number; and where at it: -1 before, 0 on, 1 behind it."""
Intervals = tuple[tuple[End, End], ...]
"""Disjoint, ascending: where each begins and where it is over."""

_ZERO = Fraction(0)
_INFINITY = surds.letter("infinity")


def is_surely_set(value: Value) -> bool:
    """Whether it can be nothing but a set of numbers: an infinite end, half open, a union or an inequality."""
    if isinstance(value, Relation):
        return value.operator in ("<", "\\le") or (value.operator == "\\in" and is_surely_set(value.right))
    if not isinstance(value, Group):
        return False
    if value.brackets == "U":
        return True
    is_half_open = value.brackets in ("[)", "(]")
    return is_half_open or any(isinstance(item, Quantity) and "infinity" in item.form.letters for item in value.items)


def intervals_of(value: Value) -> Intervals | None:
    """The set that `value` is, or None if it is none of those that are read here."""
    if isinstance(value, Relation) and value.operator == "\\in":
        return intervals_of(value.right)
    if isinstance(value, Relation):
        found = _inequality(value)
        return None if found is None else _joined([found])
    if not isinstance(value, Group):
        return None
    parts = [_interval(part) for part in (value.items if value.brackets == "U" else (value,))]
    return None if None in parts else _joined(part for part in parts if part is not None)


def _joined(parts: Iterable[tuple[End, End]]) -> Intervals:
    joined: list[tuple[End, End]] = []
    for begin, end in sorted(parts):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return tuple(joined)


def _interval(value: Value) -> tuple[End, End] | None:
    if not isinstance(value, Group) or value.brackets not in ("()", "[)", "(]", "[]") or len(value.items) != 2:
        return None
    begin = _end(value.items[0], place=0 if value.brackets[0] == "[" else 1)
    end = _end(value.items[1], place=1 if value.brackets[1] == "]" else 0)
    # what ends before it begins is no interval, whatever it is
    return None if begin is None or end is None or begin >= end else (begin, end)


def _end(value: Value, *, place: int) -> End | None:
    if not isinstance(value, Quantity) or value.scale != 1:
        return None
    if value.form == _INFINITY:
        return (1, _ZERO, 0)
    if value.form == surds.negate(_INFINITY):
        return (-1, _ZERO, 0)
    number = value.form.rational
    return None if number is None else (0, number, place)


def _inequality(value: Relation) -> tuple[End, End] | None:
    if value.operator not in ("<", "\\le") or isinstance(value.left, Name):
        return None
    left, right = value.left, value.right
    if not isinstance(left, Quantity) or not isinstance(right, Quantity):
        return None
    is_closed = value.operator == "\\le"
    for letter, bound, is_below in ((left, right, True), (right, left, False)):
        names = letter.form.letters
        number = bound.form.rational
        if len(names) == 1 and letter.form == surds.letter(*names) and number is not None and bound.scale == 1:
            if is_below:
                return (-1, _ZERO, 0), (0, number, 1 if is_closed else 0)
            return (0, number, 0 if is_closed else 1), (1, _ZERO, 0)
    return None
