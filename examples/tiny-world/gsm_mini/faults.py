"""Kinds of faults for the solutions that a judge should reject, more than the pretraining corpus has.

A fault keeps the problem's answer and breaks the way to it: a changed number, operator or operand anywhere, a step left
out or out of order, a detour that ends in the right number by force. Not every fault makes every solution invalid (two
steps may change places freely), so the exact checker has the last word. Pure Python; must not import torch,
transformers or the application.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from gsm_mini.derivation import Step, calculate
from gsm_mini.noise import add_fault
from gsm_mini.world import Problem

SLIPS = (-10, -3, -2, -1, 1, 2, 3, 10)
OPERATORS = "+-*/"

Fault = Callable[[list[Step], Problem, random.Random], list[Step]]


def _slip(steps: list[Step], problem: Problem, rng: random.Random) -> list[Step]:
    """One result is off, and all that follows is written as if it were right."""
    position = rng.randrange(len(steps))
    return _with_step(steps, position, replace(steps[position], result=_off(steps[position].result, rng)))


def _misread_number(steps: list[Step], problem: Problem, rng: random.Random) -> list[Step]:
    """One operand is off, and the result is the right one all the same."""
    position = rng.randrange(len(steps))
    return _with_step(steps, position, _with_operand(steps[position], lambda old: _off(old, rng), rng))


def _other_operand(steps: list[Step], problem: Problem, rng: random.Random) -> list[Step]:
    """One operand is another number of the story or of an earlier step; the result may follow it."""
    position = rng.randrange(len(steps))
    known = _known_numbers(steps[:position], problem)
    wrong = _with_operand(steps[position], lambda old: rng.choice(known), rng)
    if rng.random() < 0.5:
        wrong = replace(wrong, result=max(0, calculate(wrong.operator, wrong.left, wrong.right)))
    return _with_step(steps, position, wrong)


def _other_operator(steps: list[Step], problem: Problem, rng: random.Random) -> list[Step]:
    """One operator is another one; the result may follow it."""
    position = rng.randrange(len(steps))
    step = steps[position]
    wrong = replace(step, operator=rng.choice([other for other in OPERATORS if other != step.operator]))
    if rng.random() < 0.5:
        wrong = replace(wrong, result=max(0, calculate(wrong.operator, wrong.left, wrong.right)))
    return _with_step(steps, position, wrong)


def _turned_round(steps: list[Step], problem: Problem, rng: random.Random) -> list[Step]:
    """Two operands or two steps change places."""
    position = rng.randrange(len(steps))
    if position + 1 < len(steps) and rng.random() < 0.5:
        return [*steps[:position], steps[position + 1], steps[position], *steps[position + 2 :]]
    return _with_step(steps, position, replace(steps[position], left=steps[position].right, right=steps[position].left))


def _left_out(steps: list[Step], problem: Problem, rng: random.Random) -> list[Step]:
    """One step is missing; a lone step stays and is doubled."""
    if len(steps) == 1:
        return steps + steps
    position = rng.randrange(len(steps))
    return steps[:position] + steps[position + 1 :]


def _forced_end(steps: list[Step], problem: Problem, rng: random.Random) -> list[Step]:
    """A fault is carried on, and the last equation is made to give the answer."""
    carried, _ = add_fault(steps, problem.answer, rng.choice(("slip", "operator")), rng)
    return [*carried[:-1], replace(carried[-1], result=problem.answer)]


def _carried_on(steps: list[Step], problem: Problem, rng: random.Random) -> list[Step]:
    """A fault is carried on to the last equation; only the answer below it is right."""
    return add_fault(steps, problem.answer, rng.choice(("slip", "operator")), rng)[0]


def _lucky(steps: list[Step], problem: Problem, rng: random.Random) -> list[Step]:
    """A fault of the pretraining corpus."""
    return add_fault(steps, problem.answer, "lucky", rng)[0]


def _lucky_shortcut(steps: list[Step], problem: Problem, rng: random.Random) -> list[Step]:
    """The chain breaks off and ends in a true equation of known numbers that happens to give the answer."""
    kept = steps[: rng.randrange(len(steps))]
    known = _known_numbers(kept, problem)
    endings = [
        Step(left=left, operator=operator, right=right, result=problem.answer)
        for left in known
        for right in known
        for operator in "+-*"
        if calculate(operator, left, right) == problem.answer
    ]
    return [*kept, rng.choice(endings)] if endings else _other_operand(steps, problem, rng)


FAULTS: tuple[Fault, ...] = (
    _slip, _slip, _misread_number, _misread_number, _other_operand, _other_operator, _turned_round, _left_out,
    _forced_end, _carried_on, _lucky, _lucky_shortcut,
)  # fmt: skip


def _with_step(steps: list[Step], position: int, step: Step) -> list[Step]:
    return [*steps[:position], step, *steps[position + 1 :]]


def _with_operand(step: Step, change: Callable[[int], int], rng: random.Random) -> Step:
    if rng.random() < 0.5:
        return replace(step, left=change(step.left))
    return replace(step, right=change(step.right))


def _known_numbers(steps: Sequence[Step], problem: Problem) -> list[int]:
    return [*problem.values, *(step.result for step in steps)]


def _off(number: int, rng: random.Random) -> int:
    """Another number: a few off, or with a digit changed, dropped or doubled."""
    if rng.random() < 0.6:
        return max(0, number + rng.choice(SLIPS))
    digits = list(str(number))
    position = rng.randrange(len(digits))
    digits[position] = rng.choice((str(rng.randrange(10)), "", 2 * digits[position]))
    return int("".join(digits) or "0")
