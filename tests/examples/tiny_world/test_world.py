"""The generator and the problem files it made."""

# conftest.py puts the folder of the example on the path at run time
# pyright: reportMissingImports=false

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from build_problems import build_problem_sets
from gsm_mini.corpus import corpus_problems, corpus_questions
from gsm_mini.derivation import derive
from gsm_mini.world import Problem, generate_problem, problem_from_row, row_from_problem

SIZES = {"train": 2_000, "validation": 200, "test": 250, "transfer": 200}


def all_questions(rows_by_set: dict[str, list[Any]]) -> list[str]:
    return [row["question"] for rows in rows_by_set.values() for row in rows]


def test_generator_same_seed_gives_same_problems() -> None:
    first, second = (
        [generate_problem(rng) for _ in range(50)] for rng in (random.Random(3), random.Random(3))
    )  # fmt: skip

    assert first == second
    assert first != [generate_problem(random.Random(4)) for _ in range(50)]


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 5, 6])
def test_generator_derivations_have_the_requested_number_of_steps(num_steps: int) -> None:
    rng = random.Random(num_steps)
    problems = [generate_problem(rng, num_steps=num_steps) for _ in range(100)]

    assert {len(derive(problem, rng)) for problem in problems} == {num_steps}


def test_generator_zero_steps_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="num_steps is 0; allowed: 1 or more"):
        generate_problem(random.Random(0), num_steps=0)


@pytest.mark.parametrize("has_distractor", [True, False])
def test_generator_distractor_is_as_asked(has_distractor: bool) -> None:
    rng = random.Random(8)
    problems = [generate_problem(rng, has_distractor=has_distractor) for _ in range(100)]

    assert {problem.has_distractor for problem in problems} == {has_distractor}


def test_row_of_a_problem_gives_the_problem_back() -> None:
    rng = random.Random(5)
    problems = [generate_problem(rng) for _ in range(200)]

    assert [problem_from_row(row_from_problem(problem)) for problem in problems] == problems


def test_row_without_structure_names_the_missing_field() -> None:
    with pytest.raises(KeyError, match="structure"):
        problem_from_row({"question": "How many?", "answer": "3", "level": 1})  # pyright: ignore


def test_corpus_shorter_run_is_a_prefix_of_the_corpus() -> None:
    longer: list[Problem] = list(corpus_problems(30))

    assert list(corpus_problems(20)) == longer[:20]


def test_problem_files_are_what_the_recipe_builds(shipped_rows: dict[str, list[Any]]) -> None:
    # through JSON, as the files are: tuples become lists
    built = json.loads(json.dumps(build_problem_sets()))

    assert built == shipped_rows


def test_problem_files_have_equally_many_problems_of_each_level(shipped_rows: dict[str, list[Any]]) -> None:
    assert {name: len(rows) for name, rows in shipped_rows.items()} == SIZES
    for name, rows in shipped_rows.items():
        levels = Counter(row["level"] for row in rows)
        assert set(levels) == ({2, 3, 4, 5, 6} if name == "transfer" else {1, 2, 3, 4, 5})
        assert len(set(levels.values())) == 1


def test_problem_files_have_unique_ids(shipped_rows: dict[str, list[Any]]) -> None:
    ids = [row["id"] for rows in shipped_rows.values() for row in rows]

    assert len(ids) == len(set(ids)) == sum(SIZES.values())


def test_problem_files_share_no_question_with_each_other_or_the_corpus(
    shipped_rows: dict[str, list[Any]],
) -> None:
    questions = all_questions(shipped_rows)

    assert len(questions) == len(set(questions))
    assert set(questions).isdisjoint(corpus_questions())


def test_transfer_every_problem_has_a_distractor(shipped_rows: dict[str, list[Any]]) -> None:
    assert all(problem_from_row(row).has_distractor for row in shipped_rows["transfer"])
    assert not all(problem_from_row(row).has_distractor for row in shipped_rows["test"])


def test_problem_files_are_small(example: Path) -> None:
    assert sum(path.stat().st_size for path in (example / "problems").iterdir()) < 2_500_000
