"""What the judge learns from: fresh problems, and valid and faulty solutions of them, labelled by the exact checker.

A judge reads a problem and one solution and answers `yes` or `no`. What matters are right answers with wrong reasoning,
so most faulty solutions here end in the right answer.
Invariant: problems, faults and labels come from seeds of their own; no problem is one of a published set. Pure Python;
must not import torch, transformers or the application.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

from gsm_mini.checker import (
    IMPLIED_NUMBERS,
    PRIME,
    Readings,
    check,
    combine_readings,
    formula_identity,
    is_true,
    number_identities,
    read_steps,
)
from gsm_mini.derivation import derive, render
from gsm_mini.faults import FAULTS
from gsm_mini.noise import add_fault
from gsm_mini.world import STEP_COUNTS, Problem, generate_distinct

JUDGE_SEED = 4321
YES, NO = "yes", "no"
WRONG_ANSWER_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A solution of a problem with the verdict on its reasoning."""

    problem: Problem
    completion: str
    is_valid: bool


def judge_question(question: str, completion: str) -> str:
    """What a judge is asked: the question and the solution below it."""
    return f"{question}\n{completion}"


def judge_problems(num_problems: int, forbidden: Collection[str], stream: str) -> list[Problem]:
    """Problems of a stream of the judge's own, none of them in `forbidden` and no question twice."""
    rng = random.Random(f"judge {stream} {JUDGE_SEED}")
    return generate_distinct(rng, rng.choices(STEP_COUNTS, k=num_problems), forbidden=forbidden)


def judged(problem: Problem, completion: str) -> Judgement:
    """The verdict of the exact checker."""
    is_valid = check(problem, completion).reason == "ok"
    return Judgement(problem=problem, completion=completion, is_valid=is_valid)


def written_judgements(problems: Sequence[Problem]) -> list[Judgement]:
    """A valid and a faulty solution of every problem, from one derivation."""
    rng = random.Random(f"judge solutions {JUDGE_SEED}")
    judgements: list[Judgement] = []
    for problem in problems:
        steps = derive(problem, rng)
        valid, faulty = judged(problem, render(steps, problem.answer, rng)), None
        # a fault that the checker does not mind is drawn again
        while faulty is None or faulty.is_valid:
            answer = problem.answer
            if rng.random() < WRONG_ANSWER_SHARE:
                faulty_steps, answer = add_fault(steps, answer, rng.choice(("slip", "operator")), rng)
            else:
                faulty_steps = rng.choice(FAULTS)(steps, problem, rng)
            faulty = judged(problem, render(faulty_steps, answer, rng))
        judgements += [valid, faulty]
    return judgements


def sound_steps(problem: Problem, completion: str) -> list[bool]:
    """Whether each equation is true, of known numbers, and some part of the problem's formula.

    Each step is judged by itself: after a false one, its result counts as what it should have been. All steps of a
    derivation are sound; a solution of sound steps may still be invalid, because one is missing.
    """
    identities = number_identities(problem)
    useful = _useful_identities(problem, identities)
    readings: dict[int, Readings] = {}
    for value, identity in zip(problem.values, identities, strict=True):
        readings.setdefault(value, {})[identity] = None
    for number in IMPLIED_NUMBERS.get(problem.closing.kind, ()):
        readings.setdefault(number, {})[number] = None
    verdicts: list[bool] = []
    for step in read_steps(completion):
        lefts, rights = readings.get(step.left, {}), readings.get(step.right, {})
        results = combine_readings(step.operator, lefts, rights)
        verdicts.append(is_true(step) and not useful.isdisjoint(results))
        readings.setdefault(step.result, {}).update(results)
    return verdicts


def _useful_identities(problem: Problem, identities: list[int]) -> set[int]:
    """Identities of all that a derivation may calculate: sums of some of the amounts, and what the closing makes."""
    amounts: list[int] = []
    for term in problem.terms:
        amount = 1 if term.sign == "+" else -1
        for index in term.factors:
            amount *= identities[index]
        amounts.append(amount)
    sums = [
        sum(chosen) for count in range(1, len(amounts) + 1) for chosen in combinations(amounts, count)
    ]  # fmt: skip
    total = sum(amounts)
    # a loss is written as a positive number, and so is what losses exceed gains by
    useful = [*sums, *(-part for part in sums), formula_identity(problem, identities)]
    if problem.closing.kind in ("more", "fewer", "twice"):
        useful.append(2 * total)
    if problem.closing.operand is not None:
        number = identities[problem.closing.operand]
        useful += [total + number] if problem.closing.kind == "more" else []
        useful += [total - number] if problem.closing.kind == "fewer" else []
    return {identity % PRIME for identity in useful}
