"""The exact checker: accepts every valid derivation, names the fault of every other one."""

# conftest.py puts the folder of the example on the path at run time
# pyright: reportMissingImports=false

import random
from collections import Counter
from dataclasses import replace

import pytest
from gsm_mini.checker import CheckResult, Reason, chain_key, check
from gsm_mini.derivation import derive, render
from gsm_mini.noise import clean_solution, noisy_solution
from gsm_mini.world import Closing, ClosingKind, Problem, Term, generate_problem
from hypothesis import given
from hypothesis import strategies as st

OK = CheckResult(answer_correct=True, reason="ok")
# 20 + 3 * 4 - 5 = 27, and 9 does not matter
PENS = Problem(
    question="Ann has 20 pens. She buys 3 bags of 4 pens. Tom is 9 years old. She uses 5 pens. "
    "How many pens does she have now?",
    answer=27,
    num_steps=3,
    values=(20, 3, 4, 5, 9),
    terms=(Term(sign="+", factors=(0,)), Term(sign="+", factors=(1, 2)), Term(sign="-", factors=(3,))),
    closing=Closing(kind="none"),
)
# every number of the story is 7, so each written 7 may mean any of them
SEVENS = Problem(
    question="Zoe starts with 7 shells. She gets 7 shells on each of 7 days. She gives away 7 shells. "
    "Sam has twice as many. How many do they have in total?",
    answer=147,
    num_steps=5,
    values=(7, 7, 7, 7),
    terms=(Term(sign="+", factors=(0,)), Term(sign="+", factors=(1, 2)), Term(sign="-", factors=(3,))),
    closing=Closing(kind="twice"),
)


def story(kind: ClosingKind, *, total: int, number: int | None, answer: int) -> Problem:
    """A story of one quantity with a closing."""
    values = (total,) if number is None else (total, number)
    operand = None if number is None else 1
    return Problem(
        question=f"a story that ends with {kind}",
        answer=answer,
        num_steps=1,
        values=values,
        terms=(Term(sign="+", factors=(0,)),),
        closing=Closing(kind=kind, operand=operand),
    )


def test_check_generated_clean_solutions_are_all_accepted() -> None:
    rng = random.Random(11)
    problems = [generate_problem(rng, num_steps=1 + position % 6) for position in range(6_000)]
    rejected = [
        (problem.question, solution)
        for problem in problems
        if check(problem, solution := clean_solution(problem, rng)) != OK
    ]  # fmt: skip

    assert rejected == []


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("3*4=12. 20+12=32. 32-5=27. #### 27", (True, "ok")),
        ("So 20-5=15. So 4*3=12. So 12+15=27. #### 27", (True, "ok")),
        ("3*4=12. 12-5=7. 7+20=27. #### 27\n", (True, "ok")),
        ("3*4=12. 20+9=29. 20+12=32. 32-5=27. #### 27", (True, "ok")),  # superfluous but true
        ("3*4=12. 20+12=33. 32-5=27. #### 27", (True, "arith")),
        ("3*4=12. 30+12=42. 32-5=27. #### 27", (True, "operand")),
        ("20+12=32. 32-5=27. #### 27", (True, "operand")),  # 12 from nowhere
        ("3+4=7. 20+7=27. #### 27", (True, "logic")),  # right by luck
        ("3*4=12. 20+12=32. #### 27", (True, "logic")),  # stops before the answer
        ("#### 27", (True, "nostep")),
        ("She has pens. #### 27", (True, "nostep")),
        ("3*4=12. 20+12-5=27. #### 27", (True, "format")),
        ("3*4=12. 20+12=32. 32-5=27. 5-8=-3. #### 27", (True, "format")),
        ("3*4=12. 20+12=32. 32-5=26. #### 26", (False, "wrong")),
        ("3*4=12. 20+12=32. 32-5=27.", (False, "format")),
        ("3*4=12. #### 27 20+12=32.", (False, "format")),
        ("", (False, "format")),
    ],
)
def test_check_planted_fault_is_named(completion: str, expected: tuple[bool, str]) -> None:
    result = check(PENS, completion)

    assert (result.answer_correct, result.reason) == expected


