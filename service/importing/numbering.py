"""The first pass over the files: which sample each row becomes, and everything that can be wrong with the rows.

Owns what refuses an import: rows without a problem, empty completions, sample indices that occur twice. Nothing is
counted in tokens or written before this pass is through, so an import that is refused has cost seconds. Memory is a few
numbers a row.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from service.errors import InvalidInput
from service.importing.matching import Matcher
from service.importing.rows import Samples
from service.importing.spec import ImportSpec, MatchBy

LEFT_OUT = -1
MOST_SAMPLES = 2**31 - 1
_SHOWN = 5
_FEWEST_ROWS_OF_A_COPY = 100
"""From here on, a second half that repeats the first is a file that was appended to itself, and no coincidence."""
Int32s = npt.NDArray[np.int32]

REASONS = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
}
"""Why a completion ended, as engines and services say it, in our words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered:
    """Which sample each row of the files becomes, in the order of files and rows.

    Args:
        problem: problem index, or LEFT_OUT where a row has no problem [rows].
        sample_index: within the problem [rows].
        is_empty: rows without a completion, which become error rows [rows].
        num_repeats: rows whose completion another row of the problem has too.
    """

    problem: Int32s
    sample_index: Int32s
    is_empty: npt.NDArray[np.bool_]
    num_unmatched: int
    num_repeats: int

    @property
    def num_empty(self) -> int:
        """Rows that become error rows."""
        return int((self.is_empty & (self.problem != LEFT_OUT)).sum())


def number(batches: Iterable[Samples], spec: ImportSpec, matcher: Matcher) -> Numbered:
    """Goes through all rows once.

    Raises:
        InvalidInput: what the module says; with counts, and where the first such rows stand.
    """
    numbering = _Numbering(spec=spec, matcher=matcher, taken=np.zeros(len(matcher.keys), dtype=np.int64))
    for samples in batches:
        numbering.add(samples)
    return numbering.result()


@dataclass(slots=True, kw_only=True)
class _Numbering:
    spec: ImportSpec
    matcher: Matcher
    taken: npt.NDArray[np.int64]
    problem: list[Int32s] = field(default_factory=list[Int32s])
    sample_index: list[Int32s] = field(default_factory=list[Int32s])
    is_empty: list[npt.NDArray[np.bool_]] = field(default_factory=list[npt.NDArray[np.bool_]])
    texts: list[npt.NDArray[np.int64]] = field(default_factory=list[npt.NDArray[np.int64]])
    unmatched: list[str] = field(default_factory=list[str])
    empty: list[str] = field(default_factory=list[str])
    num_empty: int = 0

    def add(self, samples: Samples) -> None:
        key = samples.columns["problem_id" if self.spec.match_by is MatchBy.id else "question"]
        problem = self.matcher.find(key)
        for index in np.flatnonzero(problem == LEFT_OUT)[: _SHOWN - len(self.unmatched)].tolist():
            self.unmatched.append(f"{samples.place(index)} ({str(key[index].as_py())[:60]!r})")
        completion = samples.columns["completion"]
        is_empty = pc.fill_null(pc.equal(pc.binary_length(completion), 0), True).to_numpy(zero_copy_only=False)
        for index in np.flatnonzero(is_empty)[: _SHOWN - len(self.empty)].tolist():
            self.empty.append(samples.place(index))
        self.num_empty += int(is_empty.sum())
        _check_values(samples, is_empty)
        self.problem.append(problem)
        self.sample_index.append(self._indices(samples, problem))
        self.is_empty.append(is_empty)
        # a hash of this process is enough: it only counts rows that are the same
        self.texts.append(np.array([hash(text) for text in completion.to_pylist()], dtype=np.int64))

    def _indices(self, samples: Samples, problem: Int32s) -> Int32s:
        if "sample_index" in samples.columns:
            return _stated_indices(samples)
        kept = np.flatnonzero(problem != LEFT_OUT)
        order = kept[np.argsort(problem[kept], kind="stable")]
        sorted_problem = problem[order]
        starts = np.flatnonzero(np.diff(sorted_problem, prepend=LEFT_OUT))
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        found = np.zeros(len(problem), dtype=np.int32)
        found[order] = self.taken[sorted_problem] + rank
        self.taken += np.bincount(sorted_problem, minlength=len(self.taken))
        return found

    def result(self) -> Numbered:
        problem = np.concatenate([np.zeros(0, dtype=np.int32), *self.problem])
        sample_index = np.concatenate([np.zeros(0, dtype=np.int32), *self.sample_index])
        texts = np.concatenate([np.zeros(0, dtype=np.int64), *self.texts])
        num_unmatched = int((problem == LEFT_OUT).sum())
        self._check_unmatched(len(problem), num_unmatched)
        if self.num_empty and not self.spec.allow_empty:
            raise InvalidInput(
                f"completion: got {self.num_empty:,} of {len(problem):,} rows without one: {'; '.join(self.empty)}"
                f"{_more(self.num_empty)}; allowed: text, or allow_empty, which makes error rows of them"
            )
        kept = problem != LEFT_OUT
        if self.spec.column("sample_index") is not None:
            _check_twice(problem[kept], sample_index[kept])
        if _is_copied(problem, texts):
            raise InvalidInput(
                f"rows: got {len(texts):,}, of which the second half repeats the first, as if a file had been appended "
                "to itself; allowed: each row once"
            )
        is_empty = np.concatenate([np.zeros(0, dtype=np.bool_), *self.is_empty])
        told = kept & ~is_empty
        return Numbered(
            problem=problem,
            sample_index=sample_index,
            is_empty=is_empty,
            num_unmatched=num_unmatched,
            num_repeats=_count_repeats(problem[told], texts[told]),
        )

    def _check_unmatched(self, num_rows: int, num_unmatched: int) -> None:
        if num_unmatched < num_rows and num_unmatched <= self.spec.max_unmatched * num_rows:
            return
        share = num_unmatched / max(1, num_rows)
        problems = ", ".join(self.matcher.examples())
        raise InvalidInput(
            f"rows: got {num_unmatched:,} of {num_rows:,} ({share:.1%}) that belong to no problem, the first at "
            f"{'; '.join(self.unmatched)}{_more(num_unmatched)}; allowed: at most {self.spec.max_unmatched:.0%} "
            f"(allow_unmatched) and one that does, by {self.matcher.by} such as {problems}"
        )


