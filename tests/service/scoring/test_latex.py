"""Judgements of `math_latex` that it makes by itself: the table, where the answer is found, and hostile text."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scoring import Graded, Verdict, scorer_named, with_judge
from service.scoring.latex import MathLatex, Open
from service.scoring.symbolic import Judgement, Pair, Ruling
from tests.service.scoring.latex_pairs import JUDGED_OTHER, JUDGED_SAME, OTHER, SAME


def graded(completion: str, reference: str, *, finish_reason: str = "stop") -> Graded:
    return MathLatex().grade(
        completion=completion, reference=reference, finish_reason=finish_reason, question="", structure=None
    )


def boxed(answer: str) -> str:
    return f"So the answer is $\\boxed{{{answer}}}$."


class Says:
    """A judge that gives the same ruling always and keeps what it was asked."""

    def __init__(self, ruling: Ruling) -> None:
        self.ruling = ruling
        self.asked: list[Pair] = []

    def judge(self, pairs: Sequence[Pair]) -> list[Judgement]:
        self.asked += pairs
        return [Judgement(self.ruling, "said so") for _ in pairs]


# \text{5} is a number in words, which is the judge's
ASKED = {("5", r"\text{5}")}


@pytest.mark.parametrize(("reference", "answer"), [pair for pair in SAME if pair not in ASKED])
def test_math_latex_same_answer_is_correct_and_one_vote(reference: str, answer: str) -> None:
    found = graded(boxed(answer), reference)

    assert found.verdict is Verdict.CORRECT, found.explanation
    assert found.predicted_answer == MathLatex().expected_answer(reference)


@pytest.mark.parametrize(("reference", "answer"), OTHER)
def test_math_latex_other_answer_is_incorrect(reference: str, answer: str) -> None:
    found = graded(boxed(answer), reference)

    assert found.verdict is Verdict.INCORRECT, found.explanation
    assert found.predicted_answer != MathLatex().expected_answer(reference)


@pytest.mark.parametrize(("reference", "answer"), [*JUDGED_SAME, *JUDGED_OTHER])
def test_math_latex_what_is_not_certain_is_left_to_the_judge(reference: str, answer: str) -> None:
    judge = Says(Ruling.SAME)
    found = with_judge(scorer_named("math_latex"), judge).grade(
        completion=boxed(answer), reference=reference, finish_reason="stop", question="", structure=None
    )

    assert judge.asked == [Pair(reference, answer)]
    assert found.verdict is Verdict.CORRECT


@pytest.mark.parametrize(
    ("ruling", "finish_reason", "verdict"),
    [
        (Ruling.SAME, "stop", Verdict.CORRECT),
        (Ruling.DIFFERENT, "stop", Verdict.INCORRECT),
        (Ruling.UNREADABLE, "stop", Verdict.UNPARSABLE),
        (Ruling.UNREADABLE_REFERENCE, "stop", Verdict.ERROR),
        (Ruling.TIMEOUT, "stop", Verdict.TIMEOUT),
        (Ruling.ERROR, "stop", Verdict.ERROR),
        (Ruling.DIFFERENT, "length", Verdict.INCOMPLETE),
        (Ruling.UNREADABLE, "length", Verdict.INCOMPLETE),
        (Ruling.TIMEOUT, "length", Verdict.TIMEOUT),
        (Ruling.SAME, "length", Verdict.CORRECT),
    ],
)
def test_math_latex_ruling_becomes_its_verdict(ruling: Ruling, finish_reason: str, verdict: Verdict) -> None:
    found = MathLatex(judge=Says(ruling)).grade(
        completion="The answer is \\log 7", reference="x^x", finish_reason=finish_reason, question="", structure=None
    )

    assert found.verdict is verdict


def test_math_latex_without_a_judge_an_open_answer_is_an_error_never_incorrect() -> None:
    assert graded(boxed(r"\log 7"), "x^x").verdict is Verdict.ERROR


@pytest.mark.parametrize(
    ("completion", "reference"),
    [
        (r"Thus $x = \boxed{\frac{1}{2}}$.", r"\frac12"),
        (r"first \boxed{7}, and then, as we saw above, \boxed{18}", "18"),
        (r"the roots are $\boxed{1}$ and $\boxed{2}$.", "1,2"),
        (r"\boxed{\text{(A) } 5}", r"5"),
        (r"\fbox{18}", "18"),
        (r"\boxed 18", "18"),
        (r"#### \frac{3}{4}", r"\frac{3}{4}"),
        ("#### Step 3: add\nSo it is $\\boxed{4}$.", "4"),
        (r"The answer is $\sqrt{2}$.", r"\sqrt{2}"),
        (r"The final answer is \(x^2+1\), as wanted.", "1+x^2"),
        ("The answer is:\n\n$$\\frac{1}{3}$$", r"\frac13"),
        ("**Answer:** 18", "18"),
        (r"Therefore $f(2) = 2\sqrt{3}$.", r"2\sqrt{3}"),
        ("So we get 12 apples.", "12"),
        (r"<think>maybe \boxed{3}</think> It is \boxed{4}", "4"),
        (r"\boxed{4}", r"We add 2 and 2, so \boxed{4}."),
        (r"\boxed{4}", "2+2=4\n#### 4"),
        (r"\boxed{x=\{1,2\}}", r"\{2,1\}"),
        ("\\boxed{5}\n\nQuestion: what is 1+1?\nAnswer: \\boxed{2}", "5"),
    ],
)
def test_math_latex_answer_is_found_where_it_is_announced(completion: str, reference: str) -> None:
    judge = Says(Ruling.DIFFERENT)
    found = MathLatex(judge=judge).grade(
        completion=completion, reference=reference, finish_reason="stop", question="", structure=None
    )

    assert found.verdict is (Verdict.INCORRECT if "(A)" in completion else Verdict.CORRECT), found


@pytest.mark.parametrize(
    ("completion", "finish_reason", "verdict"),
    [
        ("I do not know.", "stop", Verdict.UNPARSABLE),
        ("", "stop", Verdict.UNPARSABLE),
        (r"\boxed{}", "stop", Verdict.UNPARSABLE),
        ("<think> it is 5", "stop", Verdict.INCOMPLETE),
        (r"so \boxed{1", "length", Verdict.INCOMPLETE),
        (r"we get $x = 1$ and", "length", Verdict.INCOMPLETE),
        ("The answer is 1", "length", Verdict.INCOMPLETE),
        ("#### 1", "length", Verdict.INCOMPLETE),
        (r"\boxed{1}", "length", Verdict.INCORRECT),
        (r"\boxed{12} because", "length", Verdict.CORRECT),
        ("The answer is 12", "length", Verdict.CORRECT),
        (r"\boxed{12}", "error", Verdict.ERROR),
    ],
)
def test_math_latex_cut_off_or_wordless_completion_gets_its_verdict(
    completion: str, finish_reason: str, verdict: Verdict
) -> None:
    assert graded(completion, "12", finish_reason=finish_reason).verdict is verdict


@pytest.mark.parametrize("reference", ["", "  ", "$", r"\boxed{}", "x" * 2000])
def test_math_latex_reference_that_is_none_is_an_error(reference: str) -> None:
    assert graded(r"\boxed{1}", reference).verdict is Verdict.ERROR


HOSTILE = [
    "100000000!",
    "((9!)!)!",
    "2^{2^{2^{2^{2^{9}}}}}",
    "9^{9^{9}}",
    "10^{999999999}",
    "(x+y+z+w)^{12}(x+y+z+w)^{12}(x+y+z+w)^{12}",
    "(a+b)^{99999}",
    r"\sqrt{99999999999999999999999999999999999999999}",
    r"\binom{999999999}{499999999}",
    "9" * 900,
    "0." + "9" * 900,
    "{" * 450 + "1" + "}" * 450,
    "(" * 450 + "1" + ")" * 450,
    r"\frac{1}{" * 90 + "2" + "}" * 90,
    r"\sqrt{" * 120 + "2" + "}" * 120,
    "-" * 900 + "1",
    "1" + "+1" * 140,
    "x" * 250,
    "1,2," * 240,
    r"\{" * 300,
    r"\begin{pmatrix}" * 50,
    r"\begin{pmatrix} 1 \\ 2 & 3 \end{pmatrix}",
    r"\frac{1}{0}",
    r"0^{-1}",
    r"0^0",
    r"\input{/etc/passwd}",
    r"\write18{ls}",
    "\ud800",
    "\N{RIGHT-TO-LEFT OVERRIDE}5\0",
    "\N{CJK UNIFIED IDEOGRAPH-7B54}",
    "\N{SUPERSCRIPT TWO}",
    "\N{ARABIC-INDIC DIGIT FIVE}",
    "\\",
    "^",
    "_",
    "!",
    r"\text{",
    "&",
    "1e999999999",
    r"1_{999999999999}",
    r"1_2_3",
    r"x_{}",
]


@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("is_reference", [False, True])
def test_math_latex_hostile_text_is_left_to_the_judge_or_judged_at_once(answer: str, is_reference: bool) -> None:
    judge = Says(Ruling.TIMEOUT)
    found = MathLatex(judge=judge).grade(
        completion=boxed("7" if is_reference else answer),
        reference=answer if is_reference else "7",
        finish_reason="stop",
        question="",
        structure=None,
    )

    assert found.verdict is not Verdict.CORRECT


@pytest.mark.parametrize(
    "completion",
    ["\\boxed{" * 100_000, "$" * 1_000_000, "{" * 1_000_000, "answer is " * 100_000, "#### " * 200_000, "1" * 1_000_000,
     "\\boxed{" + "1+" * 500_000 + "1}", "\\boxed{1} and " * 80_000, "\\(" * 300_000,
     "$$" + "x" * 1_000_000, "\\[" + "\n" * 1_000_000],
    ids=range(11),
)  # fmt: skip
def test_math_latex_megabyte_is_judged_without_a_hang(completion: str) -> None:
    assert graded(completion, "7").verdict is not Verdict.CORRECT


@given(st.text(alphabet="01x.,{}()[]^_\\frac+-*/=<>$ \n&!%", max_size=80), st.text(max_size=30))
def test_math_latex_any_text_is_judged_and_equal_to_itself(answer: str, noise: str) -> None:
    judge = Says(Ruling.TIMEOUT)
    scorer = MathLatex(judge=judge)
    for completion, reference in ((f"\\boxed{{{answer}}}", noise), (noise, answer), (answer + noise, answer)):
        found = scorer.grade(
            completion=completion, reference=reference, finish_reason="stop", question="", structure=None
        )
        assert found.verdict is not None
    opened = scorer.begin(completion=f"#### {answer}", reference=f"#### {answer}", finish_reason="stop")
    assert isinstance(opened, Open) or opened.verdict is not Verdict.INCORRECT


@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
def test_math_latex_fractions_are_the_same_only_if_they_are_equal(first: object, second: object) -> None:
    top, _, bottom = str(first).partition("/")
    found = graded(boxed(f"\\frac{{{top}}}{{{bottom or 1}}}"), str(second))

    assert (found.verdict is Verdict.CORRECT) == (first == second)
