"""Questions to a judge, the rule of its votes, and what they say of the judge itself."""

import numpy as np
import pyarrow as pa
import pytest

from service.errors import InvalidInput
from service.records import PROBLEM_SCHEMA
from service.selection.judge_quality import JudgeCounts, count_judged, judge_quality
from service.selection.judging import JUDGE_TEMPLATE, Votes, check_template, questions
from service.selection.operators import NO, UNKNOWN, YES
from service.stats import Estimate, NotEstimable
from tests.service.selection.test_operators import Sample, candidates


def test_template_of_ours_is_allowed() -> None:
    check_template(JUDGE_TEMPLATE)


@pytest.mark.parametrize(
    ("template", "missing"),
    [
        ("Is this right? {completion}", r"without \{question\}"),
        ("Is {question} right?", r"without \{completion\}"),
        ("Right?", r"without \{question\} and \{completion\}"),
    ],
)
def test_template_that_hides_the_solution_is_refused(template: str, missing: str) -> None:
    with pytest.raises(InvalidInput, match=missing):
        check_template(template)


def test_questions_are_a_problem_set_by_sample_and_braces_of_mathematics_stay() -> None:
    rows = pa.table({"sample_id": ["s1", "s2"], "completion": ["\\frac{1}{2}", "{question}"]})

    found = questions("{question}|{completion}|{x}|{{y}}", rows, ["What is {completion}?", "Why?"])

    assert found.schema.equals(PROBLEM_SCHEMA)
    assert found["problem_id"].to_pylist() == ["s1", "s2"]
    assert found["question"].to_pylist() == [
        "What is {completion}?|\\frac{1}{2}|{x}|{{y}}",
        "Why?|{question}|{x}|{{y}}",
    ]
    assert found["reference"].to_pylist() == ["yes", "yes"]


def test_votes_the_majority_decides_and_a_tie_or_silence_is_unknown() -> None:
    votes = Votes(identity=np.array([3, 5, 7, 9], np.uint64), yes=np.array([2, 1, 1, 0]), no=np.array([1, 2, 1, 0]))
    samples = np.array([9, 7, 5, 3, 4], np.uint64)

    assert votes.codes(samples).tolist() == [UNKNOWN, UNKNOWN, NO, YES, UNKNOWN]
    assert votes.asked(samples).tolist() == [True, True, True, True, False]


def test_votes_of_nobody_decide_nothing() -> None:
    nobody = Votes(identity=np.zeros(0, np.uint64), yes=np.zeros(0, np.int64), no=np.zeros(0, np.int64))
    assert nobody.codes(np.array([1, 2], np.uint64)).tolist() == [UNKNOWN, UNKNOWN]


def test_counts_are_of_samples_that_were_asked_about_and_rates_of_right_answers() -> None:
    samples = [
        Sample(judged=YES),
        Sample(judged=NO),
        Sample(judged=NO, steps=NO),
        Sample(judged=YES, steps=NO),
        Sample(judged=YES, steps=UNKNOWN),
        Sample(judged=NO, correct=NO, steps=NO),
        Sample(judged=UNKNOWN),
        Sample(judged=YES),
    ]
    is_asked = np.array([True] * 7 + [False])

    counts = count_judged(candidates(samples), is_asked)

    assert counts == JudgeCounts(
        yes=3, no=3, undecided=1, right_yes=3, right_no=2, valid_yes=1, valid_no=1, invalid_yes=1, invalid_no=1
    )  # fmt: skip


def test_quality_is_measured_against_the_step_check_and_corrects_the_rate() -> None:
    # of 100 right answers with a false step 80 are found, of 300 with steps that hold 30 are judged wrong
    counts = JudgeCounts(
        yes=290, no=110, undecided=0, right_yes=290, right_no=110, valid_yes=270, valid_no=30, invalid_yes=20,
        invalid_no=80,
    )  # fmt: skip

    quality = judge_quality(counts)

    rates = [quality.sensitivity, quality.specificity, quality.apparent, quality.corrected]
    assert [rate.value for rate in rates if isinstance(rate, Estimate)] == pytest.approx([0.8, 0.9, 0.275, 0.25])
    assert [rate.n for rate in rates if isinstance(rate, Estimate)] == [100, 300, 400, 400]


def test_quality_without_step_checks_says_so() -> None:
    counts = JudgeCounts(
        yes=1, no=1, undecided=0, right_yes=1, right_no=1, valid_yes=0, valid_no=0, invalid_yes=0, invalid_no=0
    )  # fmt: skip

    quality = judge_quality(counts)

    assert isinstance(quality.apparent, Estimate)
    assert quality.sensitivity == NotEstimable("no right answer with a false step was judged")
    assert isinstance(quality.corrected, NotEstimable)
