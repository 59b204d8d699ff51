"""Grades one committed shard with every scorer of the job.

Owns the way from a shard of `SampleRow` to one Parquet file of `ScoreRow` and the small delta that strategies fold.
Invariant: one row per sample and scorer, in the shard's order, whatever a completion contains; a scorer that raises
costs that row its verdict and nothing else. Reads in batches, so memory is bounded by one row group of problems and
the scores themselves. Must not import ray, vllm or torch.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from service.devices import ONE_CORE
from service.errors import CorruptFile
from service.reasoning import DEFAULT_TAGS, ReasoningTags
from service.receipts import Receipt, ScoreDelta, Usage
from service.records import SCORE_SCHEMA
from service.scoring import Graded, Scorer, Steps, Verdict, scorer_named, with_judge
from service.scoring.answers import expected_answer
from service.scoring.latex import MathLatex, Open
from service.scoring.normalize import equations_key, exact_key
from service.shards import check_file, write_part
from service.work import ScoreWork
from workers.math_pool import shared_pool

_BATCH_ROWS = 4096
_SAMPLE_COLUMNS = ["sample_id", "problem_index", "sample_index", "completion", "finish_reason", "error"]
_PROBLEM_COLUMNS = ["question", "reference", "structure"]
_STEPS_CODE = {Steps.VALID: 1, Steps.INVALID: 0, Steps.UNKNOWN: -1}
_SCORER_FAULTS = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RuntimeError, AssertionError)
"""What a faulty scorer may raise on one completion; anything else (memory, an interrupt) is not the row's fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    question: str
    reference: str
    structure: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """Columns of consecutive samples, one list entry a sample."""

    sample_ids: list[str]
    problems: list[int]
    sample_indices: list[int]
    completions: list[str]
    whole: list[str]
    """What scorers read: with the opening tag of a reasoning that the prompt may hold."""
    finish_reasons: list[str]
    errors: list[str | None]


@dataclass(slots=True, kw_only=True)
class _Delta:
    """The delta's columns as they grow."""

    problem: list[npt.NDArray[np.int32]] = field(default_factory=list)
    sample_index: list[npt.NDArray[np.int32]] = field(default_factory=list)
    is_correct: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    steps: list[npt.NDArray[np.int8]] = field(default_factory=list)
    solution: list[npt.NDArray[np.uint64]] = field(default_factory=list)

    def add(self, batch: _Batch, graded: Sequence[list[Graded]], solution_keys: list[int]) -> None:
        """Takes the judgements of one batch, `graded[scorer][sample]`."""
        self.problem.append(np.array(batch.problems, dtype=np.int32))
        self.sample_index.append(np.array(batch.sample_indices, dtype=np.int32))
        self.is_correct.append(np.array([_is_correct(row) for row in zip(*graded, strict=True)], dtype=np.bool_))
        self.steps.append(np.array([_steps_code(row) for row in zip(*graded, strict=True)], dtype=np.int8))
        self.solution.append(np.array(solution_keys, dtype=np.uint64))

    def build(self) -> ScoreDelta:
        """Everything added so far."""
        return ScoreDelta(
            problem=np.concatenate([np.zeros(0, np.int32), *self.problem]),
            sample_index=np.concatenate([np.zeros(0, np.int32), *self.sample_index]),
            is_correct=np.concatenate([np.zeros(0, np.bool_), *self.is_correct]),
            steps=np.concatenate([np.zeros(0, np.int8), *self.steps]),
            solution=np.concatenate([np.zeros(0, np.uint64), *self.solution]),
        )


def score(work: ScoreWork, out_dir: str | Path) -> Receipt:
    """Writes `<out_dir>/part-00000.parquet` with one row per sample and scorer, and returns its receipt.

    The receipt's usage holds time alone: samples and tokens are counted where they were drawn.

    Raises:
        CorruptFile: the shard is missing or not the one that was committed, or names a problem that does not exist.
        UnknownName: a scorer that is not registered.
    """
    started = time.perf_counter()
    scorers = [with_judge(scorer_named(name, work.tags or DEFAULT_TAGS), shared_pool()) for name in work.scorers]
    check_file(work.shard_path, work.shard_sha256)
    problems = _read_problems(work)
    delta = _Delta()
    tables: list[pa.Table] = [SCORE_SCHEMA.empty_table()]
    for batch in _read_samples(work.shard_path, work.tags):
        graded = [_grade(scorer, batch, problems) for scorer in scorers]
        solution_keys = [exact_key(text) for text in batch.completions]
        equations_keys = [equations_key(text) for text in batch.completions]
        tables += (
            _score_table(scorer, batch, rows, problems, solution_keys, equations_keys)
            for scorer, rows in zip(scorers, graded, strict=True)
        )
        delta.add(batch, graded, solution_keys)
    return write_part(
        out_dir=out_dir,
        part=0,
        table=pa.concat_tables(tables),
        usage=Usage.of_time(time.perf_counter() - started, ONE_CORE),
        delta=delta.build(),
    )


