"""`workers.selecting.select` on real shards, scored by the real scorers."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import CorruptFile, InvalidInput
from service.receipts import Receipt
from service.records import SELECTED_SCHEMA
from service.selection.judging import QUESTIONS_FILE
from service.selection.lineage import read_lineage
from service.selection.operators import NothingSelected
from service.selection.spec import Duplicates, Keep
from service.shards import check_file
from service.stats import Estimate
from service.work import AttemptSpec, TaskKind
from tests.workers.selection_jobs import (
    BAD_STEP,
    OTHER_RIGHT,
    QUESTIONS,
    RIGHT,
    WRONG,
    FinishedJob,
    judging_job,
    work_on,
    write_problems,
)
from workers.dispatcher import run_attempt
from workers.selecting import select


def job_with(directory: Path, *completions: str, **options: Any) -> FinishedJob:
    job = FinishedJob(directory=directory, **options)
    job.add_shard([job.sample(0, completion) for completion in completions])
    return job


def rows_of(receipt: Receipt) -> list[dict[str, Any]]:
    return pq.read_table(receipt.path).to_pylist()


def completions(receipt: Receipt) -> list[str]:
    return sorted(row["completion"] for row in rows_of(receipt))


def test_select_writes_one_part_of_training_rows_with_where_they_come_from(tmp_path: Path) -> None:
    job = FinishedJob(directory=tmp_path / "job")
    job.add_shard([job.sample(0, RIGHT), job.sample(0, WRONG)])
    job.add_shard([job.sample(1, RIGHT), job.sample(1, BAD_STEP)])

    receipt = select(work_on(job), tmp_path / "out")

    check_file(receipt.path, receipt.sha256)
    assert Path(receipt.path) == tmp_path / "out" / "part-00000.parquet"
    assert pq.read_schema(receipt.path).equals(SELECTED_SCHEMA)
    rows = sorted(rows_of(receipt), key=lambda row: (row["problem_id"], row["completion"]))
    assert [(row["problem_id"], row["completion"], row["is_verified"]) for row in rows] == [
        ("p0", RIGHT, True),
        ("p1", RIGHT, True),
        ("p1", BAD_STEP, False),
    ]
    assert {row["prompt"] for row in rows} == {f"{question}\n" for question in QUESTIONS}
    assert {(row["job_id"], row["source"], row["model"], row["is_correct"]) for row in rows} == {
        ("job-1", 0, "small", True)
    }
    assert [row["completion_tokens"] for row in rows] == [len(row["completion"]) for row in rows]
    assert receipt.rows == 3
    assert list(receipt.facts.items())[:3] == [("samples", 4.0), ("completions", 4.0), ("keep", 3.0)]
    assert receipt.facts["rows"] == 3.0


def test_select_texts_go_through_as_they_were_drawn(tmp_path: Path) -> None:
    strange = " \t2+3=5.\r\nÄ\N{PARTY POPPER}\x00 #### 5\n\n "
    assert completions(select(work_on(job_with(tmp_path / "job", strange)), tmp_path / "out")) == [strange]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (Keep.all, [RIGHT, BAD_STEP, WRONG, "7"]),
        (Keep.correct, [RIGHT, BAD_STEP]),
        (Keep.verified, [RIGHT]),
        (Keep.majority, [RIGHT, BAD_STEP]),
    ],
)
def test_select_keeps_by_what_the_scorers_said(tmp_path: Path, keep: Keep, expected: list[str]) -> None:
    job = FinishedJob(directory=tmp_path / "job")
    rows = [job.sample(0, text) for text in (RIGHT, WRONG, BAD_STEP)]
    job.add_shard([*rows, job.sample(0, "7", "length"), job.sample(0, "", "error")])

    assert completions(select(work_on(job, keep=keep), tmp_path / "out")) == sorted(expected)


def test_select_error_and_unjudged_reasoning_are_null_and_not_false(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job", "I guess #### 5", scorers=("math_answer",))
    row = rows_of(select(work_on(job), tmp_path / "out"))[0]
    assert (row["is_correct"], row["is_verified"]) == (True, None)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Duplicates.keep, 4),
        (Duplicates.exact, 3),
        (Duplicates.normalized, 2),
        (Duplicates.equations, 2),
    ],
)
def test_select_duplicates_are_dropped_across_shards_and_jobs(tmp_path: Path, rule: Duplicates, expected: int) -> None:
    first = job_with(tmp_path / "one", RIGHT, OTHER_RIGHT)
    second = job_with(tmp_path / "two", RIGHT, f"{RIGHT} ", job_id="job-2", model="large")

    receipt = select(work_on(first, second, duplicates=rule), tmp_path / "out")

    assert receipt.rows == expected


def test_select_problem_is_the_same_in_two_jobs_by_its_question(tmp_path: Path) -> None:
    first = FinishedJob(directory=tmp_path / "one")
    first.add_shard([first.sample(1, RIGHT)])
    second = FinishedJob(directory=tmp_path / "two", job_id="job-2", questions=(QUESTIONS[1], "Something else?"))
    second.add_shard([second.sample(0, OTHER_RIGHT), second.sample(1, OTHER_RIGHT)])

    receipt = select(work_on(first, second, per_problem=1), tmp_path / "out")

    assert sorted(row["prompt"] for row in rows_of(receipt)) == sorted([f"{QUESTIONS[1]}\n", "Something else?\n"])


def test_select_jobs_are_mixed_by_share(tmp_path: Path) -> None:
    texts = [f"2+3=5. So {number} #### 5" for number in range(12)]
    first = job_with(tmp_path / "one", *texts)
    second = job_with(tmp_path / "two", *texts, job_id="job-2")

    receipt = select(work_on(first, second, duplicates=Duplicates.keep, shares=[1.0, 3.0]), tmp_path / "out")

    assert [sum(row["source"] == source for row in rows_of(receipt)) for source in (0, 1)] == [4, 12]


def test_select_smaller_set_is_the_beginning_of_the_larger_file(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job", *[f"2+3=5. So {number} #### 5" for number in range(20)])

    whole, part = (rows_of(select(work_on(job, rows=rows), tmp_path / f"out{rows}")) for rows in (None, 7))

    assert part == whole[:7]
    assert len(whole) == 20


def test_select_held_out_problems_are_left_out_and_counted(tmp_path: Path) -> None:
    job = FinishedJob(directory=tmp_path / "job")
    job.add_shard([job.sample(0, RIGHT), job.sample(1, RIGHT)])
    held_out = write_problems(tmp_path / "test.parquet", [QUESTIONS[1].upper()])

    receipt = select(work_on(job, held_out=[held_out]), tmp_path / "out")

    assert [row["problem_id"] for row in rows_of(receipt)] == ["p0"]
    lineage = read_lineage(receipt.path)
    assert (lineage.contamination.compared, lineage.contamination.by_text) == (2, 1)
    assert lineage.contamination.examples[0].question == QUESTIONS[1]
    assert (lineage.held_out[0].name, lineage.held_out[0].num_problems) == ("held-out-0", 1)


def test_select_samples_that_nobody_scored_teach_only_with_all(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job", RIGHT)
    job.add_shard([job.sample(0, text) for text in (RIGHT, OTHER_RIGHT)], is_scored=False)

    assert completions(select(work_on(job), tmp_path / "correct")) == [RIGHT]
    # the exact duplicate of a scored sample is found by the key of its text
    receipt = select(work_on(job, keep=Keep.all), tmp_path / "all")
    assert completions(receipt) == sorted([RIGHT, OTHER_RIGHT])
    assert read_lineage(receipt.path).sources[0].unscored == 2


def test_select_scores_belong_to_samples_by_id_whatever_their_order(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job", RIGHT, WRONG, BAD_STEP)
    scores = pq.read_table(tmp_path / "job" / job.scores[0]["path"])
    job.replace_scores(scores.take(pa.array(range(scores.num_rows - 1, -1, -1))))

    assert completions(select(work_on(job), tmp_path / "out")) == sorted([RIGHT, BAD_STEP])


def test_select_scores_that_lack_a_sample_are_refused(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job", RIGHT, WRONG)
    job.replace_scores(pq.read_table(tmp_path / "job" / job.scores[0]["path"]).slice(1))

    with pytest.raises(CorruptFile, match="math_answer lacks 1 of the samples of"):
        select(work_on(job), tmp_path / "out")


ASK = "{question} Someone writes: {completion} Right?"


def asked(directory: Path, job: FinishedJob, **changes: Any) -> Path:
    """The questions about the samples of a job, as a selection writes them."""
    select(work_on(job, ask=ASK, **changes), directory)
    return directory / QUESTIONS_FILE


def test_select_ask_writes_the_rows_as_questions_in_the_same_order(tmp_path: Path) -> None:
    job = FinishedJob(directory=tmp_path / "job")
    job.add_shard([job.sample(0, RIGHT), job.sample(1, OTHER_RIGHT), job.sample(1, WRONG)])

    receipt = select(work_on(job, ask=ASK), tmp_path / "out")

    found = pq.read_table(tmp_path / "out" / QUESTIONS_FILE)
    assert found["problem_id"].to_pylist() == [row["sample_id"] for row in rows_of(receipt)]
    assert sorted(found["question"].to_pylist()) == sorted(
        [f"{QUESTIONS[0]} Someone writes: {RIGHT} Right?", f"{QUESTIONS[1]} Someone writes: {OTHER_RIGHT} Right?"]
    )
    assert not (tmp_path / "out2").exists()
    select(work_on(job), tmp_path / "out2")
    assert sorted(path.name for path in (tmp_path / "out2").iterdir() if path.suffix == ".parquet") == [
        "part-00000.parquet"
    ]


def test_select_judged_keeps_what_most_of_the_votes_of_all_judges_find_right(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job", RIGHT, OTHER_RIGHT, BAD_STEP)
    path = asked(tmp_path / "asked", job)
    judge = judging_job(
        tmp_path / "judge",
        path,
        [(RIGHT, "yes"), (RIGHT, "Verdict: no"), (OTHER_RIGHT, "yes"), (BAD_STEP, "no"), (OTHER_RIGHT, "hm")],
    )
    second = judging_job(tmp_path / "second", path, [(RIGHT, "yes"), (BAD_STEP, "yes")], job_id="judge-2")

    receipt = select(work_on(job, keep=Keep.judged, judges=[judge, second]), tmp_path / "out")

    # 2 to 1 and 1 to 0 are more than half, 1 to 1 is not
    assert completions(receipt) == sorted([RIGHT, OTHER_RIGHT])
    lineage = read_lineage(receipt.path)
    assert [origin.job_id for origin in lineage.judges] == ["judge-1", "judge-2"]
    assert [origin.usage.samples for origin in lineage.judges] == [5, 2]
    assert lineage.judged is not None
    assert (lineage.judged.yes, lineage.judged.no, lineage.judged.undecided) == (2, 0, 1)
    assert lineage.judged.specificity == Estimate(1.0, 1.0, 1.0, 1)


def test_select_judged_leaves_out_what_no_judge_was_asked_about(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job", RIGHT, WRONG)
    judge = judging_job(tmp_path / "judge", asked(tmp_path / "asked", job), [(RIGHT, "yes")])
    more = job_with(tmp_path / "more", OTHER_RIGHT, job_id="job-2")

    receipt = select(work_on(job, more, keep=Keep.judged, judges=[judge]), tmp_path / "out")

    assert completions(receipt) == [RIGHT]


def test_select_judged_wrong_answers_count_when_the_judge_was_asked_about_them(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job", RIGHT, WRONG, scorers=())
    path = asked(tmp_path / "asked", job, keep=Keep.all)
    judge = judging_job(tmp_path / "judge", path, [(RIGHT, "yes"), (WRONG, "yes")])

    assert completions(select(work_on(job, keep=Keep.judged, judges=[judge]), tmp_path / "out")) == [RIGHT, WRONG]


def test_select_judged_questions_that_are_fewer_than_answered_are_corrupt(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job", RIGHT, OTHER_RIGHT)
    path = asked(tmp_path / "asked", job)
    judge = judging_job(tmp_path / "judge", path, [(RIGHT, "yes")])
    pq.write_table(pq.read_table(path).slice(1), path)

    with pytest.raises(CorruptFile, match="2 questions were asked, it has 1"):
        select(work_on(job, keep=Keep.judged, judges=[judge]), tmp_path / "out")


def test_select_lineage_names_jobs_models_filters_and_what_was_spent(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    job = job_with(tmp_path / "job", RIGHT, WRONG, model_path=str(tmp_path / "model"))

    receipt = select(work_on(job), tmp_path / "out")

    lineage = read_lineage(receipt.path)
    source = lineage.sources[0]
    assert (source.job_id, source.job["name"], source.problems.name) == ("job-1", "a job", "sums")
    assert [(model.name, model.license, model.parameters) for model in source.models] == [
        ("small", "apache-2.0", 196_288)
    ]
    assert (source.currency, source.limit, source.spent) == ("flops", 100, 90)
    assert (source.usage.samples, source.usage.flops) == (2, 4.0)
    assert {count.name: float(count.rows) for count in lineage.filters} == receipt.facts
    assert (lineage.statistics.rows, lineage.statistics.problems, lineage.statistics.verified) == (1, 1, 1)
    beside = (tmp_path / "out" / "lineage.json").read_text()
    assert beside == lineage.to_json()
    assert str(tmp_path) not in beside
    assert json.loads(beside)["spec"]["keep"] == "correct"


def test_select_nothing_left_says_which_filter_and_writes_nothing(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job", BAD_STEP, WRONG)
    with pytest.raises(NothingSelected, match=r"`keep` leaves no row; .*: samples 2, completions 2, keep 0"):
        select(work_on(job, keep=Keep.verified), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_select_job_without_samples_says_so(tmp_path: Path) -> None:
    with pytest.raises(NothingSelected, match=r"`completions` leaves no row; .*: samples 0, completions 0"):
        select(work_on(FinishedJob(directory=tmp_path / "job")), tmp_path / "out")


@pytest.mark.parametrize(
    ("scorers", "changes", "message"),
    [
        (("steps",), {}, r"keep: got 'correct', which needs a scorer of answers; job-1 has scorers: steps"),
        ((), {"keep": Keep.majority}, r"keep: got 'majority', .* job-1 has scorers: none"),
        (("math_answer",), {"keep": Keep.verified}, r"keep: got 'verified', which needs the scorer 'steps'"),
        (("math_answer",), {"scorer": "judge"}, r"scorer: got 'judge'; job-1 .*they judge answers: math_answer"),
        (("math_answer", "steps"), {"scorer": "steps"}, r"scorer: got 'steps'"),
    ],
)
def test_select_job_that_was_not_judged_for_it_is_refused(
    tmp_path: Path, scorers: tuple[str, ...], changes: dict[str, Any], message: str
) -> None:
    job = job_with(tmp_path / "job", RIGHT, scorers=scorers)
    with pytest.raises(InvalidInput, match=message):
        select(work_on(job, **changes), tmp_path / "out")


@pytest.mark.parametrize("which", ["shards", "scores"])
def test_select_file_with_a_flipped_bit_is_refused_by_name(tmp_path: Path, which: str) -> None:
    job = job_with(tmp_path / "job", RIGHT)
    path = tmp_path / "job" / getattr(job, which)[0]["path"]
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)

    with pytest.raises(CorruptFile, match=r"part-00000\.parquet: sha256 is"):
        select(work_on(job), tmp_path / "out")


def test_select_job_that_still_changes_is_refused(tmp_path: Path) -> None:
    job = job_with(tmp_path / "job", RIGHT, is_sealed=False)
    with pytest.raises(CorruptFile, match=r"manifest\.json: the job still changes"):
        select(work_on(job), tmp_path / "out")


def test_dispatcher_runs_a_select_attempt_once(tmp_path: Path) -> None:
    work = work_on(job_with(tmp_path / "job", RIGHT))
    spec = AttemptSpec(
        attempt_id="set-0.1", job_id="set", kind=TaskKind.select, work=work, out_dir=str(tmp_path / "out")
    )
    first = run_attempt(spec)
    Path(work.sources[0].manifest_path).unlink()

    assert run_attempt(spec).sha256 == first.sha256
