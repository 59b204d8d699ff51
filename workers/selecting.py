"""Makes a training set of finished jobs: one Parquet file of `SelectedRow`, its lineage in the footer and beside it.

Owns the way from manifests to that file; which rows are kept is decided by `service.selection.operators`. Invariant: a
completion goes through as it was drawn, character by character, and nothing is read that a manifest does not name.
Memory is bounded by numbers per sample (about 100 bytes), the texts that are selected, and one shard. Must not import
ray, vllm or torch.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.cluster import Receipt, SelectSource, SelectWork, Usage
from service.errors import CorruptFile, InvalidInput
from service.records import SELECTED_SCHEMA
from service.scoring.normalize import equations_key, exact_key, normalized_key
from service.selection.decontaminate import Contamination, HeldOutSet, find_contaminated
from service.selection.lineage import (
    LINEAGE_FILE,
    LINEAGE_KEY,
    HeldOutOrigin,
    Lineage,
    ModelOrigin,
    ProblemsOrigin,
    SourceOrigin,
    Statistics,
    license_of,
)
from service.selection.operators import NO, YES, Bools, Candidates, Chosen, Ints, Keys, choose
from service.selection.source_job import Judged, Shard, SourceJob, check_scorers, read_judged, read_source, read_texts
from service.selection.spec import Duplicates, Keep
from service.shards import file_sha256, make_directory, sync, write_part

_KEYS = {
    Duplicates.exact: exact_key,
    Duplicates.normalized: normalized_key,
    Duplicates.equations: equations_key,
}
_TEXT_COLUMNS = ["prompt", "completion", "problem_id", "sample_id", "completion_tokens"]
_PIECE_ROWS = 50_000
"""Rows of one piece of the file, so that no column of a piece passes 2 GiB of text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problems:
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
class _Pool:
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


def select(work: SelectWork, out_dir: str | Path) -> Receipt:
    """Writes `<out_dir>/part-00000.parquet` and `<out_dir>/lineage.json`, and returns the part's receipt.

    The receipt's facts are the rows after each filter, in the order of the filters; its usage holds `busy_s` alone.

    Raises:
        CorruptFile: a file is missing or not the one that was committed.
        InvalidInput: the jobs were not judged for what the selection asks, or a filter leaves no row (which one, and
            the rows after each, is in the message); nothing is written.
    """
    started = time.perf_counter()
    spec = work.spec
    if len(work.sources) != len(spec.sources) or len(work.held_out) != len(spec.held_out):
        raise InvalidInput(
            f"selection {spec.name!r}: {len(work.sources)} jobs and {len(work.held_out)} held-out sets, the document "
            f"names {len(spec.sources)} and {len(spec.held_out)}"
        )
    jobs = [read_source(source.manifest_path) for source in work.sources]
    for job in jobs:
        check_scorers(spec, job)
    problems = _read_problems(work.sources, jobs)
    pool, usages, unscored = _read_pool(work, jobs, problems)
    decontamination = _Decontamination(work, problems)
    chosen = choose(
        spec,
        pool.candidates,
        keys=lambda rule, rows: _solution_keys(pool, rule, rows),
        find_held_out=decontamination.find,
    )
    table = pa.concat_tables(_pieces(pool, chosen, jobs))
    lineage = Lineage(
        spec=spec,
        sources=tuple(map(_origin, jobs, usages, unscored)),
        held_out=decontamination.origins,
        filters=chosen.filters,
        contamination=decontamination.found,
        statistics=_statistics(table, num_problems=len(np.unique(pool.candidates.problem[chosen.rows]))),
    ).to_json()
    _write_beside(Path(out_dir), lineage)
    return write_part(
        out_dir=out_dir,
        part=0,
        table=table.replace_schema_metadata({LINEAGE_KEY: lineage.encode()}),
        usage=Usage(busy_s=time.perf_counter() - started),
        facts={count.name: float(count.rows) for count in chosen.filters},
    )


class _Decontamination:
    """Finds held-out problems when asked, and remembers what it found."""

    def __init__(self, work: SelectWork, problems: _Problems) -> None:
        self._ngram, self._problems = work.spec.ngram, problems
        self._sets = [
            HeldOutSet(name=name, questions=tuple(_questions(path)))
            for name, path in zip(work.spec.held_out, work.held_out, strict=True)
        ]
        self.origins = tuple(
            HeldOutOrigin(name=item.name, num_problems=len(item.questions), sha256=file_sha256(path))
            for item, path in zip(self._sets, work.held_out, strict=True)
        )
        self.found = Contamination(compared=0, held_out=0, by_text=0, by_ngram=0, examples=())

    def find(self, problems: Ints) -> Bools:
        questions = [self._problems.question[index] for index in problems.tolist()]
        is_held_out, self.found = find_contaminated(questions, self._sets, ngram=self._ngram)
        return is_held_out


def _questions(path: str, num_problems: int | None = None) -> list[str]:
    try:
        column = pq.read_table(path, columns=["question"])["question"]
    except (OSError, pa.ArrowInvalid) as error:
        raise CorruptFile(f"{path}: cannot read the problem set: {error}") from error
    if num_problems is not None and len(column) < num_problems:
        raise CorruptFile(f"{path}: {num_problems} problems were sampled from, it has {len(column)}")
    return column.slice(0, num_problems).to_pylist()


