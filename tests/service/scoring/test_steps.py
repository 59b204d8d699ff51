"""Judgements of the `steps` scorer and of the calculations it reads."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring import Steps
from service.scoring.calculations import MAX_CALCULATIONS, calculations
from service.scoring.expressions import UnreadableExpression, evaluate
from service.scoring.steps import StepCheck


def steps_of(completion: str) -> Steps | None:
    return (
        StepCheck().grade(completion=completion, reference="", finish_reason="stop", question="", structure=None).steps
    )


@pytest.mark.parametrize(
    "completion",
    [
        "12+3=15. 15-4=11. #### 11",
        "First 12+3=15. Then 15*2=30. #### 30",
        "So 8/2=4. #### 4",
        "48/2 = <<48/2=24>>24 clips.\n48+24 = <<48+24=72>>72.\n#### 72",
        "<<12/60=0.2>> <<0.2*50=10>>",
        "<<(3+5)*2=16>>",
        "<<-(3-5)*2=4>>",
        "<<2*(3+(4-1))=12>>",
        "<<$5*3=$15>>",
        "<<1,000*3=3,000>>",
        "<<20*.5=10.0>>",
        "<<100/3=33.33>>",
        "<<2/3=.67>>",
        "<<-1/3=-0.33>>",
        "<<50%*40=20>>",
        "<<5/20*100=25%>>",
        "<<5/20=25%>>",
        "<<1/3=33.3%>>",
        "<<100%-25%=75%>>",
        "<<560//10=56>>",
        "<<+30+46=76>>",
        "<<2*3=3+3=6>>",
        "12 + 3 = $15 in all",
        "It costs $12.50 + $3 = $15.50.",
        "12 x 3 = 36 and 36 \N{DIVISION SIGN} 6 = 6",
        "12 \N{MULTIPLICATION SIGN} 3 = 36",
        r"\(12 \times 3 = 36\)",
        r"$\frac{12}{4} = 3$",
        "- 5 + 3 = 8",
        "1) 5 + 3 = 8",
        "1. 5 + 3 = 8",
        "(5 + 3 = 8)",
        "x = 5 + 3 = 8",
        # the same mistake in prose beside a mark is not looked at
        "2+2=<<2+2=4>>4, so 2 + 2 = 5",
    ],
)
def test_steps_true_calculations_are_valid(completion: str) -> None:
    assert steps_of(completion) is Steps.VALID


@pytest.mark.parametrize(
    ("completion", "named"),
    [
        ("12+3=16. 16-4=12. #### 12", "12+3=16"),
        ("12+3=15. 15-4=12.", "15-4=12"),
        ("<<48/2=25>>25", "48/2=25"),
        ("<<7/2=4>>", "7/2=4"),
        ("7/2=3.", "7/2=3"),
        ("<<100/3=33.34>>", "100/3=33.34"),
        ("<<200/3=66.66>>", "200/3=66.66"),
        ("<<2*3=3+4=7>>", "2*3=3+4=7"),
        ("<<5=6>>", "5=6"),
        ("<<5/0=0>>", "5/0=0"),
        ("8/0=8.", "8/0=8"),
        ("0/0=0.", "0/0=0"),
        ("<<50%*40=2000>>", "50%*40=2000"),
        ("12 + 3 = $16 in all", "12+3=16"),
        ("He has 1,000 * 3 = 300.", "1000*3=300"),
    ],
)
def test_steps_false_calculation_is_invalid_and_named(completion: str, named: str) -> None:
    graded = StepCheck().grade(completion=completion, reference="", finish_reason="stop", question="", structure=None)

    assert graded.steps is Steps.INVALID
    assert named in graded.explanation
    assert graded.verdict is None


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "I think it is 18.",
        "#### 18",
        "x = 5",
        "2x + 3 = 7",
        "3 apples + 4 apples = 7 apples",
        "1 and 1/4 = 15",
        "60 students x 2/3 = 40 students",
        "17/3 = 5 and 2/3 loads",
        "$2.50 - $2.24 = 26 cents",
        "5 * 3 = 15 thousand",
        "2^3 + 1 = 9",
        "100/5 = 5A/5",
        "Week 2 = 35",
        "at 4:00+48=6",
        "16,0000/10=16000",
        "<<abc>>",
        "<<2**3=8>>",
        "<<1+1=2>> <<two+two=4>>",
        "<<5=5>>",
        "5 == 5",
    ],
)
def test_steps_nothing_to_judge_is_unknown(completion: str) -> None:
    assert steps_of(completion) is Steps.UNKNOWN


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> tuple[str, Fraction]:
    """An expression and its value, built together so that the value does not come from the parser."""
    kind = (
        draw(st.sampled_from(["number", "sum", "difference", "product", "quotient", "brackets"])) if depth else "number"
    )
    if kind == "number":
        cents = draw(st.integers(0, 10**6))
        return f"{cents // 100}.{cents % 100:02d}", Fraction(cents, 100)
    left, left_value = draw(expressions(depth=depth - 1))
    if kind == "brackets":
        return f"-({left})", -left_value
    right, right_value = draw(expressions(depth=depth - 1))
    if kind == "quotient" and right_value == 0:
        right, right_value = "4", Fraction(4)
    sign = {"sum": "+", "difference": "-", "product": "*", "quotient": "/"}[kind]
    value = {
        "sum": lambda: left_value + right_value,
        "difference": lambda: left_value - right_value,
        "product": lambda: left_value * right_value,
        "quotient": lambda: left_value / right_value,
    }[kind]()
    return f"({left}){sign} ({right})", value


@given(expressions())
def test_evaluate_gives_the_exact_value(expression: tuple[str, Fraction]) -> None:
    text, value = expression

    assert evaluate(text) == value


@given(left=st.integers(0, 10**6), right=st.integers(1, 10**6), sign=st.sampled_from("+-*/"), error=st.integers(-3, 3))
def test_steps_one_calculation_holds_exactly_when_it_is_true(left: int, right: int, sign: str, error: int) -> None:
    exact = {"+": left + right, "-": left - right, "*": left * right, "/": left // right}[sign]
    is_true = error == 0 and (sign != "/" or left % right == 0)

    for text in (f"{left}{sign}{right}={exact + error}.", f"<<{left} {sign} {right} = {exact + error}>>"):
        assert steps_of(text) is (Steps.VALID if is_true else Steps.INVALID)


@given(
    numerator=st.integers(1, 10**5), denominator=st.integers(1, 999), places=st.integers(1, 4), slip=st.integers(1, 9)
)
def test_steps_decimal_result_may_be_rounded_but_not_more(
    numerator: int, denominator: int, places: int, slip: int
) -> None:
    shown = round(Fraction(numerator, denominator) * 10**places)
    text = f"{shown // 10**places}.{shown % 10**places:0{places}d}"
    beyond = shown + slip
    wrong = f"{beyond // 10**places}.{beyond % 10**places:0{places}d}"
    is_tie = abs(Fraction(numerator, denominator) * 10**places - beyond) <= Fraction(1, 2)

    assert steps_of(f"<<{numerator}/{denominator}={text}>>") is Steps.VALID
    assert is_tie or steps_of(f"<<{numerator}/{denominator}={wrong}>>") is Steps.INVALID


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 2",
        "1+",
        "*1",
        "(1",
        "1)",
        "2(3)",
        "1..2",
        "7%3",
        "1,00",
        "a",
        "(" * 50 + "1" + ")" * 50,
        "1+" * 200 + "1",
        "9" * 60,
    ],
)
def test_evaluate_other_text_is_refused(text: str) -> None:
    with pytest.raises(UnreadableExpression):
        evaluate(text)


@pytest.mark.parametrize(
    "hostile",
    [
        "1+" * 500_000 + "1=2",
        "1=" * 500_000,
        "1+1=2 " * 200_000,
        "1+1=2. " * 150_000,
        "<<" * 500_000,
        "<<1+1=2>>" * 100_000,
        "<<" + "1" * 1_000_000 + "=1>>",
        "(" * 1_000_000 + "=1",
        "=" * 1_000_000,
        "1 x" * 300_000 + "=1",
        "\n- " * 300_000,
        r"\frac{" * 150_000 + "=",
        "9" * 1_000_000 + "*9=81",
    ],
    ids=range(13),
)
@pytest.mark.timeout(20)
def test_steps_hostile_text_reads_a_bounded_number_of_short_calculations(hostile: str) -> None:
    read = list(calculations(hostile))

    assert len(read) <= MAX_CALCULATIONS
    assert all(len(calculation.text) <= 1000 for calculation in read)


@given(st.text(alphabet=st.sampled_from("0123456789.,-+*/=()<>%$ x\\{}\n"), max_size=60))
def test_steps_any_text_is_judged(text: str) -> None:
    assert steps_of(text) in Steps
    assert steps_of(f"<<{text}>>") in Steps
