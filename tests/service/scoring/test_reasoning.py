"""Where reasoning ends: tags of completions and prompts, and what scorers make of them."""

import pytest

from service.reasoning import DEFAULT_TAGS, ReasoningTags
from service.scoring import SCORERS, Graded, Steps, Verdict, scorer_named

TAGS = ReasoningTags(open="[THINK]", close="[/THINK]")


def graded(name: str, completion: str, *, finish_reason: str = "stop", tags: ReasoningTags = DEFAULT_TAGS) -> Graded:
    reference = "yes" if name == "yes_no" else "5"
    return scorer_named(name, tags).grade(
        completion=completion, reference=reference, finish_reason=finish_reason, question="2+3?", structure=None
    )


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("5", "5"),
        ("[THINK]4?[/THINK]5", "5"),
        ("4?[/THINK]5", "5"),
        ("[THINK]a[/THINK]b[THINK]c[/THINK]d", "d"),
        ("[THINK]a[/THINK]", ""),
        ("[THINK]4?", None),
        ("", ""),
    ],
)
def test_tags_answer_is_what_follows_the_last_closing_one(completion: str, answer: str | None) -> None:
    assert TAGS.answer_in(completion) == answer


@pytest.mark.parametrize(
    ("prompt", "is_open"), [("q [THINK]\n", True), ("q [THINK]\n[/THINK]", False), ("q", False), ("[/THINK] q", False)]
)
def test_tags_prompt_may_open_the_reasoning(prompt: str, is_open: bool) -> None:
    assert TAGS.is_opened_by(prompt) is is_open
    assert TAGS.whole(prompt, "4? 5") == ("[THINK]4? 5" if is_open else "4? 5")


@pytest.mark.parametrize("name", sorted({*SCORERS} - {"steps"}))
@pytest.mark.parametrize("finish_reason", ["stop", "length"])
def test_reasoning_that_is_not_closed_is_incomplete_however_it_ended(name: str, finish_reason: str) -> None:
    found = graded(name, "<think>Verdict: yes. 2+3=5. #### 5", finish_reason=finish_reason)
    assert (found.verdict, found.predicted_answer) == (Verdict.INCOMPLETE, None)


@pytest.mark.parametrize("name", sorted({*SCORERS} - {"steps"}))
def test_scorers_read_what_follows_tags_of_the_job(name: str) -> None:
    completion = "[THINK]Verdict: no. #### 4[/THINK]Verdict: yes. The answer is 5"
    completion = completion.replace("The answer is 5", "") if name == "yes_no" else completion
    assert graded(name, completion, tags=TAGS).verdict is Verdict.CORRECT


def test_steps_are_those_after_the_reasoning_whose_false_starts_do_not_count() -> None:
    completion = "<think>2+3=6? No.</think>2+3=5. #### 5"
    assert graded("steps", completion).steps is Steps.VALID
    assert graded("steps", completion, tags=TAGS).steps is Steps.INVALID, "other tags: all of it is read"
    assert graded("steps", "<think>2+3=5").steps is Steps.UNKNOWN
