"""The pool of judges: real math-verify in real processes, hostile pairs, processes that die or never start."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from math_verify import parse, verify

from service.scoring import Verdict
from service.scoring.latex import MathLatex, Open
from service.scoring.symbolic import Pair, Ruling
from tests.service.scoring.latex_pairs import JUDGED_OTHER, JUDGED_SAME, OTHER, SAME
from workers.math_pool import MathPool

FINE = Pair("1", r"\sin^2 x+\cos^2 x")


@pytest.fixture(scope="module")
def pool() -> Iterator[MathPool]:
    with MathPool(deadline_s=20) as pool:
        yield pool


@pytest.mark.parametrize(
    ("reference", "answer", "verdict"),
    [(*pair, Verdict.CORRECT) for pair in JUDGED_SAME] + [(*pair, Verdict.INCORRECT) for pair in JUDGED_OTHER],
)
def test_math_pool_decides_what_the_scorer_leaves_open(
    pool: MathPool, reference: str, answer: str, verdict: Verdict
) -> None:
    scorer = MathLatex(judge=pool)
    completion = f"The answer is $\\boxed{{{answer}}}$."

    assert isinstance(scorer.begin(completion=completion, reference=reference, finish_reason="stop"), Open)
    found = scorer.grade(completion=completion, reference=reference, finish_reason="stop", question="", structure=None)
    assert found.verdict is verdict, found.explanation


@pytest.mark.parametrize(
    ("pair", "ruling"),
    [
        (Pair("1", r"\input{/etc/passwd}"), Ruling.UNREADABLE),
        (Pair("1", r"\frac{1}{0}"), Ruling.UNREADABLE),
        (Pair("1", "\ud800"), Ruling.UNREADABLE),
        (Pair("1", "\N{CJK UNIFIED IDEOGRAPH-7B54}"), Ruling.UNREADABLE),
        (Pair("", "1"), Ruling.UNREADABLE_REFERENCE),
        (Pair("1", "\0\n\r2"), Ruling.DIFFERENT),
    ],
)
def test_math_pool_odd_text_has_its_ruling(pool: MathPool, pair: Pair, ruling: Ruling) -> None:
    assert pool.judge([pair])[0].ruling is ruling


def test_math_pool_hostile_pair_is_a_timeout_and_no_other_pair_is_lost() -> None:
    hostile = [Pair("1", "100000000!"), Pair("1", "2^{2^{2^{2^{9}}}}")]
    with MathPool(num_processes=2, deadline_s=2) as pool:
        judged = pool.judge([FINE, hostile[0], Pair("2", r"\sqrt{4}"), hostile[1], FINE, Pair("1", r"\ln 2")])

        assert [judgement.ruling for judgement in judged] == [
            Ruling.SAME, Ruling.TIMEOUT, Ruling.SAME, Ruling.TIMEOUT, Ruling.SAME, Ruling.DIFFERENT,
        ]  # fmt: skip
        # what hung is remembered: it costs its deadline once
        before = pool.pids
        assert pool.judge([hostile[0]])[0].ruling is Ruling.TIMEOUT
        assert pool.pids == before


def stand_in(path: Path, body: str) -> list[str]:
    """A process that says it is ready, then does `body` with each `line`."""
    path.write_text(
        "import json, os, sys, pathlib\n"
        "def say(ruling):\n"
        '    print(json.dumps({"ruling": ruling, "explanation": ""}), flush=True)\n'
        'say("ready")\n'
        f"for line in sys.stdin:\n    asked = json.loads(line)\n    {body}\n"
    )
    return [sys.executable, str(path)]


def test_math_pool_process_that_dies_costs_its_pair_alone(tmp_path: Path) -> None:
    command = stand_in(tmp_path / "mortal.py", 'os._exit(1) if asked["answer"] == "die" else say("same")')
    with MathPool(command=command, num_processes=2) as pool:
        pairs = [Pair("1", "die" if index == 40 else str(index)) for index in range(100)]
        rulings = [judgement.ruling for judgement in pool.judge(pairs)]

    assert [index for index, ruling in enumerate(rulings) if ruling is not Ruling.SAME] == [40]
    assert rulings[40] is Ruling.ERROR


def test_math_pool_equal_pairs_are_asked_once(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    body = f'say("different" if pathlib.Path({str(asked)!r}).open("a").write("x") else "")'
    with MathPool(command=stand_in(tmp_path / "counts.py", body)) as pool:
        pool.judge([Pair("1", "2")] * 50 + [Pair("1", "3")])
        pool.judge([Pair("1", "2")])

    assert asked.read_text() == "xx"


@pytest.mark.parametrize("body", ["raise SystemExit(3)", "print('no ruling')", "print('{}', end='x' * 100_000)"])
def test_math_pool_judge_that_does_not_start_is_an_error_for_all(tmp_path: Path, body: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(body)
    with MathPool(command=[sys.executable, str(path)]) as pool:
        judged = pool.judge([FINE, Pair("1", "2")])

        assert [judgement.ruling for judgement in judged] == [Ruling.ERROR, Ruling.ERROR]
        assert pool.pids == []


def test_math_pool_close_leaves_no_process() -> None:
    pool = MathPool()
    pool.judge([FINE])
    pids = pool.pids
    pool.close()

    assert len(pids) == 1
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_math_pool_process_sees_no_secret_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOFLOP_API_KEY", "secret")
    command = stand_in(tmp_path / "looks.py", 'say("different" if "ISOFLOP_API_KEY" in os.environ else "same")')
    with MathPool(command=command) as pool:
        assert pool.judge([FINE])[0].ruling is Ruling.SAME


def listed_disagreements() -> dict[tuple[str, str], str]:
    """Reference, answer and what is right, of each row of the table in docs/scoring.md."""
    text = (Path(__file__).parents[2] / "docs" / "scoring.md").read_text(encoding="utf-8")
    section = text.split("## Where math-verify differs")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \| (yes|no) \|", section, re.MULTILINE)
    return {(reference, answer): right for reference, answer, right in rows}


def test_disagreements_with_math_verify_over_the_table_are_those_listed() -> None:
    wanted = {pair: "yes" for pair in [*SAME, *JUDGED_SAME]} | {pair: "no" for pair in [*OTHER, *JUDGED_OTHER]}
    found: dict[tuple[str, str], str] = {}
    for (reference, answer), is_same in wanted.items():
        gold, target = (parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (reference, answer))  # type: ignore[arg-type]
        if verify(gold, target, timeout_seconds=None) is not (is_same == "yes"):
            found[reference, answer] = is_same

    assert found == listed_disagreements()


def test_math_pool_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="num_processes must be >= 1"):
        MathPool(num_processes=0)