def _more(number: int) -> str:
    return f" and {number - _SHOWN:,} more" if number > _SHOWN else ""


def _stated_indices(samples: Samples) -> Int32s:
    column = samples.columns["sample_index"]
    _refuse(samples, "sample_index", _in_range(column), f"0 to {MOST_SAMPLES:,}")
    return column.to_numpy().astype(np.int32)


def _check_values(samples: Samples, is_empty: npt.NDArray[np.bool_]) -> None:
    """Refuses values that no sample can have; a row without a completion may lack the others too."""
    columns = samples.columns
    if (tokens := columns.get("num_tokens")) is not None:
        _refuse(samples, "num_tokens", _in_range(tokens), f"0 to {MOST_SAMPLES:,}", but=is_empty)
    if (reason := columns.get("finish_reason")) is not None:
        is_known = pc.is_in(reason, value_set=pa.array(list(REASONS)))
        _refuse(samples, "finish_reason", is_known, ", ".join(REASONS), but=is_empty)
    if (temperature := columns.get("temperature")) is not None:
        is_good = pc.and_(pc.greater_equal(temperature, 0.0), pc.is_finite(temperature))
        _refuse(samples, "temperature", is_good, "a number >= 0", but=is_empty)
    if (prompt := columns.get("prompt")) is not None:
        _refuse(samples, "prompt", pc.is_valid(prompt), "text in every row")


def _in_range(column: pa.Array) -> pa.Array:
    return pc.and_(pc.greater_equal(column, 0), pc.less_equal(column, MOST_SAMPLES))


def _refuse(
    samples: Samples, name: str, is_good: pa.Array, allowed: str, *, but: npt.NDArray[np.bool_] | None = None
) -> None:
    """Raises for the first row that is not good, if there is one; nulls are not. Rows of `but` may be anything."""
    is_bad = ~pc.fill_null(is_good, False).to_numpy(zero_copy_only=False)
    if len(bad := np.flatnonzero(is_bad if but is None else is_bad & ~but)):
        got = samples.columns[name][int(bad[0])].as_py()
        raise InvalidInput(f"{samples.place(int(bad[0]))}: {name}: got {got!r}, allowed: {allowed}")


def _check_twice(problem: Int32s, sample_index: Int32s) -> None:
    keys, counts = np.unique((problem.astype(np.int64) << 32) | sample_index, return_counts=True)
    if (twice := keys[counts > 1]).size:
        problems, indices = (twice >> 32).tolist(), (twice & 0xFFFFFFFF).tolist()
        shown = "; ".join(
            f"problem {p}, sample_index {i}" for p, i in list(zip(problems, indices, strict=True))[:_SHOWN]
        )
        raise InvalidInput(
            f"sample_index: got {twice.size:,} samples more than once: {shown}{_more(int(twice.size))}; allowed: each "
            "sample_index of a problem once (without the column, rows are numbered in their order)"
        )


def _is_copied(problem: Int32s, texts: npt.NDArray[np.int64]) -> bool:
    """Whether the second half says of the same problems what the first does, and not the same of everything."""
    half = len(texts) // 2
    if half < _FEWEST_ROWS_OF_A_COPY or len(texts) % 2 or (texts == texts[0]).all():
        return False
    return np.array_equal(texts[:half], texts[half:]) and np.array_equal(problem[:half], problem[half:])


def _count_repeats(problem: Int32s, texts: npt.NDArray[np.int64]) -> int:
    order = np.lexsort((texts, problem))
    same = (np.diff(problem[order]) == 0) & (np.diff(texts[order]) == 0)
    return int(same.sum())
