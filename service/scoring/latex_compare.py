"""Whether two answers in LaTeX are the same, where that is certain.

`compare` answers True or False only if it follows from exact arithmetic or from the texts; None means that it cannot
say, and a slower judge has to. Invariant: pure and bounded.
"""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

from service.scoring import surds
from service.scoring.latex_intervals import intervals_of, is_surely_set
from service.scoring.latex_values import UNITS, Based, Group, Matrix, Name, Quantity, Relation, Value, Words
from service.scoring.surds import TooLarge

_CONSTANTS = {"pi": math.pi, "e": math.e}
_NEAR = 1e-4
"""Relative distance [1] within which a decimal may be a rounded form of another number."""


def compare(reference: Value, answer: Value) -> bool | None:
    """Whether `answer` is the same as `reference`; None where that is not certain."""
    reference, answer = _unnamed(reference, answer)
    try:
        if is_surely_set(reference) or is_surely_set(answer):
            sets = intervals_of(reference), intervals_of(answer)
            if None not in sets:
                return sets[0] == sets[1]
        return _compare(reference, answer)
    except (TooLarge, ZeroDivisionError):
        return None


def _unnamed(reference: Value, answer: Value) -> tuple[Value, Value]:
    """Without `x =`, where only one side says it."""
    if isinstance(answer, Relation) and not isinstance(reference, Relation) and _only_names(answer):
        return reference, answer.right
    if isinstance(reference, Relation) and not isinstance(answer, Relation) and _only_names(reference):
        return reference.right, answer
    return reference, answer


def _only_names(relation: Relation) -> bool:
    return isinstance(relation.left, Name)


def _compare(reference: Value, answer: Value) -> bool | None:
    match reference, answer:
        case Quantity(), Quantity():
            return _same_quantity(reference, answer)
        case Words(), Words():
            is_reordered = sorted(reference.text) == sorted(answer.text)  # which a product of letters may be
            return reference.text == answer.text or (None if is_reordered else False)
        case (Words() as words, Quantity() as letter) | (Quantity() as letter, Words() as words):
            # a choice: \\text{(B)} and B
            name = "".join(letter.form.letters)
            is_choice = len(words.text) == len(name) == 1 and letter.form == surds.letter(name)
            return words.text == name.lower() if is_choice else None
        case Based(), Based():
            return reference == answer
        case (Based() as based, Quantity() as plain) | (Quantity() as plain, Based() as based):
            # a question that names its base need not be answered with it, and digits are what it asks for
            return plain.form.rational == int(based.digits) and not plain.is_decimal
        case Relation(), Relation():
            return _same_relation(reference, answer)
        case Matrix(), Matrix():
            return _same_matrix(reference, answer)
        case Group(), Group():
            return _same_group(reference, answer)
        case (Group() as group, Quantity() as single) | (Quantity() as single, Group() as group):
            return _same_group(group, Group("" if not group.is_ordered else group.brackets, (single,)))
        case _:
            return None


def _same_quantity(reference: Quantity, answer: Quantity) -> bool | None:
    if reference.unit != answer.unit and reference.unit and answer.unit:
        return _with_units(reference, answer)
    if surds.equal(reference.form, answer.form):
        # a percent sign or a scale word that one side has may be what the question already said
        return reference.scale == answer.scale or 1 in (reference.scale, answer.scale)
    return _same_scaled(reference, answer, Fraction(1))


def _with_units(reference: Quantity, answer: Quantity) -> bool | None:
    sizes = [_size(quantity.unit) for quantity in (reference, answer)]
    if sizes[0] is not None and sizes[1] is not None and sizes[0][0] == sizes[1][0]:
        return _same_scaled(reference, answer, sizes[1][1] / sizes[0][1])
    if None in sizes and reference.scale == answer.scale and surds.equal(reference.form, answer.form):
        return True
    return None


def _size(unit: str) -> tuple[str, Fraction] | None:
    name, _, power = unit.partition("^")
    if name not in UNITS:
        return None
    kind, factor = UNITS[name]
    return kind + power, factor ** int(power or 1)


def _same_scaled(reference: Quantity, answer: Quantity, factor: Fraction) -> bool | None:
    first = surds.multiply(reference.form, surds.number(reference.scale))
    second = surds.multiply(answer.form, surds.number(answer.scale * factor))
    if surds.equal(first, second):
        return True
    if surds.has_power_of(first, "i") or surds.has_power_of(second, "i"):
        return None  # which may be a number
    is_angle = (reference.unit == "°") != (answer.unit == "°")
    if is_angle and "pi" in first.letters | second.letters:
        return None
    if reference.is_decimal or answer.is_decimal:
        return None if _are_near(first, second) or _are_near(reference.form, answer.form, factor) else False
    return False


