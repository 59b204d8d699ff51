"""The exact checker: is the answer right, and does the reasoning derive it from the problem's own formula?

Each number of the problem stands for a random element of the field of integers modulo a 61-bit prime, its *identity*.
The steps are calculated on identities beside the written numbers, so the last step must equal the problem's formula as
a polynomial identity (Schwartz-Zippel: a wrong formula passes with probability below 2^-50). Where equal numbers make
it unclear which one a step means, every reading is tried. True but superfluous steps are allowed.

Invariant: a pure function of problem and text. Pure Python; must not import torch, transformers or the application.
"""

import random
import re
from dataclasses import dataclass
from itertools import islice, product
from typing import Literal

from gsm_mini.derivation import Step
from gsm_mini.world import ClosingKind, Problem, problem_from_row

__all__ = ["CheckResult", "Reason", "chain_key", "check", "problem_from_row"]

# The identities that one written number may stand for. A dict, not a set, for its order: the bound on pairs must always
# leave out the same ones.
Readings = dict[int, None]
Reason = Literal["ok", "arith", "operand", "logic", "nostep", "format", "wrong"]

PRIME = (1 << 61) - 1
# Pairs of readings tried per step. A story full of equal numbers ("7 shells on each of 7 days") reaches tens of
# thousands; the bound keeps hostile text from taking longer than tens of milliseconds a step.
MAX_PAIRS = 100_000
EQUATION = re.compile(r"(?<![\d+\-*/=])(\d+)([+\-*/])(\d+)=(\d+)(?![\d+\-*/=])")
FINAL_ANSWER = re.compile(r"#### (\d+)\s*$")
STRAY_ARITHMETIC = re.compile(r"[\d+\-*/=#]")
# Numbers that a closing brings in without writing them in the story.
IMPLIED_NUMBERS: dict[ClosingKind, tuple[int, ...]] = {"more": (2,), "fewer": (2,), "twice": (2, 3)}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """Whether the final answer is right, and what is wrong with the whole solution.

    `reason` is `wrong` (wrong answer), `format` (no final answer, or arithmetic that is no equation), `nostep` (no
    equation), `arith` (a false equation), `operand` (a number from nowhere), `logic` (true equations that do not make
    up the problem's formula) or `ok`. A solution with `answer_correct` and any reason but `ok` is a false positive.
    """

    answer_correct: bool
    reason: Reason


def check(problem: Problem, completion: str) -> CheckResult:
    """Judge a completion, which must end with `#### answer`."""
    final = FINAL_ANSWER.search(completion)
    if final is None:
        return CheckResult(answer_correct=False, reason="format")
    if int(final.group(1)) != problem.answer:
        return CheckResult(answer_correct=False, reason="wrong")
    return CheckResult(answer_correct=True, reason=_check_reasoning(problem, completion[: final.start()]))


def chain_key(completion: str) -> tuple[str, ...]:
    """The equations of a completion in order, without their wording."""
    return tuple(str(step) for step in read_steps(completion))


def _check_reasoning(problem: Problem, reasoning: str) -> Reason:
    if STRAY_ARITHMETIC.search(EQUATION.sub("", reasoning)):
        return "format"
    steps = read_steps(reasoning)
    if not steps:
        return "nostep"
    if not all(is_true(step) for step in steps):
        return "arith"
    if steps[-1].result != problem.answer:
        return "logic"
    return _check_formula(problem, steps)


def read_steps(text: str) -> list[Step]:
    return [
        Step(left=int(left), operator=operator, right=int(right), result=int(result))
        for left, operator, right, result in EQUATION.findall(text)
    ]


def is_true(step: Step) -> bool:
    match step.operator:
        case "+":
            return step.left + step.right == step.result
        case "-":
            return step.left - step.right == step.result
        case "*":
            return step.left * step.right == step.result
        case _:
            return step.right != 0 and step.result * step.right == step.left


def _check_formula(problem: Problem, steps: list[Step]) -> Reason:
    """Follow identities through true steps: `operand`, `logic` or `ok`."""
    identities = number_identities(problem)
    formula = formula_identity(problem, identities)
    readings: dict[int, Readings] = {}
    for value, identity in zip(problem.values, identities, strict=True):
        readings.setdefault(value, {})[identity] = None
    for number in IMPLIED_NUMBERS.get(problem.closing.kind, ()):
        readings.setdefault(number, {})[number] = None
    for step in steps:
        if step.left not in readings or step.right not in readings:
            return "operand"
        if step is steps[-1]:
            break
        results = combine_readings(step.operator, readings[step.left], readings[step.right])
        readings.setdefault(step.result, {}).update(results)
    last = steps[-1]
    return "ok" if _can_reach(formula, last.operator, readings[last.left], readings[last.right]) else "logic"


def number_identities(problem: Problem) -> list[int]:
    # Seeding with the text makes Random hash it (SHA-512), so identities do not depend on the process.
    rng = random.Random(problem.question)
    return [rng.randrange(2, PRIME) for _ in problem.values]


def formula_identity(problem: Problem, identities: list[int]) -> int:
    """The identity of the right answer."""
    total = 0
    for term in problem.terms:
        amount = 1
        for index in term.factors:
            amount = amount * identities[index] % PRIME
        total += amount if term.sign == "+" else -amount
    number = 0 if problem.closing.operand is None else identities[problem.closing.operand]
    match problem.closing.kind:
        case "none":
            result = total
        case "price":
            result = total * number
        case "split":
            result = total * _inverse(number)
        case "more":
            result = 2 * total + number
        case "fewer":
            result = 2 * total - number
        case "twice":
            result = 3 * total
    return result % PRIME


def combine_readings(operator: str, lefts: Readings, rights: Readings) -> Readings:
    """Every reading of `left operator right`, at most `MAX_PAIRS` of them."""
    factors = [_inverse(right) for right in rights] if operator == "/" else list(rights)
    pairs = islice(product(lefts, factors), MAX_PAIRS)
    if operator == "+":
        return {(left + right) % PRIME: None for left, right in pairs}
    if operator == "-":
        return {(left - right) % PRIME: None for left, right in pairs}
    return {left * factor % PRIME: None for left, factor in pairs}


def _can_reach(formula: int, operator: str, lefts: Readings, rights: Readings) -> bool:
    """Whether some reading of `left operator right` equals `formula`, solved for `left` without trying pairs."""
    if operator == "+":
        return any((formula - right) % PRIME in lefts for right in rights)
    if operator == "-":
        return any((formula + right) % PRIME in lefts for right in rights)
    if operator == "*":
        return any(formula * _inverse(right) % PRIME in lefts for right in rights if right)
    return any(formula * right % PRIME in lefts for right in rights if right)


def _inverse(identity: int) -> int:
    return pow(identity, -1, PRIME) if identity else 0
