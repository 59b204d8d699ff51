"""Judgements of `math_answer`: a table of what is the same answer and what is not, and hostile input."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring import Graded, Verdict, scorer_named
from service.scoring.answers import MathAnswer, expected_answer


def graded(completion: str, *, reference: str = "18", finish_reason: str = "stop") -> Graded:
    return MathAnswer().grade(
        completion=completion, reference=reference, finish_reason=finish_reason, question="", structure=None
    )


@pytest.mark.parametrize(
    ("completion", "reference"),
    [
        # markers
        ("She sold 9 * 2 = <<9*2=18>>18.\n#### 18", "18"),
        ("#### 18", "She sold 9 * 2 = <<9*2=18>>18.\n#### 18"),
        ("#### 18\n", "18"),
        ("####18.", "18"),
        ("#### **18**", "18"),
        ("#### $18 per day", "18"),
        ("#### x = 18", "18"),
        ("#### 9 + 9 = 18", "18"),
        ("#### 18 because 2 * 3 = 6 and 6 * 3 = 18, not 17 = 17", "18"),
        ("#### 18, since 20 - 3 = 17 is the other one's", "18"),
        ("The final answer is 9 gallons * 2 pints / gallon = 18 pints.", "18"),
        ("The answer is:\n\n$$18$$", "18"),
        ("The answer is approximately 18.", "18"),
        ("The **answer is** **$18**.", "18"),
        ("#### \\boxed{18}", "18"),
        ("#### 1. Count the eggs\n9 + 9 = 18\n#### 2. Answer\nThe answer is 18.", "18"),
        ("#### Solution\nIt is \\boxed{18}.", "18"),
        (r"Thus \boxed{18}.", "18"),
        (r"Thus $\boxed{\frac{3}{4}}$.", "3/4"),
        (r"Thus $\boxed{\text{18 apples}}$.", "18"),
        (r"first \boxed{7}, but then \boxed{18}", "18"),
        (r"\boxed 18", "18"),
        ("The answer is 18.", "18"),
        ("The answer is: $18.", "18"),
        ("the final answer is 18 apples, which is many.", "18"),
        ("**Answer:** 18", "18"),
        ("**Final Answer**: 18", "18"),
        ("**Final Answer:**\n\n18 dollars", "18"),
        ("Answer: She has 18 apples left.", "18"),
        ("The answer is 9 + 9 = 18.", "18"),
        ("A: 18", "18"),
        ("A: She buys 9 and 9.\nThat makes 18", "18"),
        ("That makes 9 + 9 = 18 apples.", "18"),
        # a base model that goes on with a question of its own
        ("#### 18\n\nQuestion: How many is 2 + 2?\nAnswer: #### 4", "18"),
        ("The answer is 18.\n\nQ: How many is 2 + 2?\nA: The answer is 4.", "18"),
        # but not where a chat model only says the question again
        ("Let me say it again.\nQuestion: how many eggs are there?\nThere are 18.", "18"),
        # thinking models
        ("<think>maybe #### 17</think>The answer is 18.", "18"),
        # numbers
        ("#### 18.0", "18"),
        ("#### 18.00", "18"),
        ("#### 018", "18"),
        ("#### +18", "18"),
        ("#### 1,080", "1080"),
        ("#### 1080", "1,080"),
        ("#### 1 080 000", "1,080,000"),
        ("#### 1\N{NARROW NO-BREAK SPACE}080", "1080"),
        (r"\boxed{1{,}080}", "1080"),
        (r"\boxed{10\,000}", "10000"),
        ("#### 10,00,000", "1000000"),
        ("#### $1,080.50", "1080.5"),
        ("#### \N{POUND SIGN}18", "18"),
        ("#### 18\N{EURO SIGN}", "18"),
        ("#### USD 18", "18"),
        (r"\boxed{\$18}", "18"),
        ("#### -18", "-18"),
        ("#### \N{MINUS SIGN}18", "-18"),
        ("#### -$18", "-18"),
        ("#### $-18", "-18"),
        ("#### .5", "0.5"),
        ("#### 1/2", "0.5"),
        ("#### 0.5", "1/2"),
        ("#### 3/4", r"\frac{3}{4}"),
        (r"\boxed{\dfrac34}", "0.75"),
        (r"\boxed{-\frac{3}{4}}", "-0.75"),
        ("#### 1 1/2", "1.5"),
        (r"\boxed{1\frac{1}{2}}", "3/2"),
        ("#### 1\N{VULGAR FRACTION ONE HALF}", "1.5"),
        ("#### 6/4", "3/2"),
        ("#### 1.5e3", "1500"),
        (r"\boxed{1.5 \times 10^{3}}", "1500"),
        ("#### 1.5 x 10^3", "1500"),
        ("#### 1.5 million", "1,500,000"),
        ("#### 5 million", "5"),
        ("#### 18 apples", "18"),
        ("#### 18km", "18"),
        ("#### 18 km/h", "18"),
        (r"\boxed{18^\circ}", "18"),
        (r"\boxed{18\text{ cm}^2}", "18"),
        ("#### 18 (eighteen) eggs", "18"),
        ("The answer is 18!", "18"),
        # percent
        ("#### 50%", "50"),
        ("#### 50", "50%"),
        ("#### 50 percent", "50"),
        (r"\boxed{50\%}", "50"),
        ("#### 50%", "1/2"),
        ("#### 0.5", "50%"),
        # not numbers
        (r"\boxed{x^2 + 1}", "x^2+1"),
        (r"\boxed{\left(3, 4\right)}", "(3,4)"),
        (r"\boxed{\text{(B)}}", "B"),
        ("The answer is Yes.", "yes"),
        ("#### 3:30", "3:30"),
        (r"\boxed{5\sqrt{2}}", r"$5\sqrt{2}$"),
        (r"\boxed{\frac{\pi}{2}}", r"\dfrac{\pi}{2}"),
        (r"\boxed{18}", r"We add them, so there are $\boxed{18}$."),
    ],
)
def test_math_answer_equal_answers_are_correct(completion: str, reference: str) -> None:
    verdict = graded(completion, reference=reference)

    assert verdict.verdict is Verdict.CORRECT, verdict


@pytest.mark.parametrize(
    ("completion", "reference"),
    [
        ("#### 17", "18"),
        ("#### 180", "18"),
        ("#### 1.8", "18"),
        ("#### -18", "18"),
        ("#### 18.5", "18"),
        ("#### 0.333", "1/3"),
        ("#### 0.5", "50"),
        ("#### 0.5%", "50%"),
        ("#### 50%", "0.5%"),
        ("#### 5 thousand", "5 million"),
        ("She had 18 eggs.\n#### 17", "18"),
        (r"18 and then \boxed{17}", "18"),
        ("The answer is 17, not 18.", "18"),
        ("#### 17\n\nQuestion: And now?\nAnswer: #### 18", "18"),
        ("<think>The answer is 18.</think>The answer is 17.", "18"),
        ("#### 1e18", "18"),
        (r"\boxed{x^2+1}", "x^2-1"),
        (r"\boxed{(4,3)}", "(3,4)"),
        ("#### 5", r"5\sqrt{2}"),
        ("#### 1234567890123456789012", "1234567890123456789013"),
    ],
)
def test_math_answer_other_answers_are_incorrect(completion: str, reference: str) -> None:
    verdict = graded(completion, reference=reference)

    assert verdict.verdict is Verdict.INCORRECT, verdict
    assert verdict.predicted_answer


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "I do not know.",
        "#### 18 or 19",
        "#### 17, 18",
        "The answer is 17 or 18.",
        "#### 17 18",
        "#### 9 + 9",
        "#### 17-18",
        "#### 18:30",
        r"\boxed{18x}",
        r"\boxed{18\sqrt{2}}",
        "#### 9e999999999",
        "#### 18/0",
    ],
)
def test_math_answer_no_single_number_is_unparsable(completion: str) -> None:
    verdict = graded(completion)

    assert verdict.verdict is Verdict.UNPARSABLE, verdict
    assert verdict.predicted_answer is None


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("She has 18 eggs and", Verdict.INCOMPLETE),
        ("", Verdict.INCOMPLETE),
        ("<think>The answer is 18.", Verdict.INCOMPLETE),
        ("#### 1", Verdict.INCOMPLETE),
        ("The answer is 1", Verdict.INCOMPLETE),
        ("#### 18", Verdict.CORRECT),
        ("#### 17\nThat is because", Verdict.INCORRECT),
        ("#### 18\n\nQuestion: what next", Verdict.CORRECT),
    ],
)
def test_math_answer_cut_off_completion_is_judged_only_where_an_answer_was_given(
    completion: str, verdict: Verdict
) -> None:
    assert graded(completion, finish_reason="length").verdict is verdict


def test_math_answer_engine_error_or_empty_reference_is_an_error() -> None:
    assert graded("#### 18", finish_reason="error").verdict is Verdict.ERROR
    assert graded("#### 18", reference=" ").verdict is Verdict.ERROR


def test_math_answer_does_not_judge_steps() -> None:
    assert graded("1+1=3. #### 18").steps is None


@given(
    numerator=st.integers(-(10**12), 10**12),
    denominator=st.integers(1, 10**6),
    marker=st.sampled_from(["#### {}", "The answer is {}.", "\\boxed{{{}}}", "A: {}", "So they have {} left."]),
)
def test_math_answer_any_fraction_equals_itself_and_not_its_neighbour(
    numerator: int, denominator: int, marker: str
) -> None:
    written = marker.format(f"{numerator}/{denominator}")
    value = Fraction(numerator, denominator)

    assert graded(written, reference=str(value)).verdict is Verdict.CORRECT
    assert graded(written, reference=str(value + 1)).verdict is Verdict.INCORRECT


SCALES = {"thousand", "million", "billion", "trillion", "pi", "sqrt", "percent"}


@given(
    unit=st.one_of(
        st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), min_size=2, max_size=9),
        st.sampled_from(["pints", "pieces", "nickels", "yards", "xylophones", "zebras", "euros", "orders", "e-mails"]),
    ).filter(lambda word: word.removesuffix("s") not in SCALES),
    marker=st.sampled_from(["#### {}", "The answer is {}.", "\\boxed{{{}}}", "A: {}", "So they have {} left."]),
)
def test_math_answer_any_word_after_the_number_is_a_unit(unit: str, marker: str) -> None:
    assert graded(marker.format(f"18 {unit}")).verdict is Verdict.CORRECT


@given(value=st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_math_answer_decimal_with_separators_has_one_canonical_form(value: object) -> None:
    plain, grouped = f"{value}", f"{value:,}"

    assert graded(f"#### {grouped}", reference=plain).verdict is Verdict.CORRECT
    assert graded(f"#### {grouped}").predicted_answer == expected_answer(plain)


@pytest.mark.parametrize(
    "hostile",
    [
        "#### " + "9" * 1_000_000,
        "9" * 1_000_000,
        "9," * 500_000,
        "9 " * 500_000,
        "1/" * 500_000,
        "#### " * 200_000,
        "\\boxed{" * 150_000,
        "\\boxed{" + "{}" * 500_000,
        "\\frac{" * 150_000 + "#### 1",
        "answer is " * 100_000,
        "A:" * 500_000,
        "\n" * 1_000_000,
        "\n" + " " * 1_000_000 + "Q",
        "<think>" * 150_000,
        "$" * 1_000_000 + "1",
        "-" * 1_000_000 + "1",
        "#### 1e" + "9" * 100_000,
        "#### " + "1,234" * 200_000,
    ],
    ids=range(18),
)
@pytest.mark.timeout(20)
def test_math_answer_hostile_text_is_judged_with_bounded_output(hostile: str) -> None:
    verdict = graded(hostile)

    assert verdict.verdict is not Verdict.CORRECT
    assert len(verdict.predicted_answer or "") <= 1000
    assert len(verdict.explanation) <= 200


@given(
    st.text(
        alphabet=st.sampled_from("0123456789.,-+*/=()[]{}\\$%#abAQ: \n\N{MINUS SIGN}\N{SUPERSCRIPT TWO}"), max_size=80
    )
)
def test_math_answer_any_text_gets_a_verdict(text: str) -> None:
    assert graded(text).verdict is not None
    assert graded("#### 1", reference=text).verdict is not None


def test_math_answer_huge_equal_texts_are_not_taken_for_equal_by_their_beginning() -> None:
    digits = "9" * 2000

    assert graded(f"#### {digits}1", reference=f"#### {digits}2").verdict is not Verdict.CORRECT


def test_scorer_named_gives_each_registered_scorer_under_its_name() -> None:
    assert scorer_named("math_answer").name == "math_answer"
    assert scorer_named("steps").name == "steps"
