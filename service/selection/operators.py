"""From many samples to the rows of a training set: the operators of a selection, over columns.

Owns what each operator means and their order. Invariant: every choice follows an order made of the seed and of the
ids of samples and problems alone, so a selection is the same on any machine, and a tighter limit picks from what a
looser one keeps. Which limits nest: `rows` always; `problems` and `per_problem` as long as neither shares nor `rows`
cut after them, for two sets of the same size cannot contain each other. No Python loop over samples. Needs numpy.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from service.errors import InvalidInput
from service.selection.spec import Duplicates, Keep, SelectionSpec

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

YES, NO, UNKNOWN = 1, 0, -1

KeysOf = Callable[[Duplicates, Ints], Keys]
"""Rule and rows to one key a row: equal keys are the same solution by that rule."""
FindHeldOut = Callable[[Ints], Bools]
"""Problems to whether each is held out."""


class NothingSelected(InvalidInput):
    """A filter removed the last row. The message names it and says how many rows each filter left."""

    title = "nothing selected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """All samples of a selection's sources as columns, N samples of P problems.

    Args:
        source: int64 [N], index in the selection's sources.
        problem: int64 [N], 0..P-1; the same problem in two sources has one index.
        identity: uint64 [N], hash of the sample id.
        has_error: bool [N], a row that stands for a sample that was not drawn.
        is_truncated: bool [N], cut at max_tokens.
        correct: int8 [N], whether the answer is right: YES, NO, UNKNOWN.
        steps: int8 [N], whether the reasoning holds: YES, NO, UNKNOWN.
        judged: int8 [N], whether judges found it right: YES, NO, UNKNOWN.
        answer: int64 [N], equal numbers are equal answers; -1 where none was read.
        problem_key: uint64 [P], hash of the question; P counts problems without samples too.
    """

    source: Ints
    problem: Ints
    identity: Keys
    has_error: Bools
    is_truncated: Bools
    correct: npt.NDArray[np.int8]
    steps: npt.NDArray[np.int8]
    judged: npt.NDArray[np.int8]
    answer: Ints
    problem_key: Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterCount:
    """Rows left after a filter, in all and of each source."""

    name: str
    rows: int
    rows_by_source: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What a selection keeps.

    Args:
        rows: int64 [n], indices of the candidates in the seeded order: the first m are what `rows: m` would keep.
        filters: in the order in which they were applied, from all rows on.
    """

    rows: Ints
    filters: tuple[FilterCount, ...]


def choose(spec: SelectionSpec, candidates: Candidates, *, keys: KeysOf, find_held_out: FindHeldOut) -> Chosen:
    """Applies every operator of `spec` in its documented order.

    Args:
        keys: asked for rows that are left when duplicates are dropped.
        find_held_out: asked once, for the problems that are left then.

    Raises:
        NothingSelected: a filter removed everything.
        InvalidInput: a limit or a share is out of range.
    """
    check_limits(spec)
    order = seeded_order(candidates.identity, spec.seed, "samples")
    operators: tuple[tuple[str, Callable[[Ints], Ints]], ...] = (
        ("completions", lambda rows: rows[~candidates.has_error[rows]]),
        ("keep", functools.partial(_keep, spec.keep, candidates)),
        ("duplicates", functools.partial(_drop_duplicates, spec.duplicates, candidates, order, keys)),
        ("decontaminate", functools.partial(_decontaminate, candidates, find_held_out)),
        ("problems", functools.partial(_limit_problems, spec, candidates)),
        ("per_problem", functools.partial(_limit_per_problem, spec.per_problem, candidates, order)),
        ("shares", functools.partial(_mix, spec, candidates, order)),
        ("rows", lambda rows: rows[: spec.rows]),
    )
    rows: Ints = np.arange(len(candidates.source), dtype=np.int64)
    filters = [_count("samples", candidates, rows, len(spec.sources))]
    for name, operator in operators:
        rows = operator(rows)
        filters.append(_count(name, candidates, rows, len(spec.sources)))
        if not len(rows):
            raise NothingSelected(_why_empty(spec, filters, candidates))
    return Chosen(rows=rows, filters=tuple(filters))


