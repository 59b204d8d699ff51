"""Judgements of the `yes_no` scorer: which words count as a verdict, and which do not."""

import pytest

from service.scoring import Graded, Verdict, scorer_named


def graded(completion: str, *, reference: str = "yes", finish_reason: str = "stop") -> Graded:
    return scorer_named("yes_no").grade(
        completion=completion, reference=reference, finish_reason=finish_reason, question="", structure=None
    )


@pytest.mark.parametrize(
    ("completion", "said"),
    [
        ("yes", "yes"),
        ("no", "no"),
        (" Yes.", "yes"),
        ("**No**", "no"),
        ("NO\n", "no"),
        ("Yes. There are no errors.", "yes"),
        ("yes, all steps hold; there is no error", "yes"),
        ("No - the second step adds twice.", "no"),
        ("No because 3*4 is 12", "no"),
        ("Verdict: yes", "yes"),
        ("Verdict: no (step 2 is wrong)", "no"),
        ("Step 1 is right. Step 2 is not.\n\nVerdict: **no**", "no"),
        ("**Verdict:** yes", "yes"),
        ("verdict = no", "no"),
        ("The answer is no.", "no"),
        ("Conclusion: Yes", "yes"),
        ("My judgment is: no", "no"),
        ("It follows. #### yes", "yes"),
        (r"So \boxed{no}", "no"),
        (r"So \boxed{\text{yes}}.", "yes"),
        ("First I thought: Verdict: no. But 3*4=12 is right.\nVerdict: yes", "yes"),
        ("The steps hold.\nYes", "yes"),
        ("Are there errors? Let me see.\n\nno.\n", "no"),
        ("<think>Verdict: no? Hmm.</think>Verdict: yes", "yes"),
    ],
)
def test_yes_no_reads_what_is_stated(completion: str, said: str) -> None:
    assert graded(completion).predicted_answer == said
    assert graded(completion, reference=said).verdict is Verdict.CORRECT
    assert graded(completion, reference="no" if said == "yes" else "Yes ").verdict is Verdict.INCORRECT


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "There are no errors.",
        "no errors at all",
        "The answer is no longer 18",
        "The verdict is not clear",
        "noon",
        "yesterday",
        "Verdict: maybe",
        "Verdict: none",
        "yes-man",
        "18",
    ],
)
def test_yes_no_without_a_verdict_is_unparsable_and_incomplete_where_cut(completion: str) -> None:
    assert (graded(completion).verdict, graded(completion).predicted_answer) == (Verdict.UNPARSABLE, None)
    assert graded(completion, finish_reason="length").verdict is Verdict.INCOMPLETE


def test_yes_no_verdict_before_the_cut_counts() -> None:
    assert graded("yes", finish_reason="length").verdict is Verdict.CORRECT
    assert graded("Verdict: no, for the", finish_reason="length").verdict is Verdict.INCORRECT


def test_yes_no_engine_error_or_another_reference_is_an_error_and_never_incorrect() -> None:
    assert graded("yes", finish_reason="error").verdict is Verdict.ERROR
    assert graded("yes", reference="18").verdict is Verdict.ERROR


@pytest.mark.parametrize("piece", ["answer ", "verdict: ", "####", " \n", "*", '"', r"\boxed{", "no "])
def test_yes_no_reads_a_megabyte_of_hostile_text(piece: str) -> None:
    # a reader that is quadratic in the length would not come back within the time of the whole suite
    assert graded(piece * (1_000_000 // len(piece))).verdict in Verdict


@pytest.mark.parametrize(
    ("completion", "word"),
    [
        ("Verdict: yes\n\nProblem:\nTom has 2.\nVerdict: no", "yes"),
        ("No.\nQuestion: another\nVerdict: yes", "no"),
        ("Let me check the answer.\nProblem: it asks for the total.\nVerdict: yes", "yes"),
        ("The verdict is yes.\nThen again: the problem:\nVerdict: no", "no"),
    ],
)
def test_yes_no_a_next_problem_of_its_own_does_not_count(completion: str, word: str) -> None:
    assert graded(completion).predicted_answer == word


def test_yes_no_takes_time_by_the_length_and_not_by_its_square() -> None:
    # a quadratic search would take minutes over this
    assert graded("answer:" + "*" * 300_000 + "x").verdict is Verdict.UNPARSABLE
