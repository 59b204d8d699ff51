"""What a judge learns from: labels, faults, and which problems they come from."""

# conftest.py puts the folder of the example on the path at run time
# pyright: reportMissingImports=false

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from gsm_mini.checker import check
from gsm_mini.derivation import derive, render
from gsm_mini.faults import FAULTS
from gsm_mini.judging import judge_problems, sound_steps, written_judgements
from gsm_mini.world import Problem


@pytest.fixture(scope="module")
def fresh() -> list[Problem]:
    return judge_problems(300, (), "test")


def test_written_judgements_labels_agree_with_the_checker(fresh: list[Problem]) -> None:
    judgements = written_judgements(fresh)

    assert [item.is_valid for item in judgements] == [True, False] * len(fresh)
    assert [check(item.problem, item.completion).reason == "ok" for item in judgements] == [True, False] * len(fresh)


def test_written_judgements_most_faults_end_in_the_right_answer(fresh: list[Problem]) -> None:
    reasons = Counter(
        check(item.problem, item.completion).reason for item in written_judgements(fresh) if not item.is_valid
    )

    assert {"arith", "operand", "logic", "wrong"} <= set(reasons)
    assert reasons["wrong"] < 0.4 * len(fresh)


@pytest.mark.parametrize("fault", list(dict.fromkeys(FAULTS)))
def test_faults_of_every_kind_are_rejected_under_the_right_answer(
    fault: Callable[..., Any], fresh: list[Problem]
) -> None:  # fmt: skip
    rng = random.Random(1)
    results = []
    for problem in fresh:
        faulty = fault(derive(problem, rng), problem, rng)
        results.append(check(problem, render(faulty, problem.answer, rng)))

    assert all(result.answer_correct for result in results)
    assert sum(result.reason != "ok" for result in results) > 0.3 * len(results)


def test_judge_problems_none_is_published(shipped_rows: dict[str, list[Any]]) -> None:
    published = {row["question"] for rows in shipped_rows.values() for row in rows}
    unfiltered = {problem.question for problem in judge_problems(5_000, (), "written")}
    filtered = {problem.question for problem in judge_problems(5_000, published, "written")}

    assert published & unfiltered  # without the filter, some would be
    assert not published & filtered


def test_judge_problems_forbidden_question_is_left_out(fresh: list[Problem]) -> None:
    forbidden = {problem.question for problem in fresh[:50]}
    questions = [problem.question for problem in judge_problems(300, forbidden, "test")]

    assert forbidden.isdisjoint(questions)
    assert len(set(questions)) == 300


@pytest.mark.parametrize(
    ("completion", "sound"),
    [
        ("3*6=18. 46+18=64. #### 64", [True, True]),
        ("6*3=18. 18+46=64. #### 64", [True, True]),
        ("3*6=19. 46+19=65. #### 65", [False, True]),
        ("3*6=19. 46+18=64. #### 64", [False, False]),
        ("3+6=9. 46+18=64. #### 64", [False, False]),
        ("46-6=40. #### 40", [False]),
        ("Now. #### 64", []),
    ],
)
def test_sound_steps_each_step_by_itself(tom: Problem, completion: str, sound: list[bool]) -> None:
    assert sound_steps(tom, completion) == sound


def test_sound_steps_all_steps_of_derivations_are_sound(fresh: list[Problem]) -> None:
    valid = [item for item in written_judgements(fresh) if item.is_valid]

    assert all(all(sound_steps(item.problem, item.completion)) for item in valid)
