"""Word problems of gsm-mini: their structure, their generator and their rows in a problem file.

A story starts with a quantity, adds and removes amounts (plain or products), may mention a number that does not matter,
and ends with one of six questions. The structure is kept beside the text, so a checker can rebuild the exact formula.

Invariant: the same random state gives the same problem; every running total and every answer is a whole number in
range.
Pure Python; must not import torch, transformers or the application.
"""

import random
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal, NotRequired, TypedDict

Sign = Literal["+", "-"]
ClosingKind = Literal["none", "price", "split", "more", "fewer", "twice"]

STEP_COUNTS = (1, 2, 3, 4, 5)
MAX_TOTAL = 150
MAX_ANSWER = 250
DISTRACTOR_SHARE = 0.2

BOYS = ("Tom", "Sam", "Ben", "Max")
GIRLS = ("Ann", "Eva", "Mia", "Zoe")
ITEMS = ("apples", "pens", "books", "cards", "coins", "eggs", "plums", "shells")
CONTAINERS = ("bags", "boxes", "packs")

OPENINGS = ("{name} has {a} {item}.", "{name} starts with {a} {item}.")
DISTRACTORS = ("{other} is {a} years old.", "{who} walks {a} miles.")
# Keyed by the sign of the change and the number of factors, which is also the number of steps the change costs.
EVENTS: dict[tuple[Sign, int], tuple[str, ...]] = {
    ("+", 1): ("{who} finds {a} more.", "{who} gets {a} more {item}.", "{who} buys {a} {item}."),
    ("-", 1): ("{who} gives away {a} {item}.", "{who} loses {a} of them.", "{who} uses {a} {item}."),
    ("+", 2): ("{who} buys {a} {container} of {b} {item}.", "{who} gets {b} {item} on each of {a} days."),
    ("-", 2): ("{who} sells {a} {container} of {b} {item}.", "{who} gives {b} {item} to each of {a} friends."),
}
CLOSING_STEPS: dict[ClosingKind, int] = {"none": 0, "price": 1, "split": 1, "more": 2, "fewer": 2, "twice": 2}
CLOSING_QUESTIONS: dict[ClosingKind, str] = {
    "none": "How many {item} does {pronoun} have now?",
    "price": "Each is worth {a} dollars. How many dollars are they worth?",
    "split": "{who} puts them equally in {a} boxes. How many are in each box?",
    "more": "{other} has {a} more. How many do they have in total?",
    "fewer": "{other} has {a} fewer. How many do they have in total?",
    "twice": "{other} has twice as many. How many do they have in total?",
}
# The plain question is three times as likely as any other; a problem of one step has no room for the longer closings.
SHORT_CLOSINGS: tuple[ClosingKind, ...] = ("none", "none", "none", "price")
LONG_CLOSINGS: tuple[ClosingKind, ...] = ("none", "none", "none", "price", "split", "more", "fewer", "twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One signed amount of the story; `factors` are one or two positions in `Problem.values`."""

    sign: Sign
    factors: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What the question does to the final total; `operand` is a position in `Problem.values` or None."""

    kind: ClosingKind
    operand: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question with the structure that determines its answer.

    `values` are the numbers of the story in order of creation. They include a number that does not matter, if there is
    one: no term and no closing points to it.
    """

    question: str
    answer: int
    num_steps: int
    values: tuple[int, ...]
    terms: tuple[Term, ...]
    closing: Closing

    @property
    def has_distractor(self) -> bool:
        """Whether some number of the story is not needed."""
        used = {index for term in self.terms for index in term.factors} | {self.closing.operand}
        return any(index not in used for index in range(len(self.values)))


class ClosingRow(TypedDict):
    """`Closing` as JSON."""

    kind: ClosingKind
    operand: int | None


class StructureRow(TypedDict):
    """Everything the exact checker needs beyond question and answer; a term is `[sign, [position, ...]]`."""

    values: list[int]
    terms: list[tuple[Sign, list[int]]]
    closing: ClosingRow


class ProblemRow(TypedDict):
    """One line of a problem file; `level` is the number of steps, `solution` one valid derivation."""

    id: NotRequired[str]
    question: str
    answer: str
    level: int
    structure: StructureRow
    solution: NotRequired[str]


@dataclass(slots=True, kw_only=True)
class _Story:
    """A problem while it is being told."""

    name: str
    other: str
    who: str
    item: str
    sentences: list[str] = field(default_factory=list)
    values: list[int] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    total: int = 0

    def add_value(self, value: int) -> int:
        """Remember a number and return its position."""
        self.values.append(value)
        return len(self.values) - 1

    def phrase(self, template: str, a: int | None = None, b: int | None = None, container: str = "") -> str:
        """Fill a sentence template with this story's names and up to two numbers."""
        return template.format(
            name=self.name, other=self.other, who=self.who, pronoun=self.who.lower(), item=self.item,
            a=a, b=b, container=container,
        )  # fmt: skip


def generate_problem(
    rng: random.Random, *, num_steps: int | None = None, has_distractor: bool | None = None
) -> Problem:
    """A problem that needs `num_steps` steps (uniform in 1 to 5 if not given).

    Args:
        rng: source of all choices; it advances.
        num_steps: steps of the shortest derivation, >= 1.
        has_distractor: whether a number that does not matter is mentioned; by default in a fifth of the problems.

    Raises:
        ValueError: if `num_steps` is below 1.
    """
    wanted_steps = rng.choice(STEP_COUNTS) if num_steps is None else num_steps
    if wanted_steps < 1:
        raise ValueError(f"num_steps is {wanted_steps}; allowed: 1 or more")
    while True:
        problem = _try_problem(rng, wanted_steps, has_distractor)
        if problem is not None:
            return problem


def generate_distinct(
    rng: random.Random,
    num_steps_of_each: Collection[int],
    *,
    forbidden: Collection[str],
    has_distractor: bool | None = None,
) -> list[Problem]:
    """One problem per entry of `num_steps_of_each`, all questions different and none of them in `forbidden`."""
    seen = set(forbidden)
    problems: list[Problem] = []
    for num_steps in num_steps_of_each:
        problem = generate_problem(rng, num_steps=num_steps, has_distractor=has_distractor)
        while problem.question in seen:
            problem = generate_problem(rng, num_steps=num_steps, has_distractor=has_distractor)
        seen.add(problem.question)
        problems.append(problem)
    return problems


def row_from_problem(problem: Problem) -> ProblemRow:
    """The problem as a JSON row, without an id."""
    return {
        "question": problem.question,
        "answer": str(problem.answer),
        "level": problem.num_steps,
        "structure": {
            "values": list(problem.values),
            "terms": [(term.sign, list(term.factors)) for term in problem.terms],
            "closing": {"kind": problem.closing.kind, "operand": problem.closing.operand},
        },
    }


def problem_from_row(row: ProblemRow) -> Problem:
    """The problem of a JSON row; further fields of the row are ignored.

    Raises:
        KeyError: if a field that the checker needs is missing.
        ValueError: if the answer is not a whole number.
    """
    structure = row["structure"]
    closing = structure["closing"]
    return Problem(
        question=row["question"],
        answer=int(row["answer"]),
        num_steps=row["level"],
        values=tuple(structure["values"]),
        terms=tuple(Term(sign=sign, factors=tuple(factors)) for sign, factors in structure["terms"]),
        closing=Closing(kind=closing["kind"], operand=closing["operand"]),
    )


def _try_problem(rng: random.Random, num_steps: int, has_distractor: bool | None) -> Problem | None:
    """One attempt at a story; None if a total leaves its range or the closing does not fit."""
    kind = rng.choice(LONG_CLOSINGS if num_steps > 1 else SHORT_CLOSINGS)
    story = _begin_story(rng)
    for sign, num_factors in _choose_events(rng, num_steps - CLOSING_STEPS[kind]):
        _tell_event(story, rng, sign, num_factors)
        if not 0 <= story.total <= MAX_TOTAL:
            return None
    if rng.random() < DISTRACTOR_SHARE if has_distractor is None else has_distractor:
        _tell_distractor(story, rng)
    closed = _close_story(story, rng, kind)
    if closed is None:
        return None
    closing, answer = closed
    if not 0 <= answer <= MAX_ANSWER:
        return None
    return Problem(
        question=" ".join(story.sentences),
        answer=answer,
        num_steps=num_steps,
        values=tuple(story.values),
        terms=tuple(story.terms),
        closing=closing,
    )


def _begin_story(rng: random.Random) -> _Story:
    is_girl = rng.random() < 0.5
    name, other = rng.choice(GIRLS if is_girl else BOYS), rng.choice(BOYS if is_girl else GIRLS)
    story = _Story(name=name, other=other, who="She" if is_girl else "He", item=rng.choice(ITEMS))
    story.total = rng.randint(3, 50)
    story.terms.append(Term(sign="+", factors=(story.add_value(story.total),)))
    story.sentences.append(story.phrase(rng.choice(OPENINGS), story.total))
    return story


def _choose_events(rng: random.Random, num_steps: int) -> list[tuple[Sign, int]]:
    """Events that cost `num_steps` together, in random order."""
    events: list[tuple[Sign, int]] = []
    remaining = num_steps
    while remaining > 0:
        event = rng.choice([event for event in EVENTS if event[1] <= remaining])
        events.append(event)
        remaining -= event[1]
    rng.shuffle(events)
    return events


def _tell_event(story: _Story, rng: random.Random, sign: Sign, num_factors: int) -> None:
    template = rng.choice(EVENTS[sign, num_factors])
    if num_factors == 1:
        amount = rng.randint(2, 30)
        factors = (story.add_value(amount),)
        story.sentences.append(story.phrase(template, amount))
    else:
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        amount = a * b
        factors = (story.add_value(a), story.add_value(b))
        story.sentences.append(story.phrase(template, a, b, rng.choice(CONTAINERS)))
    story.terms.append(Term(sign=sign, factors=factors))
    story.total += amount if sign == "+" else -amount


def _tell_distractor(story: _Story, rng: random.Random) -> None:
    number = rng.randint(2, 30)
    story.add_value(number)
    sentence = story.phrase(rng.choice(DISTRACTORS), number)
    story.sentences.insert(rng.randint(1, len(story.sentences)), sentence)


def _close_story(story: _Story, rng: random.Random, kind: ClosingKind) -> tuple[Closing, int] | None:
    """Ask the question; None if no whole-number answer exists for this total."""
    total, number = story.total, None
    match kind:
        case "none":
            answer = total
        case "price":
            number = rng.randint(2, 7)
            answer = total * number
        case "split":
            divisors = [divisor for divisor in range(2, 10) if total > 0 and total % divisor == 0]
            if not divisors:
                return None
            number = rng.choice(divisors)
            answer = total // number
        case "more":
            number = rng.randint(2, 20)
            answer = 2 * total + number
        case "fewer":
            number = rng.randint(2, 20)
            if number > total:
                return None
            answer = 2 * total - number
        case "twice":
            answer = 3 * total
    story.sentences.append(story.phrase(CLOSING_QUESTIONS[kind], number))
    operand = None if number is None else story.add_value(number)
    return Closing(kind=kind, operand=operand), answer