def _read_samples(path: str, tags: ReasoningTags | None) -> Iterator[_Batch]:
    """Samples in batches; prompts are read only for tags that a job states."""
    names = [*_SAMPLE_COLUMNS, *(["prompt"] if tags is not None else [])]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=names):
            columns = batch.to_pydict()
            completions: list[str] = columns["completion"]
            yield _Batch(
                sample_ids=columns["sample_id"],
                problems=columns["problem_index"],
                sample_indices=columns["sample_index"],
                completions=completions,
                whole=completions if tags is None else list(map(tags.whole, columns["prompt"], completions)),
                finish_reasons=columns["finish_reason"],
                errors=columns["error"],
            )


def _read_problems(work: ScoreWork) -> dict[int, _Problem]:
    """The problems that occur in the shard, by index: a set may have millions, a shard thousands."""
    wanted = np.unique(pq.read_table(work.shard_path, columns=["problem_index"])["problem_index"].to_numpy())
    found: dict[int, _Problem] = {}
    first = 0
    with pq.ParquetFile(work.problems_path) as file:
        for group in range(file.num_row_groups):
            num_rows = file.metadata.row_group(group).num_rows
            here = wanted[(wanted >= first) & (wanted < first + num_rows)]
            if len(here):
                table = file.read_row_group(group, columns=_PROBLEM_COLUMNS).take(pa.array(here - first))
                found |= dict(zip(here.tolist(), (_Problem(**row) for row in table.to_pylist()), strict=True))
            first += num_rows
    if len(found) < len(wanted):
        outside = int(next(index for index in wanted if index not in found))
        raise CorruptFile(f"{work.shard_path}: names problem {outside}, {work.problems_path} has 0..{first - 1}")
    return found


def _grade(scorer: Scorer, batch: _Batch, problems: dict[int, _Problem]) -> list[Graded]:
    """Judgements of a batch; what a scorer leaves open goes to its judge at once, equal pairs as one."""
    begun = _begin(scorer, batch, problems)
    open_pairs = [row.pair for row in begun if isinstance(row, Open)]
    if not isinstance(scorer, MathLatex) or scorer.judge is None or not open_pairs:
        return [row for row in begun if isinstance(row, Graded)]
    judgements = iter(scorer.judge.judge(open_pairs))
    return [scorer.settle(row, next(judgements)) if isinstance(row, Open) else row for row in begun]


def _begin(scorer: Scorer, batch: _Batch, problems: dict[int, _Problem]) -> list[Graded | Open]:
    graded: list[Graded | Open] = []
    for completion, finish_reason, index, error in zip(
        batch.whole, batch.finish_reasons, batch.problems, batch.errors, strict=True
    ):
        if finish_reason == "error":
            graded.append(_unjudged(error or "the engine gave no reason"))
            continue
        problem = problems[index]
        try:
            if isinstance(scorer, MathLatex):
                begun = scorer.begin(completion=completion, reference=problem.reference, finish_reason=finish_reason)
                graded.append(begun)
                continue
            graded.append(
                scorer.grade(
                    completion=completion,
                    reference=problem.reference,
                    finish_reason=finish_reason,
                    question=problem.question,
                    structure=problem.structure,
                )
            )
        except _SCORER_FAULTS as fault:
            graded.append(_unjudged(f"scorer {scorer.name} raised {type(fault).__name__}: {fault}"[:500]))
    return graded


def _unjudged(explanation: str) -> Graded:
    return Graded(verdict=Verdict.ERROR, predicted_answer=None, steps=None, explanation=explanation)


def _is_correct(judgements: Sequence[Graded]) -> bool:
    """The verdict of the first scorer that judges answers; one that could not judge leaves it to the next."""
    for graded in judgements:
        if graded.verdict is not None and graded.verdict is not Verdict.ERROR:
            return graded.verdict is Verdict.CORRECT
    return False


def _steps_code(judgements: Sequence[Graded]) -> int:
    return next((_STEPS_CODE[graded.steps] for graded in judgements if graded.steps is not None), -1)


def _score_table(
    scorer: Scorer,
    batch: _Batch,
    graded: list[Graded],
    problems: dict[int, _Problem],
    solution_keys: list[int],
    equations_keys: list[int],
) -> pa.Table:
    count = len(graded)
    expect = scorer.expected_answer if isinstance(scorer, MathLatex) else expected_answer
    expected = [
        expect(problems[index].reference) or None if row.verdict is not None else None
        for index, row in zip(batch.problems, graded, strict=True)
    ]
    columns = {
        "sample_id": batch.sample_ids,
        "problem_index": batch.problems,
        "sample_index": batch.sample_indices,
        "scorer": list(repeat(scorer.name, count)),
        "scorer_version": list(repeat(scorer.version, count)),
        "predicted_answer": [row.predicted_answer for row in graded],
        "expected_answer": expected,
        "verdict": [row.verdict for row in graded],
        "steps": [row.steps for row in graded],
        "explanation": [row.explanation for row in graded],
        "solution_key": solution_keys,
        "equations_key": equations_keys,
    }
    return pa.table(columns, schema=SCORE_SCHEMA)
