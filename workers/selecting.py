"""Makes a training set of finished jobs: one Parquet file of `SelectedRow`, its lineage in the footer and beside it.

Owns the way from manifests to that file; which rows are kept is decided by `service.selection.operators`. Invariant: a
completion goes through as it was drawn, character by character, and no sample is read that a manifest does not name.
Memory is bounded by the columns (250 bytes a sample, measured with a million), the texts that are selected, and one
shard. Must not import ray, vllm or torch.
"""

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.devices import ONE_CORE
from service.errors import InvalidInput
from service.reasoning import ReasoningTags, source_tags
from service.receipts import Receipt, Usage
from service.records import PROBLEM_SCHEMA, SELECTED_SCHEMA
from service.selection.decontaminate import Contamination, HeldOutSet, find_contaminated
from service.selection.judge_quality import summarise_judged
from service.selection.judging import QUESTIONS_FILE, questions, read_votes
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
from service.selection.operators import NO, YES, Bools, Chosen, Ints, choose
from service.selection.source_job import SourceJob, check_scorers, of_arms, read_source, read_texts
from service.shards import file_sha256, make_directory, sync, write_part
from service.work import SelectWork
from workers.candidate_pool import Pool, Problems, by_shard, read_pool, read_problems, read_questions, solution_keys

_TEXT_COLUMNS = ["prompt", "completion", "problem_id", "sample_id", "completion_tokens", "prompt_id", "sampling_id"]
_PIECE_ROWS = 50_000
"""Rows of one piece of the file, so that no column of a piece passes 2 GiB of text."""


def select(work: SelectWork, out_dir: str | Path) -> Receipt:
    """Writes `<out_dir>/part-00000.parquet` and `<out_dir>/lineage.json`, and returns the part's receipt.

    With `ask` in the document, the same rows as a problem set for a judge lie beside them as `questions.parquet`.
    The receipt's facts are the rows after each filter, in the order of the filters; its usage holds time alone.

    Raises:
        CorruptFile: a file is missing or not the one that was committed.
        InvalidInput: the jobs were not judged for what the selection asks, or a filter leaves no row (which one, and
            the rows after each, is in the message); nothing is written.
    """
    started = time.perf_counter()
    spec = work.spec
    found, named = ((len(each.sources), len(each.held_out), len(each.judges)) for each in (work, spec))
    if found != named:
        raise InvalidInput(
            f"selection {spec.name!r}: got jobs, held-out sets and judges {found}, the document names {named}"
        )
    jobs = [
        of_arms(read_source(source.manifest_path), asked.arms)
        for source, asked in zip(work.sources, spec.sources, strict=True)
    ]
    for job in jobs:
        check_scorers(spec, job)
    problems = read_problems(work, jobs)
    judges = [read_source(judge.manifest_path) for judge in work.judges]
    votes, *of_judges = read_votes(judges, [judge.problems_path for judge in work.judges])
    pool, usages, unscored = read_pool(work, jobs, problems, votes)
    decontamination = _Decontamination(work, problems)
    chosen = choose(
        spec,
        pool.candidates,
        keys=lambda rule, rows: solution_keys(pool, rule, rows),
        find_held_out=decontamination.find,
    )
    pieces = _pieces(pool, chosen, jobs)
    table = pa.concat_tables(pieces)
    lineage = Lineage(
        spec=spec,
        sources=tuple(map(_origin, jobs, usages, unscored)),
        held_out=decontamination.origins,
        filters=chosen.filters,
        contamination=decontamination.found,
        statistics=_statistics(table, num_problems=len(np.unique(pool.candidates.problem[chosen.rows]))),
        judges=tuple(map(_origin, judges, *of_judges)),
        judged=summarise_judged(pool.candidates, votes.asked(pool.candidates.identity)) if judges else None,
    ).to_json()
    with _beside(Path(out_dir), LINEAGE_FILE) as path:
        path.write_text(lineage, encoding="utf-8")
    if spec.ask is not None:

        @functools.cache
        def tags(source: int, arm: str) -> ReasoningTags:
            return source_tags(jobs[source].document, arm)

        asked = [problems.question[at] for at in pool.candidates.problem[chosen.rows].tolist()]
        _write_questions(Path(out_dir), spec.ask, pieces, asked, tags)
    return write_part(
        out_dir=out_dir,
        part=0,
        table=table.replace_schema_metadata({LINEAGE_KEY: lineage.encode()}),
        usage=Usage.of_time(time.perf_counter() - started, ONE_CORE),
        facts={count.name: float(count.rows) for count in chosen.filters},
    )


class _Decontamination:
    """Finds held-out problems when asked, and remembers what it found."""

    def __init__(self, work: SelectWork, problems: Problems) -> None:
        self._ngram, self._problems = work.spec.ngram, problems
        self._sets = [
            HeldOutSet(name=name, questions=tuple(read_questions(path)))
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


def _pieces(pool: Pool, chosen: Chosen, jobs: list[SourceJob]) -> list[pa.Table]:
    """The selected rows in the order in which they were chosen."""
    texts: list[pa.Table] = []
    positions: list[Ints] = []
    for shard, at, local in by_shard(pool, chosen.rows):
        table = read_texts(shard, local, _TEXT_COLUMNS)
        table = table.append_column("model", pa.repeat(shard.model, len(local)))
        texts.append(table.append_column("arm", pa.repeat(shard.arm, len(local))))
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
        spent=job.account["spent"] + job.account.get("exceeded", 0),
        usage=usage,
        unscored=unscored,
        manifest_sha256=job.manifest_sha256,
    )


def _statistics(table: pa.Table, *, num_problems: int) -> Statistics:
    models, arms = (table[name].value_counts().to_pylist() for name in ("model", "arm"))
    return Statistics(
        rows=table.num_rows,
        problems=num_problems,
        completion_tokens=int(table["completion_tokens"].to_numpy().sum()),
        rows_by_model={item["values"]: item["counts"] for item in models},
        rows_by_arm={item["values"]: item["counts"] for item in arms} if len(arms) > 1 else {},
        correct=pc.sum(table["is_correct"]).as_py() or 0,
        verified=pc.sum(pc.and_kleene(table["is_correct"], table["is_verified"])).as_py() or 0,
    )


def _write_questions(
    directory: Path,
    template: str,
    pieces: Sequence[pa.Table],
    asked: Sequence[str],
    tags: Callable[[int, str], ReasoningTags],
) -> None:
    with _beside(directory, QUESTIONS_FILE) as path, pq.ParquetWriter(path, PROBLEM_SCHEMA) as writer:
        start = 0
        for piece in pieces:
            writer.write_table(questions(template, piece, asked[start : start + piece.num_rows], tags))
            start += piece.num_rows


@contextmanager
def _beside(directory: Path, name: str) -> Iterator[Path]:
    """A path to write to; the file is there under its name, durably and as a whole, when this ends."""
    make_directory(directory)
    temporary = directory / f".{name}.{os.getpid()}.tmp"
    yield temporary
    sync(temporary)
    temporary.replace(directory / name)
    sync(directory)
