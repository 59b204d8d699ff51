"""Pages of samples: a generate part joined with the score part that judges it, only the files a page needs.

A cursor is `<part number>.<row>`: committed parts never change, so a cursor stays good for ever. Reads committed parts
only; the number of parts looked at for one page is bounded, so that a rare verdict costs several short requests and
not one long one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.errors import CorruptFile, InvalidInput
from service.records import SAMPLE_SCHEMA, SCORE_SCHEMA
from service.store import Store
from service.store.reads import Part
from service.work import TaskKind

MAX_PARTS_PER_PAGE = 32
VERDICTS = ("correct", "incorrect", "incomplete", "unparsable", "timeout", "error")
FILTERS = (*VERDICTS, "false_positive", "truncated", "failed", "unscored")
"""Verdicts of the answer scorer; a false positive is correct with an invalid step; failed rows carry an error."""

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The first row to look at."""

    number: int
    row: int

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        """The inverse of `str`; the start without a text.

        Raises:
            InvalidInput: not a cursor.
        """
        if not text:
            return cls(number=0, row=0)
        number, _, row = text.partition(".")
        if not (number.isascii() and number.isdecimal() and row.isascii() and row.isdecimal() and len(text) < 40):
            raise InvalidInput(f"cursor: got {text[:40]!r}, allowed: a `next_cursor` of an earlier page")
        return cls(number=int(number), row=int(row))

    def __str__(self) -> str:
        return f"{self.number}.{self.row}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleQuery:
    """Which samples.

    Args:
        verdict: one of FILTERS.
        problem: a problem id.
        arm: name of one of the job's.
        sample_id: exactly this sample.
    """

    limit: int = 50
    verdict: str | None = None
    problem: str | None = None
    model: str | None = None
    arm: str | None = None
    sample_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePage:
    """Samples as rows of SampleRow with `cursor` and `scores`, and where the next page begins."""

    samples: list[dict[str, Any]]
    next_cursor: str | None


def read_samples(store: Store, job_id: str, cursor: Cursor, query: SampleQuery) -> SamplePage:
    """One page of a job's samples in the order of commitment.

    Raises:
        InvalidInput: a cursor of another job.
        CorruptFile: a committed file is missing or unreadable.
    """
    scores = {(part.source_attempt, part.source_part): part for part in store.reads.parts(job_id, TaskKind.score)}
    parts = store.reads.parts(job_id, TaskKind.generate)
    if cursor != Cursor.parse(None):
        check_cursor(cursor, cursor.number, (part.number for part in parts), job_id)
    parts = [part for part in parts if part.number >= cursor.number]
    found: list[dict[str, Any]] = []
    for num_read, part in enumerate(parts):
        if num_read == MAX_PARTS_PER_PAGE:
            return SamplePage(samples=found, next_cursor=str(Cursor(number=part.number, row=0)))
        first = cursor.row if part.number == cursor.number else 0
        if (query.model or part.model) != part.model or (query.arm or part.arm) != part.arm:
            continue
        for sample in _matching(part, scores.get((part.attempt_id, part.part)), first, query):
            if len(found) == query.limit:
                return SamplePage(samples=found, next_cursor=sample["cursor"])
            found.append(sample)
    return SamplePage(samples=found, next_cursor=None)


def check_cursor(cursor: object, place: int, places: Iterable[int], job_id: str) -> None:
    """Refuses a cursor of another job, from which a page would silently begin somewhere.

    Args:
        place: where the cursor says that the next page begins.
        places: where it can begin.

    Raises:
        InvalidInput: nothing of the job is there.
    """
    if place not in places:
        raise InvalidInput(f"cursor: got '{cursor}', allowed: a `next_cursor` of an earlier page of {job_id}")


def _matching(part: Part, score_part: Part | None, first: int, query: SampleQuery) -> Iterator[dict[str, Any]]:
    table = _read(part, SAMPLE_SCHEMA)
    scores = None if score_part is None else _read(score_part, SCORE_SCHEMA)
    mask = np.arange(table.num_rows) >= first
    if query.problem is not None:
        mask &= _equal(table, "problem_id", query.problem)
    if query.sample_id is not None:
        mask &= _equal(table, "sample_id", query.sample_id)
    if query.verdict is not None:
        mask &= _mask_of(query.verdict, table, scores)
    # one more than the page holds, so that the caller sees where the next one begins
    rows = np.flatnonzero(mask)[: query.limit + 1]
    chosen = table.take(pa.array(rows)).to_pylist()
    judged = _scores_by_sample(scores, [sample["sample_id"] for sample in chosen])
    for row, sample in zip(rows.tolist(), chosen, strict=True):
        place = str(Cursor(number=part.number, row=row))
        yield sample | {"arm": part.arm, "cursor": place, "scores": judged.get(sample["sample_id"], [])}


def _read(part: Part, schema: pa.Schema) -> pa.Table:
    try:
        # a table of the one file: read_table would look for partitions in the names of its directories
        with pq.ParquetFile(part.path) as file:
            return file.read(columns=schema.names)
    except (OSError, pa.ArrowInvalid) as error:
        raise CorruptFile(f"{part.path}: committed but not readable: {error}; run `isoflop verify`") from error


def _equal(table: pa.Table, column: str, value: str) -> _Mask:
    return np.asarray(pc.equal(table[column], value).to_numpy(zero_copy_only=False), dtype=bool)


def _mask_of(verdict: str, table: pa.Table, scores: pa.Table | None) -> _Mask:
    if verdict == "truncated":
        return _equal(table, "finish_reason", "length")
    if verdict == "failed":
        return np.asarray(table["error"].is_valid().to_numpy(zero_copy_only=False), dtype=bool)
    if verdict == "unscored":
        return np.full(table.num_rows, scores is None)
    if scores is None:
        return np.zeros(table.num_rows, dtype=bool)
    wanted = "correct" if verdict == "false_positive" else verdict
    mask = _is_judged(table, scores, "verdict", wanted)
    return mask & _is_judged(table, scores, "steps", "invalid") if verdict == "false_positive" else mask


def _is_judged(table: pa.Table, scores: pa.Table, column: str, value: str) -> _Mask:
    ids = scores.filter(pc.equal(scores[column], value))["sample_id"]
    return np.asarray(pc.is_in(table["sample_id"], value_set=ids.combine_chunks()).to_numpy(zero_copy_only=False))


def _scores_by_sample(scores: pa.Table | None, sample_ids: list[str]) -> dict[str, list[dict[str, Any]]]:
    if scores is None or not sample_ids:
        return {}
    mine = scores.filter(pc.is_in(scores["sample_id"], value_set=pa.array(sample_ids)))
    by_id: dict[str, list[dict[str, Any]]] = {}
    for row in mine.to_pylist():
        by_id.setdefault(row["sample_id"], []).append(row)
    return by_id
