r"""The mix of answers in LaTeX that scorers are measured over: made from a seed, with the verdict each must get.

Kinds and their shares are those of contest problems as this project takes them to be, stated in `KINDS`; a third of the
answers are wrong, right ones are written in the ways models write them. Invariant: the same seed gives the same mix.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

SAMPLES_PER_PROBLEM = 4
"""Samples that share a problem's reference, right after one another as in a shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A completion to grade.

    Attributes:
        completion: a solution that ends in an answer.
        reference: the bare reference.
        answer: the bare answer in `completion`.
        is_right: whether it was made right.
        kind: its kind of answer, a key of `KINDS`.
    """

    completion: str
    reference: str
    answer: str
    is_right: bool
    kind: str


@dataclass(frozen=True, slots=True)
class _Problem:
    """The first form is the reference; the others are the same answer, written otherwise."""

    forms: tuple[str, ...]
    wrong: tuple[str, ...]


def _integer(rng: random.Random) -> _Problem:
    value = rng.choice((rng.randrange(-20, 100), rng.randrange(0, 20), rng.randrange(100, 5000)))
    others = [str(value + step) for step in (-1, 1, 2, 10)]
    wrong = (*others, str(-value or 7), f"\\frac{{{value or 1}}}{{2}}")
    forms = (str(value), str(value), str(value), f"x = {value}", f"{value}.0", f"{value:,}".replace(",", "{,}"))
    return _Problem(forms, wrong)


def _fraction(rng: random.Random) -> _Problem:
    value = Fraction(rng.randrange(1, 40), rng.randrange(2, 30))
    value += value.denominator == 1 and Fraction(1, 2)
    sign = rng.choice(("", "", "-"))
    top, bottom = value.numerator, value.denominator
    forms = [f"{sign}\\frac{{{top}}}{{{bottom}}}", f"{sign}\\dfrac{{{top}}}{{{bottom}}}", f"{sign}{top}/{bottom}"]
    forms += [f"{sign}\\frac{{{3 * top}}}{{{3 * bottom}}}", f"x = {sign}\\frac{{{top}}}{{{bottom}}}"]
    wrong = (
        f"\\frac{{{top + 1}}}{{{bottom}}}",
        f"{sign}\\frac{{{bottom}}}{{{top}}}",
        f"\\frac{{{top}}}{{{bottom + 1}}}",
        str(top),
    )
    return _Problem(tuple(forms), wrong)


def _decimal(rng: random.Random) -> _Problem:
    cents = rng.randrange(101, 9999)
    text = f"{cents / 100:.2f}"
    return _Problem(
        (text, f"{text}0", f"\\frac{{{cents}}}{{100}}"), (f"{cents / 100 + 1:.2f}", f"{cents / 10:.1f}", str(cents))
    )


def _root(rng: random.Random) -> _Problem:
    a, b = rng.randrange(2, 9), rng.choice((2, 3, 5, 6, 7, 10, 11, 13))
    c = rng.randrange(1, 9)
    if rng.random() < 0.5:
        return _Problem(
            (f"{a}\\sqrt{{{b}}}", f"\\sqrt{{{a * a * b}}}", f"{a} \\sqrt{{{b}}}", f"{a}\\cdot\\sqrt{{{b}}}"),
            (f"{a + 1}\\sqrt{{{b}}}", f"\\sqrt{{{a * b}}}", f"{a}\\sqrt{{{b + 1}}}", str(a * b)),
        )
    return _Problem(
        (f"{c}+\\sqrt{{{b}}}", f"\\sqrt{{{b}}}+{c}", f"{c} + \\sqrt{{{b}}}"),
        (f"{c}-\\sqrt{{{b}}}", f"{c + 1}+\\sqrt{{{b}}}", f"{c}+{b}", f"\\sqrt{{{b + c}}}"),
    )


def _pi(rng: random.Random) -> _Problem:
    a, b = rng.randrange(2, 60), rng.choice((1, 1, 2, 3, 4, 6))
    value = Fraction(a, b)
    top, bottom = value.numerator, value.denominator
    if bottom == 1:
        return _Problem(
            (f"{top}\\pi", f"{top} \\pi", f"\\pi \\cdot {top}"), (f"{top + 1}\\pi", str(top), f"{2 * top}\\pi")
        )
    return _Problem(
        (f"\\frac{{{top}\\pi}}{{{bottom}}}", f"\\frac{{{top}}}{{{bottom}}}\\pi", f"\\dfrac{{{top} \\pi}}{{{bottom}}}"),
        (
            f"\\frac{{{top}\\pi}}{{{bottom + 1}}}",
            f"\\frac{{{top}}}{{{bottom}}}",
            f"\\frac{{{top + 1}\\pi}}{{{bottom}}}",
        ),
    )


def _measure(rng: random.Random) -> _Problem:
    value = rng.randrange(2, 400)
    marks = ("\\%", "^\\circ", " \\text{ cm}", "\\text{ square units}", " \\text{ hours}")
    mark = rng.choice(marks)
    return _Problem(
        (f"{value}{mark}", str(value), f"{value}{mark}"), (f"{value + 5}{mark}", str(value * 2), str(value + 1))
    )


def _polynomial(rng: random.Random) -> _Problem:
    a, b, c = rng.randrange(2, 9), rng.randrange(1, 12), rng.randrange(1, 12)
    if rng.random() < 0.5:
        return _Problem(
            (f"{a}x+{b}", f"{b}+{a}x", f"{a}x + {b}", f"y = {a}x+{b}"),
            (f"{a}x-{b}", f"{b + 1}x+{a}", f"{a + 1}x+{b}", f"{a}x"),
        )
    return _Problem(
        (f"x^2+{b + c}x+{b * c}", f"(x+{b})(x+{c})", f"x^{{2}} + {b + c}x + {b * c}", f"{b * c}+{b + c}x+x^2"),
        (f"x^2-{b + c}x+{b * c}", f"(x-{b})(x+{c})", f"x^2+{b + c}x", f"x^2+{b * c}x+{b + c + 1}"),
    )


def _tuple(rng: random.Random) -> _Problem:
    a, b = rng.randrange(-9, 20), rng.randrange(-9, 20)
    return _Problem(
        (f"({a},{b})", f"({a}, {b})", f"\\left({a},{b}\\right)", f"(x, y) = ({a}, {b})"),
        (f"({b + 1},{a})", f"({a},{b + 1})", f"({a - 1},{b})", f"({a},{b},0)"),
    )


def _interval(rng: random.Random) -> _Problem:
    a, b = rng.randrange(-9, 5), rng.randrange(6, 20)
    if rng.random() < 0.4:
        return _Problem(
            (
                f"(-\\infty,{a})\\cup({b},\\infty)",
                f"(-\\infty, {a}) \\cup ({b}, \\infty)",
                f"({b},\\infty)\\cup(-\\infty,{a})",
            ),
            (f"(-\\infty,{a})\\cup({b + 1},\\infty)", f"({a},{b})", f"(-\\infty,{a}]\\cup[{b},\\infty)"),
        )
    return _Problem(
        (f"[{a},{b})", f"[{a}, {b})", f"\\left[{a},{b}\\right)", f"x \\in [{a},{b})"),
        (f"[{a},{b}]", f"[{a},{b + 1})", f"({a},{b})", f"[{a - 1},{b})"),
    )


def _roots(rng: random.Random) -> _Problem:
    a, b = rng.randrange(-9, 5), rng.randrange(6, 20)
    return _Problem(
        (f"{a},{b}", f"{b},{a}", f"{a}, {b}", f"x = {a}, x = {b}", f"{a} \\text{{ and }} {b}", f"\\{{{a},{b}\\}}"),
        (f"{a},{b + 1}", str(a), f"{-a - 1},{-b}", f"{a - 1},{b}"),
    )


def _plus_minus(rng: random.Random) -> _Problem:
    a, b = rng.randrange(1, 9), rng.choice((2, 3, 5, 7))
    return _Problem(
        (f"{a} \\pm \\sqrt{{{b}}}", f"{a}\\pm\\sqrt{b}", f"{a}+\\sqrt{{{b}}}, {a}-\\sqrt{{{b}}}"),
        (f"{a + 1} \\pm \\sqrt{{{b}}}", f"{a} + \\sqrt{{{b}}}", f"-{a} \\pm \\sqrt{{{b}}}"),
    )


def _words(rng: random.Random) -> _Problem:
    words = ["Evelyn", "Monday", "parallelogram", "increasing", "hyperbola", "Tuesday", "ellipse", "decreasing"]
    rng.shuffle(words)
    return _Problem(
        (f"\\text{{{words[0]}}}", words[0], f"\\text{{{words[0].lower()}}}"),
        tuple(f"\\text{{{w}}}" for w in words[1:4]),
    )


def _choice(rng: random.Random) -> _Problem:
    letters = list("ABCDE")
    rng.shuffle(letters)
    right, *others = letters
    return _Problem(
        (f"\\text{{({right})}}", right, f"({right})", f"\\textbf{{({right})}}"),
        tuple(f"\\text{{({w})}}" for w in others),
    )


def _matrix(rng: random.Random) -> _Problem:
    a, b, c, d = (rng.randrange(-9, 10) for _ in range(4))
    forms = (
        _grid("pmatrix", a, b, c, d),
        f"\\begin{{pmatrix}}{a}&{b}\\\\{c}&{d}\\end{{pmatrix}}",
        _grid("bmatrix", a, b, c, d),
    )
    return _Problem(forms, (_grid("pmatrix", a, b, c, d + 1), _grid("pmatrix", a + 1, b, c, d)))


def _grid(name: str, a: int, b: int, c: int, d: int) -> str:
    return f"\\begin{{{name}}} {a} & {b} \\\\ {c} & {d} \\end{{{name}}}"


def _complex(rng: random.Random) -> _Problem:
    a, b = rng.randrange(1, 12), rng.randrange(2, 12)
    return _Problem((f"{a}+{b}i", f"{b}i+{a}", f"{a} + {b}i"), (f"{a}-{b}i", f"{a + 1}+{b}i", f"-{a}+{b}i"))


def _equation(rng: random.Random) -> _Problem:
    a, b = rng.randrange(2, 9), rng.randrange(1, 9)
    if rng.random() < 0.5:
        return _Problem(
            (f"y = {a}x + {b}", f"y={a}x+{b}", f"y - {a}x = {b}"),
            (f"y = {a}x - {b}", f"y = {a + 1}x + {b}", f"y = {a}x"),
        )
    return _Problem((f"x > {a}", f"x>{a}", f"({a},\\infty)"), (f"x < {a}", f"x > {a + 1}", f"x \\ge {a}"))


def _hard(rng: random.Random) -> _Problem:
    """What exact comparison does not know: logarithms, powers with letters, cube roots, sines."""
    # many of each, so that few pairs come twice but in samples of one problem
    a, b = rng.randrange(2, 90), rng.randrange(2, 30)
    kind = rng.randrange(4)
    if kind == 0:
        n = a + 9
        forms = (f"\\log_{{{b}}} {n}", f"\\log_{{{b}}} {{{n}}}", f"\\frac{{\\ln {n}}}{{\\ln {b}}}")
        return _Problem(forms, (f"\\log_{{{b}}} {n + 1}", f"\\ln {n}"))
    if kind == 1:
        n = a * 10 + 1
        return _Problem((f"\\sqrt[3]{{{n}}}", f"({n})^{{1/3}}"), (f"\\sqrt{{{n}}}", f"\\sqrt[3]{{{n + 1}}}"))
    if kind == 2:
        a = a % 7 + 2
        return _Problem((f"{b}^{{x+{a}}}", f"{b**a}\\cdot {b}^x"), (f"{b}^{{x}}", f"{b}^{{x-{a}}}"))
    return _Problem((f"{a}\\sin {b}x", f"\\sin ({b}x)\\cdot {a}"), (f"{a}\\cos {b}x", f"{a + 1}\\sin {b}x"))


KINDS: dict[str, tuple[float, Callable[[random.Random], _Problem]]] = {
    "integer": (44, _integer), "fraction": (14, _fraction), "decimal": (3, _decimal), "root": (6, _root),
    "pi": (3, _pi), "measure": (5, _measure), "polynomial": (6, _polynomial), "tuple": (4, _tuple),
    "interval": (2.5, _interval), "roots": (3, _roots), "plus-minus": (1, _plus_minus), "words": (1.5, _words),
    "choice": (1.5, _choice), "matrix": (1, _matrix), "complex": (1, _complex), "equation": (1.5, _equation),
    "hard": (2, _hard),
}  # fmt: skip
"""Share [%] and maker of each kind of answer."""

_SENTENCES = (
    "Let ${v}$ be the number we want, so that ${a}{v} + {b} = {c}$ holds by the first condition.",
    "Substituting ${v} = {a}$ into the second equation gives ${b}{v}^2 - {c} = 0$, which factors.",
    "By the Pythagorean theorem, the side has length $\\sqrt{{{a}^2 + {b}^2}}$, and the area is $\\frac{{{c}}}{{2}}$.",
    "There are $\\binom{{{a}}}{{2}}$ ways to choose them, and ${b}$ of these are counted twice, so we subtract.",
    "Adding both sides and simplifying, we see that ${a} \\cdot {b} + {c}$ has to be divided by ${b}$.",
)


def make_mix(rows: int, *, seed: int) -> list[Case]:
    """`rows` completions; those of a problem stand side by side."""
    rng = random.Random(seed)
    kinds = rng.choices(list(KINDS), [share for share, _ in KINDS.values()], k=-(-rows // SAMPLES_PER_PROBLEM))
    cases = [case for kind in kinds for case in _cases(rng, kind)]
    return cases[:rows]


def _cases(rng: random.Random, kind: str) -> list[Case]:
    problem = KINDS[kind][1](rng)
    reference = problem.forms[0]
    cases: list[Case] = []
    for _ in range(SAMPLES_PER_PROBLEM):
        is_right = rng.random() < 2 / 3
        answer = rng.choice(problem.forms if is_right else problem.wrong)
        case = Case(completion=_solution(rng, answer), reference=reference, answer=answer, is_right=is_right, kind=kind)
        cases.append(case)
    return cases


def _solution(rng: random.Random, answer: str) -> str:
    lines = [
        rng.choice(_SENTENCES).format(
            v=rng.choice("xyn"), a=rng.randrange(2, 30), b=rng.randrange(2, 30), c=rng.randrange(2, 90)
        )
        for _ in range(rng.choice((2, 3, 3, 4, 5)))
    ]
    if rng.random() < 0.9:
        lines.append(f"Therefore the answer is $\\boxed{{{answer}}}$.")
    else:
        lines.append(f"The final answer is ${answer}$.")
    return "\n".join(lines)