def _read_problems(sources: tuple[SelectSource, ...], jobs: list[SourceJob]) -> _Problems:
    loaded = [_questions(source.problems_path, job.num_problems) for source, job in zip(sources, jobs, strict=True)]
    questions = [question for each in loaded for question in each]
    keys = np.array([exact_key(question.strip()) for question in questions], dtype=np.uint64)
    key, first, index = np.unique(keys, return_index=True, return_inverse=True)
    ends = np.cumsum([len(each) for each in loaded])
    return _Problems(
        key=key,
        question=[questions[at] for at in first.tolist()],
        index=np.split(index.astype(np.int64), ends[:-1]),
    )


def _read_pool(work: SelectWork, jobs: list[SourceJob], problems: _Problems) -> tuple[_Pool, list[Usage], list[int]]:
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
    candidates = Candidates(
        source=np.repeat(np.array([source for source, _ in loaded], dtype=np.int64), lengths),
        problem=np.concatenate([no_samples, *(problems.index[source][judged.problem] for source, judged in loaded)]),
        identity=_joined([judged.identity for judged in parts], np.uint64),
        has_error=_joined([judged.has_error for judged in parts], np.bool_),
        is_truncated=_joined([judged.is_truncated for judged in parts], np.bool_),
        correct=_joined([judged.correct for judged in parts], np.int8),
        steps=_joined([judged.steps for judged in parts], np.int8),
        answer=codes,
        problem_key=problems.key,
    )
    pool = _Pool(
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


def _solution_keys(pool: _Pool, rule: Duplicates, rows: Ints) -> Keys:
    """Keys as the scorers stored them; of the text itself where they did not."""
    stored = pool.stored_keys.get(rule)
    keys = np.zeros(len(rows), dtype=np.uint64) if stored is None else stored[rows]
    missing = np.ones(len(rows), dtype=bool) if stored is None else ~pool.is_scored[rows]
    for shard, at, local in _by_shard(pool, rows[missing]):
        completions = read_texts(shard, local, ["completion"])["completion"].to_pylist()
        keys[np.flatnonzero(missing)[at]] = np.array([_KEYS[rule](text) for text in completions], dtype=np.uint64)
    return keys


def _by_shard(pool: _Pool, rows: Ints) -> Iterator[tuple[Shard, Ints, Ints]]:
    """Each shard that holds some of the rows, which of `rows` these are, and their rows in the shard, ascending."""
    order = np.argsort(rows, kind="stable")
    borders = np.searchsorted(rows[order], pool.start)
    for number, shard in enumerate(pool.shards):
        at = order[borders[number] : borders[number + 1]]
        if len(at):
            yield shard, at, rows[at] - pool.start[number]


def _pieces(pool: _Pool, chosen: Chosen, jobs: list[SourceJob]) -> list[pa.Table]:
    """The selected rows in the order in which they were chosen."""
    texts: list[pa.Table] = []
    positions: list[Ints] = []
    for shard, at, local in _by_shard(pool, chosen.rows):
        table = read_texts(shard, local, _TEXT_COLUMNS)
        texts.append(table.append_column("model", pa.repeat(shard.model, len(local))))
        positions.append(at)
    read = pa.concat_tables(texts)
    row_of_position = np.argsort(np.concatenate(positions), kind="stable")
    job_ids = pa.array([job.job_id for job in jobs])
    found: list[pa.Table] = []
    for start in range(0, len(chosen.rows), _PIECE_ROWS):
        rows = chosen.rows[start : start + _PIECE_ROWS]
        piece = read.take(pa.array(row_of_position[start : start + _PIECE_ROWS]))
        source = pool.candidates.source[rows]
        columns = {name: piece[name] for name in piece.column_names} | {
            "job_id": job_ids.take(pa.array(source)),
            "source": pa.array(source),
            "is_correct": _tristate(pool.candidates.correct[rows]),
            "is_verified": _tristate(pool.candidates.steps[rows]),
        }
        found.append(pa.table({name: columns[name] for name in SELECTED_SCHEMA.names}).cast(SELECTED_SCHEMA))
    return found


def _tristate(codes: np.ndarray) -> pa.Array:
    return pa.array(codes == YES, mask=(codes != YES) & (codes != NO))


def _origin(job: SourceJob, usage: Usage, unscored: int) -> SourceOrigin:
    return SourceOrigin(
        job_id=job.job_id,
        job=job.document,
        models=tuple(
            ModelOrigin(
                name=model["name"],
                revision=model["revision"],
                parameters=model["cost"]["parameters"],
                base=model.get("base"),
                license=license_of(model["path"]),
            )
            for model in job.models
        ),
        problems=ProblemsOrigin(
            name=job.document["problems"], fingerprint=job.problems_fingerprint, num_problems=job.num_problems
        ),
        versions=job.versions,
        currency=job.account["currency"],
        limit=job.account["limit"],
        spent=job.account["spent"],
        usage=usage,
        unscored=unscored,
        manifest_sha256=job.manifest_sha256,
    )


def _statistics(table: pa.Table, *, num_problems: int) -> Statistics:
    models = table["model"].value_counts().to_pylist()
    return Statistics(
        rows=table.num_rows,
        problems=num_problems,
        completion_tokens=int(table["completion_tokens"].to_numpy().sum()),
        rows_by_model={item["values"]: item["counts"] for item in models},
        correct=pc.sum(table["is_correct"]).as_py() or 0,
        verified=pc.sum(pc.and_kleene(table["is_correct"], table["is_verified"])).as_py() or 0,
    )


def _write_beside(directory: Path, lineage: str) -> None:
    make_directory(directory)
    temporary = directory / f".{LINEAGE_FILE}.{os.getpid()}.tmp"
    temporary.write_text(lineage, encoding="utf-8")
    sync(temporary)
    temporary.replace(directory / LINEAGE_FILE)
    sync(directory)
