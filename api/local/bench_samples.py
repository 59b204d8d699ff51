"""Synthetic jobs on storage, for benchmarks of what reads them: problems, shards of samples and their scores.

Invariant: everything comes from a generator that is handed in, and texts are about as long as GSM8K's, so a benchmark
knows what it must find.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from service.receipts import Receipt, ScoreDelta, Usage
from service.records import PROBLEM_SCHEMA, SAMPLE_SCHEMA, SCORE_SCHEMA
from service.scoring.normalize import equations_key, exact_key
from service.shards import write_part

SCORERS = ("math_answer", "steps")
_SHARD_ROWS = 10_000
_TEXTS = 4096
_WORDS = (
    "apples", "pens", "costs", "each", "then", "buys", "more", "has", "total", "remaining", "twice", "half",
    "price", "dollars", "friends", "days", "walks", "miles", "gives", "away", "sold", "every", "week", "before", "home",
)  # fmt: skip
_STEPS = ("invalid", "valid", "unknown")
_STEP_CODES = (0, 1, -1)

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A committed file of samples and the one of their scores.

    Args:
        is_cut: samples that did not end by themselves.
    """

    samples: Receipt
    scores: Receipt
    delta: ScoreDelta
    is_cut: Bools


def make_questions(rng: np.random.Generator, first: int, number: int) -> list[str]:
    """So many questions; their numbers begin with `first`."""
    return [f"Problem {i}: {' '.join(rng.choice(_WORDS, 45))} {i % 97}?" for i in range(first, first + number)]


def write_problems(path: Path, questions: Sequence[str]) -> None:
    """Writes a problem set whose answer is always 5."""
    columns = {
        "problem_id": [f"p{number}" for number in range(len(questions))],
        "question": questions,
        "reference": ["#### 5"] * len(questions),
        "level": pa.nulls(len(questions), pa.int64()),
        "structure": pa.nulls(len(questions), pa.string()),
    }
    pq.write_table(pa.table(columns, schema=PROBLEM_SCHEMA), path)


def make_solutions(rng: np.random.Generator) -> list[str]:
    """Completions that samples share."""
    return [_solution(rng, number) for number in range(_TEXTS)]


def write_shards(
    directory: Path,
    rng: np.random.Generator,
    questions: Sequence[str],
    solutions: Sequence[str],
    *,
    problem: Ints,
    correct: float | npt.NDArray[np.float64] = 0.5,
) -> Iterator[Shard]:
    """Writes samples of `problem` [num_samples] in shards of 10,000, each as an attempt of its own below `directory`.

    Args:
        correct: share of right answers, one for all problems or one for each.
    """
    prompts, completions = pa.array([f"{question}\n" for question in questions]), pa.array(solutions)
    exact, equations = (
        np.array([key(text) for text in solutions], dtype=np.uint64) for key in (exact_key, equations_key)
    )
    rate = np.broadcast_to(correct, len(questions))
    for shard, start in enumerate(range(0, len(problem), _SHARD_ROWS)):
        mine = problem[start : start + _SHARD_ROWS]
        number = np.arange(start, start + len(mine))
        text = (mine * 31 + rng.geometric(0.15, len(mine))) % len(solutions)
        is_correct, is_cut = rng.random(len(mine)) < rate[mine], rng.random(len(mine)) < 0.03
        names = rng.bytes(16 * len(mine)).hex()
        ids = [names[at : at + 32] for at in range(0, len(names), 32)]
        drawn = _samples(directory.name, ids, mine, number, prompts, completions, text, is_cut)
        steps = rng.integers(0, len(_STEPS), len(mine))
        keys = {"solution_key": exact[text], "equations_key": equations[text]}
        scored = _scores(ids, mine, number, is_correct, np.array(_STEPS)[steps], keys)
        delta = ScoreDelta(
            problem=mine.astype(np.int32),
            sample_index=number.astype(np.int32),
            is_correct=is_correct,
            steps=np.array(_STEP_CODES, dtype=np.int8)[steps],
            solution=exact[text],
        )
        yield Shard(
            samples=_written(directory / "attempts" / f"t{shard}.1", drawn),
            scores=_written(directory / "attempts" / f"s{shard}.1", scored, delta),
            delta=delta,
            is_cut=is_cut,
        )


def _written(out_dir: Path, table: pa.Table, delta: ScoreDelta | None = None) -> Receipt:
    return write_part(out_dir=out_dir, part=0, table=table, usage=Usage(samples=table.num_rows), delta=delta)


def _samples(
    job_id: str,
    ids: list[str],
    problem: Ints,
    number: Ints,
    prompts: pa.Array,
    completions: pa.Array,
    text: Ints,
    is_cut: Bools,
) -> pa.Table:
    constant = {"job_id": job_id, "model": "m", "model_revision": "sha256:0", "prompt_id": "p", "sampling_id": "s"}
    constant |= {"engine_version": "e", "attempt": "t.1"}
    numbers = {"seed": 1, "prompt_tokens": 60, "cached_tokens": 0, "completion_tokens": 130}
    columns: dict[str, Any] = {name: pa.repeat(value, len(ids)) for name, value in {**constant, **numbers}.items()}
    columns |= {
        "sample_id": ids,
        "problem_id": [f"p{number}" for number in problem.tolist()],
        "problem_index": problem,
        "sample_index": number,
        "prompt": prompts.take(pa.array(problem)),
        "completion": completions.take(pa.array(text)),
        "finish_reason": np.where(is_cut, "length", "stop"),
        "flops": pa.repeat(1e9, len(ids)),
        "flops_paper": pa.repeat(1e9, len(ids)),
        "error": pa.nulls(len(ids), pa.string()),
    }
    return pa.table({name: columns[name] for name in SAMPLE_SCHEMA.names}).cast(SAMPLE_SCHEMA)


def _scores(
    ids: list[str],
    problem: Ints,
    number: Ints,
    is_correct: Bools,
    steps: npt.NDArray[np.str_],
    keys: dict[str, npt.NDArray[np.uint64]],
) -> pa.Table:
    nothing = pa.nulls(len(ids), pa.string())
    answers = np.where(is_correct, "5", (6 + np.arange(len(ids)) % 9).astype(str))
    shared: dict[str, Any] = {
        "sample_id": ids,
        "problem_index": problem,
        "sample_index": number,
        "scorer_version": pa.repeat("1", len(ids)),
        "expected_answer": pa.repeat("5", len(ids)),
        "explanation": pa.repeat("", len(ids)),
        **keys,
    }
    verdict = np.where(is_correct, "correct", "incorrect")
    graded = shared | {"scorer": pa.repeat("math_answer", len(ids)), "predicted_answer": answers}
    checked = shared | {"scorer": pa.repeat("steps", len(ids)), "predicted_answer": nothing}
    both = (graded | {"verdict": verdict, "steps": nothing}, checked | {"verdict": nothing, "steps": steps})
    return pa.concat_tables(
        [pa.table({name: each[name] for name in SCORE_SCHEMA.names}).cast(SCORE_SCHEMA) for each in both]
    )


def _solution(rng: np.random.Generator, number: int) -> str:
    a, b = number // 64 + 2, number % 64 + 2
    return f"First {a}+{b}={a + b}. {' '.join(rng.choice(_WORDS, 55))}. So it is {a + b}. #### {a + b}"
