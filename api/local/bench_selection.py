"""`isoflop bench selection`: seconds and memory to make a training set of many samples, files included.

    python -m api.local.bench_selection DIRECTORY VARIANT

makes one set of jobs that `bench_selection` has written, in a process of its own so that memory is its own too, and
prints what it took as JSON. Invariant: samples come from a seed, about as long as GSM8K's solutions, and what each
filter must leave is known when they are made, so a selection that is fast because it is wrong fails here.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from api.local.bench_machine import Machine, this_machine
from service.receipts import Usage
from service.records import PROBLEM_SCHEMA, SAMPLE_SCHEMA, SCORE_SCHEMA
from service.scoring.normalize import equations_key, exact_key
from service.selection.lineage import read_lineage
from service.selection.spec import Duplicates, Keep, SelectionSource, SelectionSpec
from service.shards import write_part
from service.work import SelectSource, SelectWork

VARIANTS: dict[str, dict[str, Any]] = {
    "correct": {"held_out": ("held-out",)},
    "verified, normalized, limits": {
        "keep": Keep.verified,
        "duplicates": Duplicates.normalized,
        "problems": 0.5,
        "per_problem": 4,
        "held_out": ("held-out",),
    },
    "majority, equations": {"keep": Keep.majority, "duplicates": Duplicates.equations},
    "all": {"keep": Keep.all, "duplicates": Duplicates.keep, "ngram": None},
}
NUM_JOBS = 2
_SAMPLES_PER_PROBLEM = 100
_SHARD_ROWS = 10_000
_SHARED_PROBLEMS = 50
"""Training questions that occur in the held-out set as well."""
_HELD_OUT = 1000
_TEXTS = 4096
_WORDS = ("apples", "pens", "costs", "each", "then", "buys", "more", "has", "total", "remaining", "twice", "half")
_WORDS += (
    "price",
    "dollars",
    "friends",
    "days",
    "walks",
    "miles",
    "gives",
    "away",
    "sold",
    "every",
    "week",
    "before",
    "home",
)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionRun:
    """One training set.

    Args:
        seconds: on the clock.
        cpu_s: processor time of all threads of the process; other processes disturb it less.
        peak_mib: resident memory of the process that made it at its highest, imports included.
        idle_mib: the same before it began.
        filters: rows left by each filter.
    """

    variant: str
    seconds: float
    cpu_s: float
    peak_mib: float
    idle_mib: float
    rows: int
    filters: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionResult:
    """All of them.

    Args:
        num_bytes: of the samples' and scores' files.
    """

    machine: Machine
    samples: int
    problems: int
    num_bytes: int
    runs: tuple[SelectionRun, ...]


def bench_selection(directory: Path, samples: int, variants: Sequence[str] = tuple(VARIANTS)) -> SelectionResult:
    """Writes two jobs of `samples` samples together, and makes each variant's training set of them.

    Raises:
        ValueError: under 1,000 samples.
        RuntimeError: a selection left other rows than it must.
    """
    if samples < 1000:
        raise ValueError(f"samples must be at least 1000, got {samples}")
    machine = this_machine()
    num_problems = samples // _SAMPLES_PER_PROBLEM
    num_kept = _write_jobs(directory, samples, num_problems)
    runs = tuple(_run(directory, variant) for variant in variants)
    made = {"correct": num_kept, "all": samples}
    for run in runs:
        if (got := run.filters["keep"]) != (wanted := made.get(run.variant, got)):
            raise RuntimeError(f"{run.variant}: keep left {got} rows, {wanted} were made to be kept")
    return SelectionResult(
        machine=machine,
        samples=samples,
        problems=num_problems,
        num_bytes=sum(path.stat().st_size for path in directory.glob("job-*/attempts/**/*.parquet")),
        runs=runs,
    )


def _run(directory: Path, variant: str) -> SelectionRun:
    command = [sys.executable, "-m", "api.local.bench_selection", str(directory), variant]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{variant}: the selection failed:\n{done.stderr[-4000:]}")
    return SelectionRun(**json.loads(done.stdout))


def _select_once(directory: Path, variant: str) -> SelectionRun:
    from workers.selecting import select

    changes = VARIANTS[variant]
    held_out: tuple[str, ...] = changes.get("held_out", ())
    jobs = [f"job-{number}" for number in range(NUM_JOBS)]
    spec = SelectionSpec(name=variant, sources=tuple(SelectionSource(job=job) for job in jobs), **changes)
    work = SelectWork(
        spec=spec,
        sources=tuple(
            SelectSource(
                job_id=job,
                manifest_path=str(directory / job / "manifest.json"),
                problems_path=str(directory / "problems.parquet"),
            )
            for job in jobs
        ),
        held_out=tuple(str(directory / f"{name}.parquet") for name in held_out),
    )
    idle_mib = _peak_mib()
    started, cpu_started = time.perf_counter(), time.process_time()
    receipt = select(work, directory / "sets" / variant)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    found = read_lineage(receipt.path).contamination.by_text
    if held_out and found != _num_shared(directory):
        raise RuntimeError(f"{variant}: {found} questions are held out, {_num_shared(directory)} were made to be")
    return SelectionRun(
        variant=variant,
        seconds=seconds,
        cpu_s=cpu_s,
        peak_mib=_peak_mib(),
        idle_mib=idle_mib,
        rows=receipt.rows,
        filters={name: round(rows) for name, rows in receipt.facts.items()},
    )


def _num_shared(directory: Path) -> int:
    return pq.read_metadata(directory / "held-out.parquet").num_rows - _HELD_OUT


def _peak_mib() -> float:
    """Highest resident memory of this process; `getrusage` would count its parent's as well."""
    found = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None, "Linux writes it"
    return int(found[1]) / 1024


