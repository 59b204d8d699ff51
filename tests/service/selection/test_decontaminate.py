"""Which questions count as contaminated, against a plain search over all word windows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidInput
from service.scoring.normalize import normalized_text
from service.selection import decontaminate
from service.selection.decontaminate import Contamination, HeldOutSet, find_contaminated

TEST = HeldOutSet(name="test", questions=("Ann has 3 red apples. How many has she?", "What is 2 + 3?"))


def found(
    questions: list[str], *, ngram: int | None = 5, held_out: HeldOutSet = TEST
) -> tuple[list[bool], Contamination]:
    flags, contamination = find_contaminated(questions, [held_out], ngram=ngram)
    return flags.tolist(), contamination


def test_whole_text_is_compared_without_case_space_and_punctuation() -> None:
    flags, contamination = found(["what is  2 + 3", "What is 2 + 4?", "What is 2 - 3?"], ngram=None)

    assert flags == [True, False, False]
    assert (contamination.by_text, contamination.by_ngram) == (1, 0)
    assert (contamination.compared, contamination.held_out) == (3, 2)


def test_ngram_is_found_whatever_stands_around_it_and_named_with_its_partner() -> None:
    question = "Today Ann has 3 red apples, says Tom."
    flags, contamination = found([question, "Ann has 3 green apples. How many are ripe?"])

    assert flags == [True, False]
    example = contamination.examples[0]
    assert (example.question, example.rule, example.shared) == (question, "ngram", "ann has 3 red apples")
    assert (example.held_out_set, example.held_out_question) == ("test", TEST.questions[0])


def test_ngram_does_not_join_words_of_two_questions() -> None:
    held = HeldOutSet(name="test", questions=("a b c", "d e f g h"))
    assert found(["a b c d e f"], held_out=held)[0] == [False]
    assert found(["a b c", "x d e f g h"], held_out=held)[0] == [True, True]


def test_question_of_signs_alone_is_compared_as_it_stands() -> None:
    held = HeldOutSet(name="test", questions=("?!",))
    assert found(["()", "?!"], held_out=held)[0] == [False, True]


def test_nothing_held_out_contaminates_nothing() -> None:
    flags, contamination = find_contaminated(["a b c d e"], [], ngram=5)
    assert not flags.any()
    assert contamination == Contamination(compared=1, held_out=0, by_text=0, by_ngram=0, examples=())


def test_no_question_is_left_to_compare() -> None:
    flags, contamination = found([])
    assert flags == []
    assert contamination.compared == 0


def test_examples_are_few_and_whole_texts_come_first() -> None:
    questions = ["so Ann has 3 red apples"] * 9 + ["What is 2 + 3?"]
    contamination = found(questions)[1]

    assert len(contamination.examples) == decontaminate.MAX_EXAMPLES
    assert [example.rule for example in contamination.examples[:2]] == ["text", "ngram"]
    assert (contamination.by_text, contamination.by_ngram) == (1, 9)


def test_ngram_of_too_few_words_is_refused() -> None:
    with pytest.raises(InvalidInput, match="ngram: got 4, allowed: 5 and more"):
        found(["a"], ngram=4)


TEXTS = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=12).map(" ".join), min_size=1, max_size=12)


@given(questions=TEXTS, held=TEXTS, batch=st.integers(1, 5))
def test_ngrams_equal_a_search_over_all_windows(questions: list[str], held: list[str], batch: int) -> None:
    def windows(text: str) -> set[tuple[str, ...]]:
        words = normalized_text(text).split(" ")
        return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}

    held_windows = set[tuple[str, ...]]().union(*map(windows, held))
    expected = [question in held or bool(windows(question) & held_windows) for question in questions]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decontaminate, "_BATCH", batch)
        flags, contamination = found(questions, held_out=HeldOutSet(name="test", questions=tuple(held)))

    assert flags == expected
    assert contamination.by_text == sum(question in held for question in questions)
    for example in contamination.examples:
        assert example.shared in normalized_text(example.held_out_question)
        assert example.shared in normalized_text(example.question)