def check_limits(spec: SelectionSpec) -> None:
    """Refuses limits and shares that mean nothing.

    Raises:
        InvalidInput: naming the field.
    """
    for name, limit in (("rows", spec.rows), ("per_problem", spec.per_problem)):
        if limit is not None and limit < 1:
            raise InvalidInput(f"{name}: got {limit}, allowed: 1 and more, or nothing for no limit")
    if spec.problems is not None and not 0 < spec.problems <= 1:
        raise InvalidInput(f"problems: got {spec.problems}, allowed: a share above 0 and up to 1, or nothing for all")
    shares = [source.share for source in spec.sources]
    given = [share for share in shares if share is not None]
    if given and (len(given) < len(shares) or not all(0 < share < float("inf") for share in given)):
        got = ", ".join("none" if share is None else f"{share:g}" for share in shares)
        raise InvalidInput(f"share: got {got}; allowed: a number above 0 for every source, or for none of them")
    if (spec.keep is Keep.judged) != bool(spec.judges):
        got = f"keep {spec.keep.value!r} with {len(spec.judges)} judges"
        raise InvalidInput(f"judges: got {got}, allowed: at least one job with keep 'judged', and none without")
    if not spec.sources:
        raise InvalidInput("sources: got none, allowed: at least one job")


def seeded_order(ids: Keys, seed: int, purpose: str) -> Keys:
    """Ranks in a random order that depends on nothing but id, seed and purpose; equal ids rank equal."""
    salt = int.from_bytes(blake2b(f"{seed}\0{purpose}".encode(), digest_size=8).digest(), "little")
    # splitmix64, a bijection of 64-bit numbers: Steele, Lea and Flood 2014
    mixed = (ids ^ np.uint64(salt)) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _keep(keep: Keep, candidates: Candidates, rows: Ints) -> Ints:
    if keep is Keep.all:
        return rows
    rows = rows[~candidates.is_truncated[rows]]
    if keep is Keep.majority:
        return rows[_agrees(candidates.problem[rows], candidates.answer[rows])]
    if keep is Keep.judged:
        return rows[candidates.judged[rows] == YES]
    rows = rows[candidates.correct[rows] == YES]
    return rows[candidates.steps[rows] == YES] if keep is Keep.verified else rows


def _agrees(problem: Ints, answer: Ints) -> Bools:
    """Whether each sample gives the answer that more samples of its problem give than any other; a tie has none."""
    has_answer = answer >= 0
    width = int(answer.max(initial=0)) + 1
    pairs, pair_of_vote, votes = np.unique(
        problem[has_answer] * width + answer[has_answer], return_inverse=True, return_counts=True
    )
    voted = pairs // width
    most = np.zeros(int(problem.max(initial=0)) + 1, dtype=np.int64)
    np.maximum.at(most, voted, votes)
    is_top = votes == most[voted]
    is_alone = np.bincount(voted[is_top], minlength=len(most)) == 1
    agrees = np.zeros(len(problem), dtype=bool)
    agrees[has_answer] = (is_top & is_alone[voted])[pair_of_vote]
    return agrees


def _drop_duplicates(rule: Duplicates, candidates: Candidates, order: Keys, keys: KeysOf, rows: Ints) -> Ints:
    if rule is Duplicates.keep:
        return rows
    # equal texts are equal by every rule: dropping them first leaves fewer to compare by one that costs more
    for each in dict.fromkeys((Duplicates.exact, rule)):
        key, problem = keys(each, rows), candidates.problem[rows]
        position = np.lexsort((order[rows], key, problem))
        key, problem = key[position], problem[position]
        is_first = np.ones(len(rows), dtype=bool)
        is_first[1:] = (key[1:] != key[:-1]) | (problem[1:] != problem[:-1])
        rows = np.sort(rows[position[is_first]])
    return rows