@pytest.mark.parametrize(
    ("problem", "reasoning", "reason"),
    [
        (story("price", total=6, number=3, answer=18), "3*6=18.", "ok"),
        (story("price", total=6, number=3, answer=18), "6+6=12. 12+6=18.", "logic"),  # does not use the price
        (story("split", total=18, number=3, answer=6), "18/3=6.", "ok"),
        (story("split", total=18, number=3, answer=6), "18-3=15. 18/3=6.", "ok"),
        (story("split", total=4, number=2, answer=2), "4-2=2.", "logic"),
        (story("split", total=18, number=3, answer=6), "18/0=6.", "arith"),
        (story("more", total=5, number=2, answer=12), "5+2=7. 5+7=12.", "ok"),
        (story("more", total=5, number=3, answer=13), "5*2=10. 10+3=13.", "ok"),
        (story("fewer", total=5, number=3, answer=7), "5-3=2. 2+5=7.", "ok"),
        (story("fewer", total=5, number=3, answer=7), "5+5=10. 10-3=7.", "ok"),
        (story("twice", total=5, number=None, answer=15), "5*2=10. 10+5=15.", "ok"),
        (story("twice", total=5, number=None, answer=15), "5*3=15.", "ok"),
        (story("none", total=5, number=None, answer=5), "5*2=10. 10-5=5.", "operand"),  # no 2 in this story
        (story("twice", total=2, number=None, answer=6), "2*2=4. 4+2=6.", "ok"),
        (story("twice", total=3, number=None, answer=9), "3*3=9.", "ok"),
    ],
)
def test_check_closing_formula_is_followed(problem: Problem, reasoning: str, reason: Reason) -> None:
    assert check(problem, f"{reasoning} #### {problem.answer}") == CheckResult(answer_correct=True, reason=reason)


def test_check_equal_numbers_every_reading_is_tried() -> None:
    assert check(SEVENS, "7*7=49. 49+7=56. 56-7=49. 49+49=98. 49+98=147. #### 147") == OK


def test_check_equal_numbers_wrong_formula_is_still_found() -> None:
    # 3 * 7 * 7: true, and right, but nobody gave away or found anything
    assert check(SEVENS, "7*7=49. 49*3=147. #### 147").reason == "logic"


def test_check_equal_numbers_generated_solutions_are_accepted() -> None:
    rng = random.Random(2)

    assert {check(SEVENS, clean_solution(SEVENS, rng)) for _ in range(300)} == {OK}


@given(seed=st.integers(0, 2**32), num_steps=st.integers(1, 6))
def test_check_solution_with_one_changed_result_is_never_accepted(seed: int, num_steps: int) -> None:
    rng = random.Random(seed)
    problem = generate_problem(rng, num_steps=num_steps)
    steps = derive(problem, rng)
    position = rng.randrange(len(steps))
    steps[position] = replace(steps[position], result=steps[position].result + rng.randint(1, 20))

    assert check(problem, render(steps, problem.answer, rng)).reason == "arith"


@given(seed=st.integers(0, 2**32), num_steps=st.integers(1, 6))
def test_check_wrong_answer_is_never_correct(seed: int, num_steps: int) -> None:
    rng = random.Random(seed)
    problem = generate_problem(rng, num_steps=num_steps)
    completion = render(derive(problem, rng), problem.answer + rng.choice((-1, 1, 10)), rng)

    assert not check(problem, completion).answer_correct


@given(completion=st.text(alphabet="0123456789+-*/=.# SoThen", max_size=60))
def test_check_arbitrary_text_is_judged_without_error(completion: str) -> None:
    result = check(PENS, completion)

    assert result.answer_correct or result.reason in ("format", "wrong")


def test_noise_gives_the_shares_that_the_recipe_states() -> None:
    rng = random.Random(4)
    problems = [generate_problem(rng) for _ in range(4_000)]
    results = Counter(check(problem, noisy_solution(problem, rng)) for problem in problems)
    false_positives = sum(n for result, n in results.items() if result.answer_correct and result.reason != "ok")

    assert results[OK] / 4_000 == pytest.approx(0.80, abs=0.03)
    assert false_positives / 4_000 == pytest.approx(0.12, abs=0.02)


def test_chain_key_ignores_wording_and_keeps_order() -> None:
    assert chain_key("First 3*4=12. Then 20+12=32. #### 32") == chain_key("3*4=12. 20+12=32. #### 32")
    assert chain_key("3*4=12. 20+12=32.") != chain_key("20+12=32. 3*4=12.")