def _are_near(first: surds.Form, second: surds.Form, factor: Fraction = Fraction(1)) -> bool:
    """Whether one may be the other, rounded; forms with letters may."""
    a, b = surds.approximation(first, _CONSTANTS), surds.approximation(second, _CONSTANTS)
    return a is None or b is None or abs(a - b * float(factor)) <= _NEAR * max(abs(a), abs(b) * float(factor))


def _same_relation(reference: Relation, answer: Relation) -> bool | None:
    named = isinstance(reference.left, Name), isinstance(answer.left, Name)
    if all(named):
        same = _compare(reference.right, answer.right)
        return same if reference.left == answer.left and reference.operator == answer.operator else None
    if reference.operator != answer.operator:
        return None
    differences: list[surds.Form] = []
    for relation in (reference, answer):
        left, right = relation.left, relation.right
        if isinstance(left, Name) and len(left.text) == 1:
            left = Quantity(surds.letter(left.text))
        if not isinstance(left, Quantity) or not isinstance(right, Quantity) or left.scale != 1 or right.scale != 1:
            return None
        differences.append(surds.add(left.form, surds.negate(right.form)))
    ratio = surds.ratio(*differences)
    if ratio is not None and (ratio > 0 or reference.operator == "="):
        return True
    return None


def _same_matrix(reference: Matrix, answer: Matrix) -> bool | None:
    if [len(row) for row in reference.rows] != [len(row) for row in answer.rows]:
        return None
    pairs = zip(reference.rows, answer.rows, strict=True)
    return _elementwise(_compare(a, b) for left, right in pairs for a, b in zip(left, right, strict=True))


def _elementwise(found: Iterable[bool | None]) -> bool | None:
    """False as soon as one is, None if one is not certain."""
    is_certain = True
    for result in found:
        if result is False:
            return False
        is_certain = is_certain and result is not None
    return True if is_certain else None


def _same_group(reference: Group, answer: Group) -> bool | None:
    if reference.is_ordered and answer.is_ordered:
        if len(reference.items) != len(answer.items):
            return False if reference.brackets == answer.brackets else None
        same = _elementwise(_compare(a, b) for a, b in zip(reference.items, answer.items, strict=True))
        return same if reference.brackets == answer.brackets or same is False else None
    if reference.is_ordered or answer.is_ordered or "U" in (reference.brackets, answer.brackets):
        is_union = reference.brackets == answer.brackets == "U"
        return True if is_union and _same_members(reference.items, answer.items) else None
    return _same_members(reference.items, answer.items)


def _same_members(reference: Sequence[Value], answer: Sequence[Value]) -> bool | None:
    """Whether every member of each has its like in the other."""
    if not _are_alike(reference, answer):
        return None
    table = [[_member(a, b) for b in answer] for a in reference]
    results = [*map(_any, table), *map(_any, zip(*table, strict=True))]
    return _elementwise(results)


def _are_alike(reference: Sequence[Value], answer: Sequence[Value]) -> bool:
    """Whether names do not matter, for there is at most one, or all members of both sides have theirs."""
    relations = [item for item in (*reference, *answer) if isinstance(item, Relation)]
    return len({relation.left for relation in relations}) < 2 or len(relations) == len(reference) + len(answer)


def _member(reference: Value, answer: Value) -> bool | None:
    return _compare(*_unnamed(reference, answer))


def _any(found: Sequence[bool | None]) -> bool | None:
    if any(found):
        return True
    return None if None in found else False


def canonical(value: Value) -> str | None:
    """Text that is equal for equal values where they have such a text, or None."""
    match value:
        case Quantity():
            text = surds.to_text(value.form)
            if text is None or value.scale == 1:
                return text
            if value.scale < 1:
                return f"{text}%"
            return surds.to_text(surds.multiply(value.form, surds.number(value.scale)))
        case Words():
            return value.text
        case Based():
            return f"{value.digits}_{value.base}"
        case Group():
            parts = [canonical(item) for item in value.items]
            if None in parts:
                return None
            texts = [part for part in parts if part is not None]
            marks = value.brackets if value.is_ordered else "{}"
            return marks[0] + ",".join(texts if value.is_ordered else sorted(set(texts))) + marks[1]
        case Relation():
            return canonical(value.right) if isinstance(value.left, Name) else None
        case Matrix():
            rows = [canonical(Group("[]", row)) for row in value.rows]
            return None if None in rows else "[" + ",".join(row for row in rows if row) + "]"
