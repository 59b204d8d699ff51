"""The samples of a selection's sources as columns, and the keys by which their solutions are the same.

Owns how problems and samples of several jobs come to share one numbering. Invariant: row i of the columns is row
`i - start[s]` of shard s, in the order of jobs and of their manifests; texts stay on storage until they are asked for.
Must not import ray, vllm or torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import CorruptFile
from service.receipts import Usage
from service.scoring.normalize import equations_key, exact_key, normalized_key
from service.selection.judging import Votes
from service.selection.operators import Bools, Candidates, Ints, Keys
from service.selection.source_job import Judged, Shard, SourceJob, read_judged, read_texts
from service.selection.spec import Duplicates, Keep
from service.work import SelectWork

_KEYS = {
    Duplicates.exact: exact_key,
    Duplicates.normalized: normalized_key,
    Duplicates.equations: equations_key,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problems:
    """The problems of all sources, each once: two with the same question are one.

    Args:
        key: uint64 [P].
        question: [P].
        index: by source, which of them each of its problems is.
    """

    key: Keys
    question: list[str]
    index: list[Ints]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Everything of the sources but their texts.

    Args:
        start: first row of each shard, and last the number of rows.
        is_scored: which rows have stored keys.
    """

    candidates: Candidates
    shards: tuple[Shard, ...]
    start: Ints
    is_scored: Bools
    stored_keys: dict[Duplicates, Keys]


def read_questions(path: str, num_problems: int | None = None) -> list[str]:
    """The first questions of a problem set, or all.

    Raises:
        CorruptFile: it cannot be read, or has fewer.
    """
    try:
        column = pq.read_table(path, columns=["question"])["question"]
    except (OSError, pa.ArrowInvalid) as error:
        raise CorruptFile(f"{path}: cannot read the problem set: {error}") from error
    if num_problems is not None and len(column) < num_problems:
        raise CorruptFile(f"{path}: {num_problems} problems were sampled from, it has {len(column)}")
    return column.slice(0, num_problems).to_pylist()


def read_problems(work: SelectWork, jobs: Sequence[SourceJob]) -> Problems:
    """The problems of all jobs, by their questions."""
    loaded = [
        read_questions(source.problems_path, job.num_problems) for source, job in zip(work.sources, jobs, strict=True)
    ]
    questions = [question for each in loaded for question in each]
    keys = np.array([exact_key(question.strip()) for question in questions], dtype=np.uint64)
    key, first, index = np.unique(keys, return_index=True, return_inverse=True)
    ends = np.cumsum([len(each) for each in loaded])
    return Problems(
        key=key,
        question=[questions[at] for at in first.tolist()],
        index=np.split(index.astype(np.int64), ends[:-1]),
    )


def read_pool(
    work: SelectWork, jobs: Sequence[SourceJob], problems: Problems, votes: Votes
) -> tuple[Pool, list[Usage], list[int]]:
    """All samples as columns; and of each source what it used, and how many of its samples no scorer has seen."""
    loaded: list[tuple[int, Judged]] = []
    for source, job in enumerate(jobs):
        with_answers = work.spec.keep is Keep.majority
        loaded += ((source, judged) for judged in read_judged(job, scorer=work.spec.scorer, with_answers=with_answers))
    usages, unscored = [Usage() for _ in jobs], [0 for _ in jobs]
    for source, judged in loaded:
        usages[source] += judged.usage
        unscored[source] += int((~judged.is_scored).sum())
    parts = [judged for _, judged in loaded]
    lengths = [len(judged.problem) for judged in parts]
    answers = pa.chunked_array([judged.answer for judged in parts], type=pa.string()).combine_chunks()
    codes = answers.dictionary_encode().indices.fill_null(-1).to_numpy().astype(np.int64)
    no_samples = np.zeros(0, dtype=np.int64)
    identity = _joined([judged.identity for judged in parts], np.uint64)
    candidates = Candidates(
        source=np.repeat(np.array([source for source, _ in loaded], dtype=np.int64), lengths),
        problem=np.concatenate([no_samples, *(problems.index[source][judged.problem] for source, judged in loaded)]),
        identity=identity,
        has_error=_joined([judged.has_error for judged in parts], np.bool_),
        is_truncated=_joined([judged.is_truncated for judged in parts], np.bool_),
        correct=_joined([judged.correct for judged in parts], np.int8),
        steps=_joined([judged.steps for judged in parts], np.int8),
        judged=votes.codes(identity),
        answer=codes,
        problem_key=problems.key,
    )
    pool = Pool(
        candidates=candidates,
        shards=tuple(shard for job in jobs for shard in job.shards),
        start=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        is_scored=_joined([judged.is_scored for judged in parts], np.bool_),
        stored_keys={
            Duplicates.exact: _joined([judged.solution_key for judged in parts], np.uint64),
            Duplicates.equations: _joined([judged.equations_key for judged in parts], np.uint64),
        },
    )
    return pool, usages, unscored


def _joined(columns: list[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=dtype), *columns])


def solution_keys(pool: Pool, rule: Duplicates, rows: Ints) -> Keys:
    """Keys as the scorers stored them; of the text itself where they did not."""
    stored = pool.stored_keys.get(rule)
    keys = np.zeros(len(rows), dtype=np.uint64) if stored is None else stored[rows]
    missing = np.ones(len(rows), dtype=bool) if stored is None else ~pool.is_scored[rows]
    for shard, at, local in by_shard(pool, rows[missing]):
        completions = read_texts(shard, local, ["completion"])["completion"].to_pylist()
        keys[np.flatnonzero(missing)[at]] = np.array([_KEYS[rule](text) for text in completions], dtype=np.uint64)
    return keys


def by_shard(pool: Pool, rows: Ints) -> Iterator[tuple[Shard, Ints, Ints]]:
    """Each shard that holds some of the rows, which of `rows` these are, and their rows in the shard, ascending."""
    order = np.argsort(rows, kind="stable")
    borders = np.searchsorted(rows[order], pool.start)
    for number, shard in enumerate(pool.shards):
        at = order[borders[number] : borders[number + 1]]
        if len(at):
            yield shard, at, rows[at] - pool.start[number]
