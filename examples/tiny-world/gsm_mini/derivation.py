"""Valid solutions: random derivations of a problem's answer and their wording.

Invariant: every derivation computes the problem's own formula, so the exact checker accepts it. Derivations differ in
the order of their steps, in which amounts are paired, in the order of operands and in wording: that is the diversity
that sampling can discover.
Pure Python; must not import torch, transformers or the application.
"""

import random
from dataclasses import dataclass

from gsm_mini.world import Problem, Sign

SWAP_SHARE = 0.35
PRODUCTS_FIRST_SHARE = 0.5
PRODUCTS_SHUFFLED_SHARE = 0.3
RANDOM_PAIRING_SHARE = 0.5
OTHER_PERSON_FIRST_SHARE = 0.7
TWICE_AS_PRODUCT_SHARE = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One written equation; it need not be true (noise makes false ones)."""

    left: int
    operator: str
    right: int
    result: int

    def __str__(self) -> str:
        return f"{self.left}{self.operator}{self.right}={self.result}"


def calculate(operator: str, left: int, right: int) -> int:
    """The value of `left operator right`; division rounds down and gives 0 for a divisor of 0."""
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return left // right if right else 0
    raise ValueError(f"operator is {operator!r}; allowed: + - * /")


class _Notebook:
    """Writes steps down as they are calculated."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.steps: list[Step] = []

    def write(self, left: int, operator: str, right: int) -> int:
        """Calculate one step, with the operands of + and * sometimes swapped, and return its result."""
        if operator in "+*" and self.rng.random() < SWAP_SHARE:
            left, right = right, left
        result = calculate(operator, left, right)
        self.steps.append(Step(left=left, operator=operator, right=right, result=result))
        return result


@dataclass(slots=True, kw_only=True)
class _Amount:
    """A signed amount that is not combined yet; two factors mean a product that is not multiplied yet."""

    sign: Sign
    factors: list[int]

    def resolve(self, notebook: _Notebook) -> int:
        """The amount as one number, multiplied now if it is still a product."""
        if len(self.factors) == 2:
            self.factors = [notebook.write(self.factors[0], "*", self.factors[1])]
        return self.factors[0]


def derive(problem: Problem, rng: random.Random) -> list[Step]:
    """A random valid derivation of the answer; it never passes through a negative number."""
    while True:
        steps = _try_derivation(problem, rng)
        if steps is not None:
            assert steps[-1].result == problem.answer, f"derived {steps[-1].result}, answer {problem.answer}"
            return steps


def render(steps: list[Step], answer: int, rng: random.Random) -> str:
    """The steps in one of three wordings (bare, First-Then-Next, Now-So), ending with `#### answer`."""
    wording = rng.choice(("bare", "bare", "then", "then", "so"))
    sentences: list[str] = []
    for position, step in enumerate(steps):
        opener = ""
        if wording == "then":
            opener = "First " if position == 0 else rng.choice(("Then ", "Next ", "Then "))
        elif wording == "so":
            opener = "So " if position == len(steps) - 1 else "Now "
        sentences.append(f"{opener}{step}.")
    return f"{' '.join(sentences)} #### {answer}"


def _try_derivation(problem: Problem, rng: random.Random) -> list[Step] | None:
    """One attempt; None if random pairing ended in a negative total."""
    notebook = _Notebook(rng)
    amounts = [
        _Amount(sign=term.sign, factors=[problem.values[index] for index in term.factors]) for term in problem.terms
    ]
    if rng.random() < PRODUCTS_FIRST_SHARE:
        _multiply_products(amounts, notebook)
    pairs_at_random = rng.random() < RANDOM_PAIRING_SHARE
    while len(amounts) > 1:
        first, second = sorted(rng.sample(range(len(amounts)), 2)) if pairs_at_random else (0, 1)
        amounts[first] = _combine(amounts[first], amounts[second], notebook)
        del amounts[second]
    if amounts[0].sign == "-":
        return None
    _write_closing(problem, amounts[0].resolve(notebook), notebook)
    return notebook.steps


def _multiply_products(amounts: list[_Amount], notebook: _Notebook) -> None:
    products = [amount for amount in amounts if len(amount.factors) == 2]
    if notebook.rng.random() < PRODUCTS_SHUFFLED_SHARE:
        notebook.rng.shuffle(products)
    for amount in products:
        amount.resolve(notebook)


def _combine(first: _Amount, second: _Amount, notebook: _Notebook) -> _Amount:
    """Add amounts of equal sign, or subtract the smaller from the larger and keep the larger one's sign."""
    a, b = first.resolve(notebook), second.resolve(notebook)
    if first.sign == second.sign:
        return _Amount(sign=first.sign, factors=[notebook.write(a, "+", b)])
    gain, loss = (a, b) if first.sign == "+" else (b, a)
    if gain >= loss:
        return _Amount(sign="+", factors=[notebook.write(gain, "-", loss)])
    return _Amount(sign="-", factors=[notebook.write(loss, "-", gain)])


def _write_closing(problem: Problem, total: int, notebook: _Notebook) -> None:
    closing, rng = problem.closing, notebook.rng
    number = 0 if closing.operand is None else problem.values[closing.operand]
    match closing.kind:
        case "none":
            return
        case "price":
            notebook.write(total, "*", number)
        case "split":
            notebook.write(total, "/", number)
        case "more" | "fewer":
            operator = "+" if closing.kind == "more" else "-"
            if rng.random() < OTHER_PERSON_FIRST_SHARE:
                other_total = notebook.write(total, operator, number)
                notebook.write(total, "+", other_total)
            else:
                doubled = notebook.write(total, "+", total)
                notebook.write(doubled, operator, number)
        case "twice":
            as_product = rng.random() < TWICE_AS_PRODUCT_SHARE
            other_total = notebook.write(total, "*", 2) if as_product else notebook.write(total, "+", total)
            notebook.write(total, "+", other_total)
