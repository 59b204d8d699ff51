"""Which column is taken for what, and what people are told of it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import InvalidInput
from service.importing.columns import Mapped, map_columns
from service.importing.matching import Matcher
from service.importing.reading import read_head
from service.importing.spec import MatchBy
from service.records import PROBLEM_SCHEMA, ProblemRow

QUESTIONS = ("How many\n pens?", "How many plums?", "How many days?")


@pytest.fixture
def matchers(tmp_path: Path) -> dict[MatchBy, Matcher]:
    rows = [
        ProblemRow(problem_id=str(i), question=question, reference="1", level=None, structure=None)
        for i, question in enumerate(QUESTIONS)
    ]
    path = tmp_path / "problems.parquet"
    pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], schema=PROBLEM_SCHEMA), path)
    return {by: Matcher.of(str(path), len(rows), by) for by in MatchBy}


def mapped(tmp_path: Path, matchers: dict[MatchBy, Matcher], rows: list[dict[str, Any]], **stated: str) -> Mapped:
    path = tmp_path / "old.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return map_columns([(path, read_head(path))], stated, matchers)


def names(found: Mapped) -> dict[str, str]:
    return {column.ours: column.theirs for column in found.columns}


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"question_id": 1, "output": "a"}, {"problem_id": "question_id", "completion": "output"}),
        ({"problem": "How many plums?", "solution": "a"}, {"question": "problem", "completion": "solution"}),
        (
            {"id": "2", "generations": ["a"], "completion_tokens": [3]},
            {"problem_id": "id", "completion": "generations", "num_tokens": "completion_tokens"},
        ),
        (
            {"prompt": "How  many pens?\n", "response": "a"},
            {"question": "prompt", "completion": "response", "prompt": "prompt"},
        ),
    ],
)
def test_common_names_are_guessed(tmp_path: Path, matchers, row: dict[str, Any], columns: dict[str, str]) -> None:
    assert names(mapped(tmp_path, matchers, [row])) == columns


def test_numbers_of_rows_that_look_like_ids_lose_against_questions(tmp_path: Path, matchers) -> None:
    rows = [{"id": i, "question": QUESTIONS[2 - i], "response": "a"} for i in range(3)]

    found = mapped(tmp_path, matchers, rows)

    assert found.match_by is MatchBy.question
    assert any("3 of the first 3 rows" in note for note in found.notes)


def test_ids_win_where_questions_are_other_texts(tmp_path: Path, matchers) -> None:
    rows = [{"id": i, "question": f"Question {i}: {QUESTIONS[i]}", "response": "a"} for i in range(3)]

    assert mapped(tmp_path, matchers, rows).match_by is MatchBy.id


def test_what_is_stated_is_taken_and_not_told(tmp_path: Path, matchers) -> None:
    rows = [{"id": "1", "key": "2", "response": "a", "text": "b"}]

    found = mapped(tmp_path, matchers, rows, problem_id="key", completion="text")

    assert names(found) == {"problem_id": "key", "completion": "text"}
    assert found.notes == ()


def test_another_name_that_might_be_meant_is_told(tmp_path: Path, matchers) -> None:
    (note, _) = mapped(tmp_path, matchers, [{"id": "1", "response": "a", "solution": "b"}]).notes

    assert note == "completion is the column 'response', guessed from its name (not taken: solution)"


@pytest.mark.parametrize(
    ("row", "stated", "message"),
    [
        ({"id": "1", "response": 5}, {}, "holds a whole number, allowed: a text or a list of texts"),
        ({"id": "1", "response": {"text": "a"}}, {}, "holds an object"),
        ({"id": 0.5, "response": "a"}, {"problem_id": "id"}, "columns.problem_id: column 'id' holds a number"),
        ({"id": "1", "response": None}, {}, "holds nothing but nulls"),
        ({"id": "1", "response": "a", "n": "5"}, {"num_tokens": "n"}, "columns.num_tokens: .*holds a text"),
        ({"id": "1", "response": "a"}, {"answer": "response"}, "got answer, allowed: problem_id, question"),
    ],
)
def test_columns_of_another_kind_are_refused(
    tmp_path: Path, matchers, row: dict[str, Any], stated: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        mapped(tmp_path, matchers, [row], **stated)
