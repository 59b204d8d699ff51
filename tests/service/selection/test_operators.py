"""The operators of a selection: what each keeps, nestedness, shares and caps, on columns made by hand or by chance."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidInput
from service.selection.operators import (
    NO,
    UNKNOWN,
    YES,
    Candidates,
    Chosen,
    Ints,
    Keys,
    NothingSelected,
    choose,
    seeded_order,
)
from service.selection.spec import Duplicates, Keep, SelectionSource, SelectionSpec


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    source: int = 0
    problem: int = 0
    correct: int = YES
    steps: int = YES
    judged: int = UNKNOWN
    answer: int = 1
    text: int = 0
    reason: str = "stop"


def candidates(samples: list[Sample], *, num_problems: int = 8) -> Candidates:
    columns = {name: [getattr(sample, name) for sample in samples] for name in Sample.__slots__}
    return Candidates(
        source=np.array(columns["source"], dtype=np.int64),
        problem=np.array(columns["problem"], dtype=np.int64),
        identity=seeded_order(np.arange(len(samples), dtype=np.uint64), 99, "ids of these tests"),
        has_error=np.array([reason == "error" for reason in columns["reason"]], dtype=bool),
        is_truncated=np.array([reason == "length" for reason in columns["reason"]], dtype=bool),
        correct=np.array(columns["correct"], dtype=np.int8),
        steps=np.array(columns["steps"], dtype=np.int8),
        judged=np.array(columns["judged"], dtype=np.int8),
        answer=np.array(columns["answer"], dtype=np.int64),
        problem_key=seeded_order(np.arange(num_problems, dtype=np.uint64), 7, "problems of these tests"),
    )


def spec(*shares: float | None, **changes: object) -> SelectionSpec:
    sources = tuple(SelectionSource(job=f"job-{i}", share=share) for i, share in enumerate(shares or (None, None)))
    if changes.get("keep") is Keep.judged:
        changes.setdefault("judges", ("judge",))
    return SelectionSpec(name="set", sources=sources, **{"duplicates": Duplicates.keep, **changes})  # type: ignore[arg-type]


def run(document: SelectionSpec, samples: list[Sample], *, held_out: tuple[int, ...] = ()) -> Chosen:
    """The key of a text is its number by the exact rule, and its tens by the coarser ones."""
    texts = np.array([sample.text for sample in samples], dtype=np.uint64)

    def keys(rule: Duplicates, rows: Ints) -> Keys:
        return texts[rows] if rule is Duplicates.exact else texts[rows] // np.uint64(10)

    return choose(document, candidates(samples), keys=keys, find_held_out=lambda problems: np.isin(problems, held_out))


def kept(document: SelectionSpec, samples: list[Sample], **options: tuple[int, ...]) -> set[int]:
    return set(run(document, samples, **options).rows.tolist())


SAMPLES = st.lists(
    st.builds(
        Sample,
        source=st.integers(0, 1),
        problem=st.integers(0, 7),
        correct=st.sampled_from([YES, YES, YES, NO, UNKNOWN]),
        judged=st.sampled_from([YES, YES, NO, UNKNOWN]),
        text=st.integers(0, 39),
        reason=st.sampled_from(["stop", "stop", "stop", "length", "error"]),
    ),
    min_size=1,
    max_size=60,
)
ANY_SPEC = st.builds(
    lambda **changes: spec(None, None, **changes),
    keep=st.sampled_from(Keep),
    duplicates=st.sampled_from(Duplicates),
    per_problem=st.sampled_from([None, 1, 2, 5]),
    problems=st.sampled_from([None, 0.2, 0.5, 1.0]),
    seed=st.integers(0, 3),
)


def kept_or_nothing(document: SelectionSpec, samples: list[Sample]) -> set[int]:
    try:
        return kept(document, samples)
    except NothingSelected:
        return set()


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (Keep.all, {0, 1, 2, 3, 4, 5}),
        (Keep.correct, {0, 1, 2}),
        (Keep.verified, {0}),
    ],
)
def test_keep_takes_what_is_judged_so_and_never_errors(keep: Keep, expected: set[int]) -> None:
    samples = [
        Sample(),
        Sample(steps=NO),
        Sample(steps=UNKNOWN),
        Sample(correct=NO),
        Sample(correct=UNKNOWN),
        Sample(reason="length"),  # its answer was found right before the end
        Sample(reason="error"),
    ]
    assert kept(spec(keep=keep), samples) == expected


def test_keep_judged_takes_what_the_judges_found_right_whatever_the_answer() -> None:
    samples = [
        Sample(judged=YES),
        Sample(judged=YES, correct=NO),
        Sample(judged=NO),
        Sample(judged=UNKNOWN),
        Sample(judged=YES, reason="length"),
        Sample(judged=YES, reason="error"),
    ]
    assert kept(spec(keep=Keep.judged), samples) == {0, 1}


def test_keep_judged_that_leaves_nothing_says_what_the_judges_found() -> None:
    samples = [Sample(judged=NO), Sample(judged=UNKNOWN), Sample(judged=UNKNOWN), Sample(judged=YES, reason="length")]
    with pytest.raises(NothingSelected, match="judges found 1 right and 1 wrong, 2 had a tie, no readable vote"):
        kept(spec(keep=Keep.judged), samples)


def test_keep_majority_takes_the_most_frequent_answer_of_a_problem_over_all_sources() -> None:
    samples = [
        Sample(answer=5, correct=NO),
        Sample(answer=5, correct=NO, source=1),
        Sample(answer=6),
        Sample(answer=-1),
        Sample(problem=1, answer=6),
        Sample(problem=1, answer=6, reason="length"),
        Sample(problem=2, answer=6),
        Sample(problem=2, answer=5),
    ]
    assert kept(spec(keep=Keep.majority), samples) == {0, 1, 4}


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 3)), min_size=1, max_size=40))
def test_keep_majority_equals_counting_by_hand(votes: list[tuple[int, int]]) -> None:
    samples = [Sample(problem=problem, answer=answer) for problem, answer in votes]
    expected: set[int] = set()
    for row, (problem, answer) in enumerate(votes):
        counts = Counter(other for where, other in votes if where == problem and other >= 0)
        if answer >= 0 and all(counts[answer] > count for other, count in counts.items() if other != answer):
            expected.add(row)

    assert kept_or_nothing(spec(keep=Keep.majority), samples) == expected


@pytest.mark.parametrize(("rule", "distinct"), [(Duplicates.exact, 5), (Duplicates.equations, 3), (Duplicates.keep, 6)])
def test_duplicates_one_of_each_solution_stays_for_every_problem(rule: Duplicates, distinct: int) -> None:
    texts = [(0, 11), (0, 11), (0, 12), (0, 25), (1, 11), (1, 12)]
    samples = [Sample(problem=problem, text=text, source=row % 2) for row, (problem, text) in enumerate(texts)]

    rows = kept(spec(duplicates=rule), samples)

    assert len(rows) == distinct
    if rule is Duplicates.exact:
        assert {texts[row] for row in rows} == set(texts)


def test_decontaminate_drops_all_samples_of_a_held_out_problem() -> None:
    samples = [Sample(problem=problem) for problem in (0, 1, 1, 2)]
    assert kept(spec(), samples, held_out=(1,)) == {0, 3}


@given(samples=SAMPLES, document=ANY_SPEC, cap=st.integers(1, 4))
def test_per_problem_no_problem_has_more_and_none_loses_needlessly(
    samples: list[Sample], document: SelectionSpec, cap: int
) -> None:
    uncapped = kept_or_nothing(dataclasses.replace(document, per_problem=None), samples)
    capped = kept_or_nothing(dataclasses.replace(document, per_problem=cap), samples)

    before = Counter(samples[row].problem for row in uncapped)
    assert Counter(samples[row].problem for row in capped) == {p: min(cap, count) for p, count in before.items()}


@given(samples=SAMPLES, document=ANY_SPEC, few=st.integers(1, 3), more=st.integers(0, 3))
def test_per_problem_a_smaller_cap_gives_a_subset(
    samples: list[Sample], document: SelectionSpec, few: int, more: int
) -> None:
    small, large = (dataclasses.replace(document, per_problem=cap) for cap in (few, few + more))
    assert kept_or_nothing(small, samples) <= kept_or_nothing(large, samples)


@given(samples=SAMPLES, document=ANY_SPEC, shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)))
def test_problems_a_smaller_share_gives_a_subset(
    samples: list[Sample], document: SelectionSpec, shares: tuple[float, float]
) -> None:
    small, large = (dataclasses.replace(document, problems=share) for share in sorted(shares))
    assert kept_or_nothing(small, samples) <= kept_or_nothing(large, samples)


def test_problems_are_the_same_whatever_jobs_solved_of_them() -> None:
    document = spec(None, problems=0.5)
    easy = [Sample(problem=problem) for problem in range(8)]
    chosen = {easy[row].problem for row in kept(document, easy)}
    assert len(chosen) == 4

    hard = [Sample(problem=problem, correct=YES if problem in (*chosen, 0) else NO) for problem in range(8)]
    assert {hard[row].problem for row in kept(document, hard)} == chosen


@given(samples=SAMPLES, document=ANY_SPEC, few=st.integers(1, 40), shares=st.sampled_from([(None, None), (1.0, 3.0)]))
def test_rows_the_first_ones_of_a_larger_selection_are_the_smaller_one(
    samples: list[Sample], document: SelectionSpec, few: int, shares: tuple[float | None, float | None]
) -> None:
    mixed = dataclasses.replace(document, sources=spec(*shares).sources)
    try:
        large = run(mixed, samples).rows.tolist()
    except NothingSelected:
        return
    assert run(dataclasses.replace(mixed, rows=few), samples).rows.tolist() == large[:few]


@given(
    counts=st.lists(st.integers(1, 80), min_size=2, max_size=3),
    shares=st.lists(st.floats(0.05, 20), min_size=3, max_size=3),
    rows=st.sampled_from([None, 1, 7, 50]),
)
def test_shares_hold_to_one_row_and_as_far_as_the_first_source_lasts(
    counts: list[int], shares: list[float], rows: int | None
) -> None:
    shares = shares[: len(counts)]
    samples = [Sample(source=source) for source, count in enumerate(counts) for _ in range(count)]
    chosen = run(spec(*shares, rows=rows), samples)
    taken = chosen.filters[-1].rows_by_source

    for source, count in enumerate(taken):
        assert abs(count - sum(taken) * shares[source] / sum(shares)) <= 1
    assert rows == sum(taken) or any(count == available for count, available in zip(taken, counts, strict=True))


def test_choice_does_not_depend_on_the_order_of_samples_but_on_the_seed() -> None:
    samples = [Sample(problem=row % 8, text=row % 30) for row in range(200)]
    columns = candidates(samples)
    shuffled = np.random.default_rng(1).permutation(len(samples))
    document = spec(duplicates=Duplicates.exact, per_problem=2, problems=0.6, rows=7)

    def ids(document: SelectionSpec, order: Ints) -> list[int]:
        arrays = {field.name: getattr(columns, field.name) for field in dataclasses.fields(columns)}
        moved = {name: array if name == "problem_key" else array[order] for name, array in arrays.items()}
        texts = np.array([sample.text for sample in samples], dtype=np.uint64)[order]
        chosen = choose(
            document,
            Candidates(**moved),
            keys=lambda rule, rows: texts[rows],
            find_held_out=lambda problems: np.zeros(len(problems), dtype=bool),
        )
        return moved["identity"][chosen.rows].tolist()

    straight = np.arange(len(samples))
    assert ids(document, straight) == ids(document, shuffled)
    assert ids(document, straight) != ids(dataclasses.replace(document, seed=1), straight)


def test_seeded_order_spreads_evenly_and_differs_by_purpose() -> None:
    ids = np.arange(10_000, dtype=np.uint64)
    first, second = seeded_order(ids, 0, "samples"), seeded_order(ids, 0, "problems")

    assert len(np.unique(first)) == len(ids)
    assert np.histogram(first.astype(float), bins=10, range=(0, 2.0**64))[0] == pytest.approx(1000, abs=150)
    assert abs(np.corrcoef(first.astype(float), second.astype(float))[0, 1]) < 0.05


def test_nothing_selected_names_the_filter_and_all_counts() -> None:
    samples = [Sample(correct=NO), Sample(correct=NO), Sample(reason="error")]
    with pytest.raises(NothingSelected, match=r"`keep` leaves no row; .*: samples 3, completions 2, keep 0$"):
        run(spec(), samples)


def test_nothing_selected_by_shares_names_the_source_without_rows() -> None:
    with pytest.raises(NothingSelected, match=r"`shares` leaves no row.*job-0 1, job-1 0$"):
        run(spec(1.0, 1.0), [Sample(), Sample(source=1, correct=NO)])


def test_filters_count_rows_of_each_source_after_each_step() -> None:
    samples = [Sample(), Sample(), Sample(source=1), Sample(source=1, correct=NO), Sample(source=1, reason="error")]

    filters = {count.name: (count.rows, count.rows_by_source) for count in run(spec(rows=2), samples).filters}

    assert list(filters) == [
        "samples",
        "completions",
        "keep",
        "duplicates",
        "decontaminate",
        "problems",
        "per_problem",
        "shares",
        "rows",
    ]
    assert filters["samples"] == (5, (2, 3))
    assert filters["completions"] == (4, (2, 2))
    assert filters["keep"] == (3, (2, 1))
    assert filters["rows"][0] == 2


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (spec(rows=0), r"rows: got 0, allowed: 1 and more"),
        (spec(per_problem=-1), r"per_problem: got -1"),
        (spec(problems=0.0), r"problems: got 0\.0, allowed: a share above 0 and up to 1"),
        (spec(problems=1.5), r"problems: got 1\.5"),
        (spec(1.0, None), r"share: got 1, none; allowed: a number above 0 for every source, or for none"),
        (spec(1.0, 0.0), r"share: got 1, 0;"),
        (spec(1.0, float("nan")), r"share: got 1, nan;"),
        (
            spec(judges=("judge",)),
            r"judges: got keep 'correct' with 1 judges, allowed: at least one job with keep 'judg",
        ),
        (spec(keep=Keep.judged, judges=()), r"judges: got keep 'judged' with 0 judges"),
        (SelectionSpec(name="set", sources=()), r"sources: got none"),
    ],
)
def test_limits_that_mean_nothing_are_refused_by_name(document: SelectionSpec, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        run(document, [Sample()])
