"""Exact arithmetic on closed forms: quotients of rational polynomials in letters, pi and square roots.

Invariant: two forms are `equal` if and only if they are the same function of their letters, because square roots of
different square-free integers are linearly independent over the rationals and letters and pi are taken for
transcendental. `i` is a letter like any other, so a caller must not trust a difference in which a power of it takes
part. Work is bounded by the constants below: what passes one raises TooLarge. Pure; must not use float for a decision.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

MAX_TERMS = 40
MAX_BITS = 2048
MAX_POWER = 12
MAX_MONOMIAL_POWER = 400
MAX_RADICAND = 10**8

Monomial = tuple[int, tuple[tuple[str, int], ...]]
"""A square-free radicand (1 for none) and the powers of letters, by name, none of them zero."""

_ONE: Monomial = (1, ())


class TooLarge(ValueError):
    """The form, or what it takes to compute it, passes a bound of this module or is not of this kind."""


@dataclass(frozen=True, slots=True)
class Form:
    """A quotient of two sums of terms.

    Attributes:
        top: coefficient by monomial, none of them zero; empty for zero.
        bottom: the same, never empty; one term always has been divided into `top`.
    """

    top: Mapping[Monomial, Fraction]
    bottom: Mapping[Monomial, Fraction]

    @property
    def rational(self) -> Fraction | None:
        """Its value, if it is a rational number and shows it."""
        if not self.top:
            return Fraction(0)
        if len(self.top) == 1 and self.bottom == {_ONE: Fraction(1)}:
            return self.top.get(_ONE)
        return None

    @property
    def letters(self) -> frozenset[str]:
        """The letters in it."""
        terms = (*self.top, *self.bottom)
        return frozenset(name for _, powers in terms for name, _ in powers)


def number(value: Fraction | int) -> Form:
    """A rational number.

    Raises:
        TooLarge: it has more digits than are worked with.
    """
    return _quotient({_ONE: Fraction(value)} if value else {}, {_ONE: Fraction(1)})


def letter(name: str) -> Form:
    """A variable or constant that nothing is known of."""
    return Form({(1, ((name, 1),)): Fraction(1)}, {_ONE: Fraction(1)})


def add(a: Form, b: Form) -> Form:
    """Their sum; raises TooLarge."""
    if a.bottom == b.bottom:
        return _quotient(_sum(a.top, b.top), a.bottom)
    return _quotient(_sum(_product(a.top, b.bottom), _product(b.top, a.bottom)), _product(a.bottom, b.bottom))


def negate(a: Form) -> Form:
    """Minus `a`."""
    return Form({monomial: -value for monomial, value in a.top.items()}, a.bottom)


def multiply(a: Form, b: Form) -> Form:
    """Their product; raises TooLarge."""
    return _quotient(_product(a.top, b.top), _product(a.bottom, b.bottom))


def divide(a: Form, b: Form) -> Form:
    """Their quotient; raises TooLarge, and ZeroDivisionError."""
    if not b.top:
        raise ZeroDivisionError("division by zero")
    return _quotient(_product(a.top, b.bottom), _product(a.bottom, b.top))


def power(a: Form, exponent: Form) -> Form:
    """`a` to an integer or half an integer; raises TooLarge for others, and ZeroDivisionError."""
    value = exponent.rational
    if value is None or value.denominator > 2 or abs(value) > MAX_MONOMIAL_POWER:
        raise TooLarge("the exponent is no small integer")
    if value.denominator == 2:
        return power(square_root(a), number(value * 2))
    count = value.numerator
    if not a.top and count <= 0:
        raise ZeroDivisionError("zero to no positive power")
    is_sum = len(a.top) > 1 or len(a.bottom) > 1
    if is_sum and abs(count) > MAX_POWER:
        raise TooLarge(f"a sum to a power above {MAX_POWER}")
    base = a if count >= 0 else divide(number(1), a)
    result = number(1)
    for bit in bin(abs(count))[2:]:
        result = multiply(result, result)
        if bit == "1":
            result = multiply(result, base)
    return result


def square_root(a: Form) -> Form:
    """The square root of a rational number that is not negative; raises TooLarge for anything else."""
    value = a.rational
    if value is None or value < 0:
        raise TooLarge("the square root of no positive rational")
    if not value:
        return a
    square, radicand = _square_part(value.numerator * value.denominator)
    return _quotient({(radicand, ()): Fraction(square, value.denominator)}, {_ONE: Fraction(1)})


def equal(a: Form, b: Form) -> bool:
    """Whether they are the same; raises TooLarge."""
    if a.bottom == b.bottom:
        return a.top == b.top
    return _product(a.top, b.bottom) == _product(b.top, a.bottom)


def ratio(a: Form, b: Form) -> Fraction | None:
    """The rational number that makes `a` of `b`, if there is one other than zero and it shows."""
    if a.bottom != b.bottom or a.top.keys() != b.top.keys():
        return None
    ratios = {value / b.top[monomial] for monomial, value in a.top.items()}
    return ratios.pop() if len(ratios) == 1 else None


def has_power_of(a: Form, name: str) -> bool:
    """Whether a letter occurs otherwise than once in a term above the line."""
    powers = [exponent for _, letters in a.top for letter_name, exponent in letters if letter_name == name]
    return any(exponent != 1 for exponent in powers) or any(name in dict(letters) for _, letters in a.bottom)


def approximation(a: Form, constants: Mapping[str, float]) -> float | None:
    """Its value as a float, or None if it has a letter that is not among `constants` or does not fit a float."""
    if a.letters - constants.keys():
        return None
    try:
        return _approximate(a.top, constants) / _approximate(a.bottom, constants)
    except (OverflowError, ZeroDivisionError):
        return None


def to_text(a: Form) -> str | None:
    """Text that is equal for equal forms; None for a quotient of sums, which can be written in many ways."""
    if len(a.bottom) > 1:
        return None
    if not a.top:
        return "0"
    terms = [_term_text(monomial, value) for monomial, value in sorted(a.top.items(), key=_term_order)]
    return "".join(term if term.startswith("-") or index == 0 else f"+{term}" for index, term in enumerate(terms))


def _term_order(term: tuple[Monomial, Fraction]) -> tuple[int, Monomial]:
    """Higher degrees first, plain numbers last."""
    monomial, _ = term
    return (-sum(exponent for _, exponent in monomial[1]), (-monomial[0], monomial[1]))


def _term_text(monomial: Monomial, value: Fraction) -> str:
    radicand, powers = monomial
    factors = [f"sqrt({radicand})"] if radicand > 1 else []
    factors += [name if exponent == 1 else f"{name}^{exponent}" for name, exponent in powers]
    if not factors or abs(value) != 1:
        factors.insert(0, str(abs(value)))
    return ("-" if value < 0 else "") + "*".join(factors)


def _approximate(terms: Mapping[Monomial, Fraction], constants: Mapping[str, float]) -> float:
    return math.fsum(
        float(value) * math.sqrt(radicand) * math.prod(constants[name] ** exponent for name, exponent in powers)
        for (radicand, powers), value in terms.items()
    )


def _quotient(top: Mapping[Monomial, Fraction], bottom: Mapping[Monomial, Fraction]) -> Form:
    if len(bottom) == 1:
        ((radicand, powers), value) = next(iter(bottom.items()))
        if value != 1 or radicand != 1 or powers:
            inverse: Monomial = (radicand, tuple((name, -exponent) for name, exponent in powers))
            top = _product(top, {inverse: 1 / (value * radicand)})
        bottom = {_ONE: Fraction(1)}
    for terms in (top, bottom):
        if len(terms) > MAX_TERMS:
            raise TooLarge(f"more than {MAX_TERMS} terms")
        for value in terms.values():
            if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
                raise TooLarge(f"a coefficient of more than {MAX_BITS} bits")
    return Form(top, bottom)


def _sum(a: Mapping[Monomial, Fraction], b: Mapping[Monomial, Fraction]) -> dict[Monomial, Fraction]:
    total = dict(a)
    for monomial, value in b.items():
        summed = total.get(monomial, Fraction(0)) + value
        if summed:
            total[monomial] = summed
        else:
            del total[monomial]
    return total


def _product(a: Mapping[Monomial, Fraction], b: Mapping[Monomial, Fraction]) -> dict[Monomial, Fraction]:
    if len(a) * len(b) > MAX_TERMS**2:
        raise TooLarge(f"a product of {len(a)} by {len(b)} terms")
    total: dict[Monomial, Fraction] = {}
    for left, left_value in a.items():
        for right, right_value in b.items():
            monomial, factor = _monomial_product(left, right)
            summed = total.get(monomial, Fraction(0)) + left_value * right_value * factor
            if summed:
                total[monomial] = summed
            else:
                total.pop(monomial, None)
    return total


def _monomial_product(a: Monomial, b: Monomial) -> tuple[Monomial, int]:
    if a == _ONE:
        return b, 1
    if b == _ONE:
        return a, 1
    shared = math.gcd(a[0], b[0])
    radicand = a[0] * b[0] // shared**2
    if radicand > MAX_RADICAND**2:
        raise TooLarge("a radicand of too many digits")
    powers = dict(a[1])
    for name, exponent in b[1]:
        powers[name] = powers.get(name, 0) + exponent
        if abs(powers[name]) > MAX_MONOMIAL_POWER:
            raise TooLarge(f"a power above {MAX_MONOMIAL_POWER}")
    return (radicand, tuple(sorted((name, exponent) for name, exponent in powers.items() if exponent))), shared


@lru_cache(maxsize=4096)  # trial division takes up to 10,000 steps, and the same few radicands come again and again
def _square_part(value: int) -> tuple[int, int]:
    """`(s, r)` with value = s^2 r and r square-free."""
    if value > MAX_RADICAND:
        root = math.isqrt(value)
        if root * root == value:
            return root, 1
        raise TooLarge(f"a radicand above {MAX_RADICAND}")
    square, radicand, divisor = 1, 1, 2
    while divisor * divisor <= value:
        count = 0
        while value % divisor == 0:
            value, count = value // divisor, count + 1
        square *= divisor ** (count // 2)
        radicand *= divisor ** (count % 2)
        divisor += 1
    return square, radicand * value