def _write_jobs(directory: Path, samples: int, num_problems: int) -> int:
    """Problems, a held-out set, and jobs with their manifests; how many samples are right and end by themselves."""
    rng = np.random.default_rng(0)
    questions = [_question(rng, number) for number in range(num_problems)]
    shared = questions[: min(_SHARED_PROBLEMS, num_problems // 10)]
    _write_problems(directory / "problems.parquet", questions)
    held_out = [_question(rng, num_problems + number) for number in range(_HELD_OUT)]
    _write_problems(directory / "held-out.parquet", [*held_out, *shared])
    texts = [_solution(rng, number) for number in range(_TEXTS)]
    num_kept = 0
    for number in range(NUM_JOBS):
        of_job = samples // NUM_JOBS + (number < samples % NUM_JOBS)
        num_kept += _write_job(directory / f"job-{number}", rng, questions, texts, of_job)
    return num_kept


def _write_job(directory: Path, rng: np.random.Generator, questions: list[str], texts: list[str], samples: int) -> int:
    prompts, completions = pa.array([f"{question}\n" for question in questions]), pa.array(texts)
    keys = {
        "solution_key": np.array([exact_key(text) for text in texts], dtype=np.uint64),
        "equations_key": np.array([equations_key(text) for text in texts], dtype=np.uint64),
    }
    shards: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    num_kept = 0
    for shard, start in enumerate(range(0, samples, _SHARD_ROWS)):
        problem = np.arange(start, min(start + _SHARD_ROWS, samples), dtype=np.int64) % len(questions)
        text = (problem * 31 + rng.geometric(0.15, len(problem))) % len(texts)
        is_correct, is_cut = rng.random(len(problem)) < 0.5, rng.random(len(problem)) < 0.03
        num_kept += int((is_correct & ~is_cut).sum())
        names = rng.bytes(16 * len(problem)).hex()
        ids = [names[at : at + 32] for at in range(0, len(names), 32)]
        samples_table = _samples(directory.name, ids, problem, prompts, completions, text, is_cut)
        drawn = {"path": f"attempts/t{shard}.1/part-00000.parquet", "attempt": f"t{shard}.1", "part": 0, "model": "m"}
        shards.append(drawn | _written(directory / "attempts" / f"t{shard}.1", samples_table))
        steps = rng.choice(["valid", "invalid", "unknown"], len(problem))
        scores_table = _scores(ids, problem, is_correct, steps, {name: key[text] for name, key in keys.items()})
        graded = {"path": f"attempts/s{shard}.1/part-00000.parquet", "source_attempt": f"t{shard}.1", "source_part": 0}
        scores.append(graded | _written(directory / "attempts" / f"s{shard}.1", scores_table))
    manifest = {
        "manifest_version": 2,
        "is_sealed": True,
        "job_id": directory.name,
        "job": {"problems": "problems", "scorers": ["math_answer", "steps"]},
        "models": [{"name": "m", "path": "", "revision": "sha256:0", "cost": {"parameters": 1}}],
        "problems": {"fingerprint": "sha256:1", "num_problems": len(questions)},
        "versions": {},
        "account": {"currency": "samples", "limit": samples, "spent": samples},
        "shards": shards,
        "scores": scores,
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return num_kept


def _written(out_dir: Path, table: pa.Table) -> dict[str, Any]:
    receipt = write_part(out_dir=out_dir, part=0, table=table, usage=Usage(samples=table.num_rows))
    return {"sha256": receipt.sha256, "rows": receipt.rows}


def _samples(
    job_id: str, ids: list[str], problem: Ints, prompts: pa.Array, completions: pa.Array, text: Ints, is_cut: Any
) -> pa.Table:
    constant = {"job_id": job_id, "model": "m", "model_revision": "sha256:0", "prompt_id": "p", "sampling_id": "s"}
    constant |= {"engine_version": "e", "attempt": "t.1"}
    numbers = {"sample_index": 0, "seed": 1, "prompt_tokens": 60, "cached_tokens": 0, "completion_tokens": 130}
    columns: dict[str, Any] = {name: pa.repeat(value, len(ids)) for name, value in {**constant, **numbers}.items()}
    columns |= {
        "sample_id": ids,
        "problem_id": [f"p{number}" for number in problem.tolist()],
        "problem_index": problem,
        "prompt": prompts.take(pa.array(problem)),
        "completion": completions.take(pa.array(text)),
        "finish_reason": np.where(is_cut, "length", "stop"),
        "flops": pa.repeat(1e9, len(ids)),
        "flops_paper": pa.repeat(1e9, len(ids)),
        "error": pa.nulls(len(ids), pa.string()),
    }
    return pa.table({name: columns[name] for name in SAMPLE_SCHEMA.names}).cast(SAMPLE_SCHEMA)


def _scores(ids: list[str], problem: Ints, is_correct: Any, steps: Any, keys: dict[str, Any]) -> pa.Table:
    nothing = pa.nulls(len(ids), pa.string())
    answers = np.where(is_correct, "5", (6 + np.arange(len(ids)) % 9).astype(str))
    shared: dict[str, Any] = {
        "sample_id": ids,
        "problem_index": problem,
        "sample_index": pa.repeat(0, len(ids)),
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


def _question(rng: np.random.Generator, number: int) -> str:
    return f"Problem {number}: {' '.join(rng.choice(_WORDS, 45))} {number % 97}?"


def _solution(rng: np.random.Generator, number: int) -> str:
    a, b = number // 64 + 2, number % 64 + 2
    return f"First {a}+{b}={a + b}. {' '.join(rng.choice(_WORDS, 55))}. So it is {a + b}. #### {a + b}"


def _write_problems(path: Path, questions: list[str]) -> None:
    columns = {
        "problem_id": [f"p{number}" for number in range(len(questions))],
        "question": questions,
        "reference": ["#### 5"] * len(questions),
        "level": pa.nulls(len(questions), pa.int64()),
        "structure": pa.nulls(len(questions), pa.string()),
    }
    pq.write_table(pa.table(columns, schema=PROBLEM_SCHEMA), path)


if __name__ == "__main__":
    from dataclasses import asdict

    print(json.dumps(asdict(_select_once(Path(sys.argv[1]), sys.argv[2]))))
