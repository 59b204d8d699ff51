"""`isoflop grade` on real files: what is added and kept, and that a bad row leaves nothing behind."""

import json
from pathlib import Path

import psutil
import pytest

from api.local.bench_scoring import bench_math_answer
from api.local.grade import grade_file
from service.errors import InvalidInput, UnknownName


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_grade_file_adds_verdicts_and_keeps_other_keys(tmp_path: Path) -> None:
    rows = [
        {"id": 7, "completion": "9+9=<<9+9=18>>18\n#### 18", "reference": "18", "meta": {"a": [1, None]}},
        {"completion": "I cannot say.", "reference": "18"},
        {"completion": "So she has", "reference": "18", "finish_reason": "length"},
        {"completion": "#### 1\N{MIDDLE DOT}", "reference": 18, "verdict": "correct"},
    ]
    source = write(tmp_path / "rows.jsonl", *rows)

    summary = grade_file(scorer="math_answer", input=source, output=tmp_path / "graded.jsonl")

    graded = read(tmp_path / "graded.jsonl")
    assert [row["verdict"] for row in graded] == ["correct", "unparsable", "incomplete", "incorrect"]
    assert [row["predicted_answer"] for row in graded] == ["18", None, None, "1"]
    assert {key: graded[0][key] for key in rows[0]} == rows[0]
    assert "steps" not in graded[0]
    assert (summary.rows, summary.steps) == (4, {})
    assert summary.verdicts == {"correct": 1, "unparsable": 1, "incomplete": 1, "incorrect": 1}


def test_grade_file_steps_scorer_adds_steps_only(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", {"completion": "9+9=19. #### 19", "reference": "18"})

    summary = grade_file(scorer="steps", input=source, output=tmp_path / "graded.jsonl")

    (row,) = read(tmp_path / "graded.jsonl")
    assert row["steps"] == "invalid"
    assert "9+9=19" in str(row["explanation"])
    assert "verdict" not in row
    assert (summary.verdicts, summary.steps) == ({}, {"invalid": 1})


def test_grade_file_onto_itself_and_again_gives_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"completion": "#### 18", "reference": "18"})

    grade_file(scorer="math_answer", input=path, output=path)
    once = path.read_bytes()
    grade_file(scorer="math_answer", input=path, output=path)

    assert path.read_bytes() == once


def test_grade_file_blank_lines_and_empty_files_are_no_rows(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", "", {"completion": "#### 18", "reference": "18"}, "   ")
    empty = write(tmp_path / "empty.jsonl")

    assert grade_file(scorer="math_answer", input=source, output=tmp_path / "one").rows == 1
    assert grade_file(scorer="math_answer", input=empty, output=tmp_path / "none").rows == 0
    assert (tmp_path / "none").read_bytes() == b""


def test_grade_file_lone_surrogate_and_foreign_script_survive(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(
        rb'{"completion": "\ud800 #### 18", "reference": "18"}'
        + b"\n"
        + '{"completion": "\N{CJK UNIFIED IDEOGRAPH-7B54} #### 18", "reference": "18"}\n'.encode()
    )

    grade_file(scorer="math_answer", input=source, output=tmp_path / "graded.jsonl")

    first, second = (tmp_path / "graded.jsonl").read_bytes().splitlines()
    assert rb"\ud800" in first
    assert "\N{CJK UNIFIED IDEOGRAPH-7B54}".encode() in second


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "row 2: not JSON"),
        ("[1]", "row 2: a row is a JSON object"),
        ("[" * 100_000, "row 2: not JSON"),
        ('{"completion": "x", "reference": ' + "9" * 5000 + "}", "row 2: not JSON"),
        ('{"completion": "x"}', "row 2: 'reference' is missing; the row has 'completion'"),
        ("{}", "row 2: 'completion' is missing; the row has no keys"),
        ('{"completion": null, "reference": "18"}', "row 2: 'completion' must be text, got NoneType"),
        ('{"completion": ["x"], "reference": "18"}', "row 2: 'completion' must be text, got list"),
        ('{"completion": "x", "reference": true}', "row 2: 'reference' must be text, got bool"),
        (
            '{"completion": "x", "reference": "1", "finish_reason": "eos"}',
            "finish_reason is 'eos'; allowed: stop, length",
        ),
    ],
)
def test_grade_file_malformed_row_is_named_and_nothing_is_written(tmp_path: Path, bad: str, message: str) -> None:
    source = write(tmp_path / "rows.jsonl", {"completion": "#### 18", "reference": "18"}, bad)
    output = tmp_path / "graded.jsonl"
    output.write_text("what was there")

    with pytest.raises(InvalidInput, match=r".*") as raised:
        grade_file(scorer="math_answer", input=source, output=output)

    assert message in str(raised.value)
    assert output.read_text() == "what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graded.jsonl", "rows.jsonl"]


def test_grade_file_invalid_utf8_is_a_malformed_row(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b'{"completion": "\xff", "reference": "1"}\n')

    with pytest.raises(InvalidInput, match="row 1: not JSON"):
        grade_file(scorer="math_answer", input=source, output=tmp_path / "graded.jsonl")


def test_grade_file_unknown_scorer_or_missing_file_is_said(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl")

    with pytest.raises(UnknownName, match="math_answer, math_latex, steps"):
        grade_file(scorer="maths", input=source, output=tmp_path / "graded.jsonl")
    with pytest.raises(InvalidInput, match="cannot read"):
        grade_file(scorer="steps", input=tmp_path / "absent.jsonl", output=tmp_path / "graded.jsonl")
    with pytest.raises(InvalidInput, match="cannot write"):
        grade_file(scorer="steps", input=source, output=tmp_path / "absent" / "graded.jsonl")


def test_grade_file_math_latex_asks_its_judge_and_leaves_no_process(tmp_path: Path) -> None:
    rows = [
        {"completion": "so $\\boxed{\\frac{2}{4}}$", "reference": "\\frac{1}{2}"},
        {"completion": "so $\\boxed{\\ln 2 + \\ln 3}$", "reference": "\\ln 6"},
        {"completion": "so $\\boxed{\\ln 7}$", "reference": "\\ln 6"},
        {"completion": "so", "reference": "\\ln 6", "finish_reason": "length"},
    ]
    before = {child.pid for child in psutil.Process().children()}

    summary = grade_file(scorer="math_latex", input=write(tmp_path / "rows.jsonl", *rows), output=tmp_path / "graded")

    graded = read(tmp_path / "graded")
    assert [row["verdict"] for row in graded] == ["correct", "correct", "incorrect", "incomplete"]
    assert [row["predicted_answer"] for row in graded] == ["1/2", "\\ln6", "\\ln7", None]
    assert summary.verdicts == {"correct": 2, "incorrect": 1, "incomplete": 1}
    assert {child.pid for child in psutil.Process().children()} <= before


def test_bench_math_answer_grades_every_synthetic_solution_as_made() -> None:
    result = bench_math_answer(rows=400, repeats=2)

    assert result.wrong_verdicts == 0
    assert len(result.seconds) == 2
    assert result.rows_per_second > 0
    assert 200 <= result.mean_chars <= 500


def test_bench_math_answer_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        bench_math_answer(rows=0, repeats=1)
