"""Questions to a judge, the rule of its votes, and what they say of the judge itself."""

import numpy as np
import pyarrow as pa
import pytest

from service.errors import InvalidInput
from service.reasoning import DEFAULT_TAGS, ReasoningTags
from service.records import PROBLEM_SCHEMA
from service.selection.judge_quality import summarise_judged
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


def selected(completions: list[str], *, prompt: str = "q") -> pa.Table:
    """Columns of selected rows that questions are made of, all of one source."""
    ids = [f"s{number}" for number in range(1, len(completions) + 1)]
    same = {"source": [0] * len(ids), "arm": ["a"] * len(ids), "prompt": [prompt] * len(ids)}
    return pa.table({"sample_id": ids, "completion": completions, **same})


def usual_tags(_source: int, _arm: str) -> ReasoningTags:
    return DEFAULT_TAGS


def test_questions_show_what_follows_the_reasoning() -> None:
    rows = selected(["hm</think>2+3=5", "never closed"], prompt="q<think>")
    assert questions("{question}{completion}", rows, ["", ""], usual_tags)["question"].to_pylist() == [
        "2+3=5",
        "never closed",
    ]


def test_questions_are_a_problem_set_by_sample_and_braces_of_mathematics_stay() -> None:
    rows = selected(["\\frac{1}{2}", "{question}"])

    found = questions("{question}|{completion}|{x}|{{y}}", rows, ["What is {completion}?", "Why?"], usual_tags)

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


def test_judged_counts_samples_that_were_asked_about_and_rates_right_answers() -> None:
    samples = [
        Sample(judged=YES),
        Sample(judged=NO),
        Sample(judged=NO, steps=NO),
        Sample(judged=YES, steps=NO, problem=1),
        Sample(judged=YES, steps=UNKNOWN, problem=1),
        Sample(judged=NO, correct=NO, steps=NO, problem=1),
        Sample(judged=UNKNOWN),
        Sample(judged=YES),
    ]
    found = summarise_judged(candidates(samples), np.array([True] * 7 + [False]))

    assert (found.yes, found.no, found.undecided) == (3, 3, 1)
    rates = [found.apparent, found.sensitivity, found.specificity]
    assert [rate.value for rate in rates if isinstance(rate, Estimate)] == pytest.approx([2 / 5, 1 / 2, 1 / 2])
    assert [rate.n for rate in rates if isinstance(rate, Estimate)] == [2, 2, 1]
    assert found.corrected == NotEstimable("the test says no more than chance")


def judged_samples(rng: np.random.Generator, *, num_problems: int, per_problem: int) -> list[Sample]:
    """A judge that finds 0.8 of the faults and passes 0.9 of the rest, over problems that differ in their faults."""
    samples: list[Sample] = []
    for problem in range(num_problems):
        is_faulty = rng.random(per_problem) < rng.beta(0.5, 1.5)
        says_no = rng.random(per_problem) < np.where(is_faulty, 0.8, 0.1)
        samples += [
            Sample(problem=problem, steps=NO if faulty else YES, judged=NO if no else YES)
            for faulty, no in zip(is_faulty, says_no, strict=True)
        ]
    return samples


def test_judged_rates_are_corrected_and_their_intervals_are_over_problems() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(60):
        samples = judged_samples(rng, num_problems=40, per_problem=25)
        found = summarise_judged(candidates(samples, num_problems=40), np.ones(1000, dtype=bool))
        assert isinstance(found.sensitivity, Estimate)
        assert isinstance(found.corrected, Estimate)
        assert found.sensitivity.value == pytest.approx(0.8, abs=0.15)
        held += found.corrected.low <= 0.25 <= found.corrected.high

    # over samples, as if each were a problem, it would be near half
    assert held / 60 >= 0.85


def test_judged_without_step_checks_says_so() -> None:
    samples = [Sample(judged=YES, steps=UNKNOWN), Sample(judged=NO, steps=UNKNOWN)]
    found = summarise_judged(candidates(samples), np.ones(2, dtype=bool))

    assert isinstance(found.apparent, Estimate)
    assert found.sensitivity == NotEstimable("no right answer with a false step was judged")
    assert isinstance(found.corrected, NotEstimable)