def _decontaminate(candidates: Candidates, find_held_out: FindHeldOut, rows: Ints) -> Ints:
    problems, problem_of_row = np.unique(candidates.problem[rows], return_inverse=True)
    return rows[~find_held_out(problems)[problem_of_row]]


def _limit_problems(spec: SelectionSpec, candidates: Candidates, rows: Ints) -> Ints:
    """Chosen among all problems of the sources, solved or not, so that arms over one set keep the same problems."""
    if spec.problems is None:
        return rows
    num_problems = len(candidates.problem_key)
    order = np.argsort(seeded_order(candidates.problem_key, spec.seed, "problems"), kind="stable")
    is_kept = np.zeros(num_problems, dtype=bool)
    is_kept[order[: max(1, round(spec.problems * num_problems))]] = True
    return rows[is_kept[candidates.problem[rows]]]


def _limit_per_problem(limit: int | None, candidates: Candidates, order: Keys, rows: Ints) -> Ints:
    if limit is None:
        return rows
    return rows[_rank_within(candidates.problem[rows], order[rows]) < limit]


def _mix(spec: SelectionSpec, candidates: Candidates, order: Keys, rows: Ints) -> Ints:
    """Rows in the seeded order; with shares, every beginning of it mixes the sources by them, as far as they last.

    The k-th row of a source stands at (k + 1/2) / share: Webster's method, under which a source never loses a row
    when the whole grows. The first source to run out ends the mix, and a source without a row leaves nothing to mix.
    """
    if not len(rows) or spec.sources[0].share is None:
        return rows[np.argsort(order[rows], kind="stable")]
    share = np.array([source.share for source in spec.sources], dtype=np.float64)
    source = candidates.source[rows]
    available = np.bincount(source, minlength=len(share))
    if not available.all():
        return rows[:0]
    at = (_rank_within(source, order[rows]) + 0.5) / share[source]
    ends = (available + 0.5) / share
    last = int(np.argmin(ends))
    is_before = (at < ends[last]) | ((at == ends[last]) & (source < last))
    return rows[is_before][np.lexsort((source[is_before], at[is_before]))]


def _rank_within(group: Ints, order: Keys) -> Ints:
    """Each row's number in its group's order, from 0."""
    position = np.lexsort((order, group))
    sorted_group = group[position]
    starts = np.flatnonzero(np.append(True, sorted_group[1:] != sorted_group[:-1])) if len(group) else np.zeros(0, int)
    rank = np.empty(len(group), dtype=np.int64)
    rank[position] = np.arange(len(group)) - np.repeat(starts, np.diff(np.append(starts, len(group))))
    return rank


def _count(name: str, candidates: Candidates, rows: Ints, num_sources: int) -> FilterCount:
    by_source = np.bincount(candidates.source[rows], minlength=num_sources)
    return FilterCount(name=name, rows=len(rows), rows_by_source=tuple(by_source.tolist()))


def _why_empty(spec: SelectionSpec, filters: list[FilterCount], candidates: Candidates) -> str:
    counts = ", ".join(f"{count.name} {count.rows:,}" for count in filters)
    message = f"selection {spec.name!r}: `{filters[-1].name}` leaves no row; rows after each filter: {counts}"
    if filters[-1].name == "shares":
        left = zip(spec.source_names, filters[-2].rows_by_source, strict=True)
        message += f"; a source with a share has none: {', '.join(f'{name} {rows:,}' for name, rows in left)}"
    if filters[-1].name == "keep" and spec.keep is Keep.judged:
        yes, no = (int(np.count_nonzero(candidates.judged == code)) for code in (YES, NO))
        rest = len(candidates.judged) - yes - no
        message += (
            f"; judges found {yes:,} right and {no:,} wrong, {rest:,} had a tie, no readable vote, or none at all"
        )
    return message
