"""Faulty solutions for the pretraining corpus: the models learn some wrong reasoning, as models of real text do.

Three faults: an arithmetic slip or a wrong operator that carries on to the answer (mostly a wrong answer), and a broken
chain under the right answer (the false positives that this world is made to study).
Invariant: both models see the same noise. Pure Python; must not import torch, transformers or the application.
"""

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from gsm_mini.derivation import Step, calculate, derive, render
from gsm_mini.world import Problem

Fault = Literal["slip", "operator", "lucky"]

FAULT_SHARES: Mapping[Fault, float] = {"slip": 0.04, "operator": 0.04, "lucky": 0.12}
SLIPS = (-10, -2, -1, 1, 2, 10)
OPERAND_SLIPS = (-10, -1, 1, 10)


def clean_solution(problem: Problem, rng: random.Random) -> str:
    """A valid solution as text."""
    return render(derive(problem, rng), problem.answer, rng)


def noisy_solution(problem: Problem, rng: random.Random, shares: Mapping[Fault, float] = FAULT_SHARES) -> str:
    """A solution as text that carries each fault with its share of probability, and is valid otherwise."""
    steps = derive(problem, rng)
    draw = rng.random()
    for fault, share in shares.items():
        if draw < share:
            faulty_steps, answer = add_fault(steps, problem.answer, fault, rng)
            return render(faulty_steps, answer, rng)
        draw -= share
    return render(steps, problem.answer, rng)


def add_fault(steps: list[Step], answer: int, fault: Fault, rng: random.Random) -> tuple[list[Step], int]:
    """The steps with one fault, and the answer that they are given."""
    if fault == "lucky":
        return _break_middle(steps, rng), answer
    position = rng.randrange(len(steps))
    step = steps[position]
    if fault == "operator":
        operator = rng.choice([other for other in "+-*" if other != step.operator])
        wrong = replace(step, operator=operator, result=max(0, calculate(operator, step.left, step.right)))
    else:
        wrong = replace(step, result=max(0, step.result + rng.choice(SLIPS)))
    carried = _carry_on(steps, position, wrong)
    return carried, carried[-1].result


def _break_middle(steps: list[Step], rng: random.Random) -> list[Step]:
    """Break the chain somewhere and leave everything after it, and the answer, as they were."""
    broken = list(steps)
    position = rng.randrange(len(steps))
    step = steps[position]
    is_last = position == len(steps) - 1
    draw = rng.random()
    if draw < 0.4 and not is_last:
        broken[position] = replace(step, result=max(0, step.result + rng.choice(SLIPS)))
    elif draw < 0.7:
        broken[position] = replace(step, left=max(0, step.left + rng.choice(OPERAND_SLIPS)))
    elif len(steps) > 1:
        del broken[rng.randrange(len(steps) - 1)]
    else:
        broken[position] = replace(step, operator="-" if step.operator == "+" else "+")
    return broken


def _carry_on(steps: list[Step], position: int, wrong: Step) -> list[Step]:
    """Replace one step and recalculate the later ones that use its result."""
    carried = list(steps)
    carried[position] = wrong
    right_result, wrong_result = steps[position].result, wrong.result
    for later in range(position + 1, len(steps)):
        step = steps[later]
        if step.left == right_result:
            changed = replace(step, left=wrong_result)
        elif step.right == right_result:
            changed = replace(step, right=wrong_result)
        else:
            continue
        changed = replace(changed, result=max(0, calculate(changed.operator, changed.left, changed.right)))
        carried[later] = changed
        right_result, wrong_result = step.result, changed.result
    return carried
