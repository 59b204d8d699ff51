"""`workers.scoring.score` on real shards in real Parquet."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import CorruptFile, UnknownName
from service.reasoning import ReasoningTags
from service.receipts import Receipt, Usage
from service.records import PROBLEM_SCHEMA, SAMPLE_SCHEMA, SCORE_SCHEMA, ProblemRow, SampleRow
from service.scoring import SCORERS, Graded, Verdict
from service.scoring.normalize import equations_key, exact_key
from service.shards import check_file, read_receipt, write_part
from service.work import ScoreWork
from workers.scoring import score

RIGHT, WRONG, WORDLESS, BAD_STEP = "2+3=5. #### 5", "2+4=6. #### 6", "I do not know.", "2+3=6. #### 5"


def sample(index: int, completion: str, *, problem: int = 0, **changes: object) -> SampleRow:
    row: dict[str, object] = {
        "sample_id": f"s{problem}-{index}",
        "job_id": "job",
        "problem_id": f"p{problem}",
        "problem_index": problem,
        "model": "m",
        "model_revision": "sha256:0",
        "prompt_id": "prompt",
        "sampling_id": "sampling",
        "engine_version": "simulated-1",
        "sample_index": index,
        "seed": 1,
        "attempt": "t.1",
        "prompt": "2+3?",
        "completion": completion,
        "finish_reason": "stop",
        "prompt_tokens": 4,
        "cached_tokens": 0,
        "completion_tokens": 9,
        "flops": 1.0,
        "flops_paper": 1.0,
        "error": None,
        **changes,
    }
    return SampleRow(**row)  # type: ignore[arg-type]


def write_problems(path: Path, references: Sequence[str], row_group_size: int = 1000) -> str:
    rows = [
        ProblemRow(problem_id=f"p{i}", question="2+3?", reference=reference, level=None, structure=None)
        for i, reference in enumerate(references)
    ]
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=PROBLEM_SCHEMA)
    pq.write_table(table, path, row_group_size=row_group_size)
    return str(path)


def write_shard(directory: Path, rows: Sequence[SampleRow]) -> Receipt:
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SAMPLE_SCHEMA)
    return write_part(out_dir=directory / "t.1", part=0, table=table, usage=Usage(samples=len(rows)))


def work_on(
    directory: Path,
    rows: Sequence[SampleRow],
    *,
    references: Sequence[str] = ("#### 5",),
    scorers: tuple[str, ...] = ("math_answer", "steps"),
) -> ScoreWork:
    shard = write_shard(directory, rows)
    return ScoreWork(
        model="m",
        shard_path=shard.path,
        shard_sha256=shard.sha256,
        problems_path=write_problems(directory / "problems.parquet", references),
        scorers=scorers,
    )


def rows_by(receipt: Receipt, scorer: str) -> list[dict[str, object]]:
    return [row for row in pq.read_table(receipt.path).to_pylist() if row["scorer"] == scorer]


def test_score_every_sample_and_scorer_has_one_row_with_its_verdict(tmp_path: Path) -> None:
    completions = [RIGHT, WRONG, WORDLESS, BAD_STEP]
    work = work_on(tmp_path, [sample(i, text) for i, text in enumerate(completions)])

    receipt = score(work, tmp_path / "s.1")

    check_file(receipt.path, receipt.sha256)
    table = pq.read_table(receipt.path)
    assert table.schema.equals(SCORE_SCHEMA)
    assert receipt.rows == table.num_rows == 8
    answers, steps = rows_by(receipt, "math_answer"), rows_by(receipt, "steps")
    assert [row["verdict"] for row in answers] == ["correct", "incorrect", "unparsable", "correct"]
    assert [row["steps"] for row in steps] == ["valid", "valid", "unknown", "invalid"]
    assert [row["predicted_answer"] for row in answers] == ["5", "6", None, "5"]
    assert {row["expected_answer"] for row in answers} == {"5"}
    assert [row["solution_key"] for row in steps] == [exact_key(text) for text in completions]
    assert [row["equations_key"] for row in answers] == [equations_key(text) for text in completions]


def test_score_tags_of_the_job_are_read_in_prompt_and_completion(tmp_path: Path) -> None:
    prompted = [
        sample(index, text, prompt=f"q{ending}")
        for index, (ending, text) in enumerate(
            [("[T]", "4? [/T]2+3=5. #### 5"), ("[T]", "2+3=5. #### 5"), ("", "2+3=5. #### 5"), ("[T][/T]", RIGHT)]
        )
    ]
    work = replace(work_on(tmp_path, prompted), tags=ReasoningTags(open="[T]", close="[/T]"))

    receipt = score(work, tmp_path / "s.1")

    verdicts = [row["verdict"] for row in rows_by(receipt, "math_answer")]
    assert verdicts == ["correct", "incomplete", "correct", "correct"]
    keys = [row["solution_key"] for row in rows_by(receipt, "math_answer")]
    assert keys == [exact_key(row.completion) for row in prompted], "of the text as it was drawn"


def test_score_delta_tells_strategies_what_the_rows_say_and_survives_in_the_footer(tmp_path: Path) -> None:
    rows = [sample(3, RIGHT), sample(4, WORDLESS, problem=1), sample(5, BAD_STEP, problem=1)]
    work = work_on(tmp_path, rows, references=["#### 5", "#### 5"])

    receipt = score(work, tmp_path / "s.1")

    for delta in (receipt.delta, read_receipt(Path(receipt.path)).delta):
        assert delta is not None
        assert delta.problem.tolist() == [0, 1, 1]
        assert delta.sample_index.tolist() == [3, 4, 5]
        assert delta.is_correct.tolist() == [True, False, True]
        assert delta.steps.tolist() == [1, -1, 0]
        assert delta.solution.tolist() == [exact_key(RIGHT), exact_key(WORDLESS), exact_key(BAD_STEP)]
    assert receipt.usage.samples == 0
    assert receipt.usage.busy_s > 0


@pytest.mark.parametrize("scorers", [("math_answer",), ("steps",), ("steps", "math_answer")])
def test_score_correctness_comes_from_the_first_scorer_that_judges_answers(
    tmp_path: Path, scorers: tuple[str, ...]
) -> None:
    receipt = score(work_on(tmp_path, [sample(0, RIGHT)], scorers=scorers), tmp_path / "s.1")

    assert receipt.delta is not None
    assert receipt.delta.is_correct.tolist() == ["math_answer" in scorers]
    assert receipt.delta.steps.tolist() == [1 if "steps" in scorers else -1]


def test_score_sample_that_failed_in_the_engine_is_an_error_not_a_wrong_answer(tmp_path: Path) -> None:
    failed = sample(0, "", finish_reason="error", error="prompt too long", completion_tokens=0)

    receipt = score(work_on(tmp_path, [failed, sample(1, RIGHT)]), tmp_path / "s.1")

    first = rows_by(receipt, "math_answer")[0]
    assert (first["verdict"], first["explanation"]) == ("error", "prompt too long")
    assert receipt.delta is not None
    assert receipt.delta.is_correct.tolist() == [False, True]


class Moody:
    """Raises on one completion only."""

    name, version = "moody", "1"

    def grade(
        self, *, completion: str, reference: str, finish_reason: str, question: str, structure: str | None
    ) -> Graded:
        if completion == WRONG:
            raise ZeroDivisionError("one over nothing")
        return Graded(verdict=Verdict.CORRECT, predicted_answer=reference, steps=None, explanation="")


def test_score_scorer_that_raises_costs_one_verdict_and_not_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCORERS, "moody", lambda tags: Moody())
    rows = [sample(0, RIGHT), sample(1, WRONG), sample(2, RIGHT)]

    receipt = score(work_on(tmp_path, rows, scorers=("moody",)), tmp_path / "s.1")

    written = rows_by(receipt, "moody")
    assert [row["verdict"] for row in written] == ["correct", "error", "correct"]
    assert "ZeroDivisionError: one over nothing" in str(written[1]["explanation"])


def test_score_math_latex_judges_what_it_leaves_open_with_the_pool(tmp_path: Path) -> None:
    answers = [r"\frac{2}{4}", r"\cos\frac{\pi}{3}", r"\cos\frac{\pi}{4}", r"\cos\frac{\pi}{3}", r"\frac{1}{3}"]
    rows = [sample(index, f"so $\\boxed{{{answer}}}$") for index, answer in enumerate(answers)]
    failed = sample(9, "", finish_reason="error", error="out of memory", completion_tokens=0)
    work = work_on(tmp_path, [*rows, failed], references=[r"\dfrac{1}{2}"], scorers=("math_latex",))

    receipt = score(work, tmp_path / "s.1")

    written = rows_by(receipt, "math_latex")
    assert [row["verdict"] for row in written] == ["correct", "correct", "incorrect", "correct", "incorrect", "error"]
    assert [row["predicted_answer"] for row in written[:2]] == ["1/2", "1/2"]
    assert {row["expected_answer"] for row in written} == {"1/2"}
    assert receipt.delta is not None
    assert receipt.delta.is_correct.tolist() == [True, True, False, True, False, False]


def test_score_problems_are_found_across_row_groups_and_batches(tmp_path: Path) -> None:
    rows = [sample(i, f"#### {i % 50}", problem=i % 50) for i in range(9000)]
    shard = write_shard(tmp_path, rows)
    problems = write_problems(tmp_path / "problems.parquet", [f"#### {i}" for i in range(50)], row_group_size=7)
    work = ScoreWork(
        model="m",
        shard_path=shard.path,
        shard_sha256=shard.sha256,
        problems_path=problems,
        scorers=("math_answer",),
    )

    receipt = score(work, tmp_path / "s.1")

    assert receipt.rows == 9000
    assert receipt.delta is not None
    assert receipt.delta.is_correct.all()
    assert pq.read_table(receipt.path)["sample_id"].to_pylist() == [row.sample_id for row in rows]


def test_score_shard_without_rows_makes_an_empty_table_and_delta(tmp_path: Path) -> None:
    receipt = score(work_on(tmp_path, []), tmp_path / "s.1")

    assert receipt.rows == 0
    assert receipt.delta is not None
    assert receipt.delta.solution.tolist() == []


def test_score_shard_with_a_flipped_bit_is_refused_by_name(tmp_path: Path) -> None:
    work = work_on(tmp_path, [sample(0, RIGHT)])
    damaged = bytearray(Path(work.shard_path).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    Path(work.shard_path).write_bytes(damaged)

    with pytest.raises(CorruptFile, match=r"part-00000\.parquet: sha256"):
        score(work, tmp_path / "s.1")
    assert not (tmp_path / "s.1").exists()


def test_score_problem_that_does_not_exist_is_refused_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match=r"names problem 7, .*problems.parquet has 0\.\.0"):
        score(work_on(tmp_path, [sample(0, RIGHT, problem=7)]), tmp_path / "s.1")


def test_score_unknown_scorer_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="unknown scorer 'guess'"):
        score(work_on(tmp_path, [sample(0, RIGHT)], scorers=("guess",)), tmp_path / "s.1")
