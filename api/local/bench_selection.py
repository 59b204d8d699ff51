"""`isoflop bench selection`: seconds and memory to make a training set of many samples, files included.

    python -m api.local.bench_selection DIRECTORY VARIANT

makes one set of jobs that `bench_selection` has written, in a process of its own so that memory is its own too, and
prints what it took as JSON. Invariant: samples come from a seed, about as long as GSM8K's solutions, and what each
filter must leave is known when they are made, so a selection that is fast because it is wrong fails here.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from api.local.bench_machine import Machine, this_machine
from api.local.bench_process import measure_apart, peak_mib
from api.local.bench_samples import SCORERS, make_questions, make_solutions, write_problems, write_shards
from service.receipts import Receipt
from service.selection.lineage import read_lineage
from service.selection.spec import Duplicates, Keep, SelectionSource, SelectionSpec
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
_SHARED_PROBLEMS = 50
"""Training questions that occur in the held-out set as well."""
_HELD_OUT = 1000


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
    runs = tuple(SelectionRun(**measure_apart("api.local.bench_selection", directory, variant)) for variant in variants)
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
    idle_mib = peak_mib()
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
        peak_mib=peak_mib(),
        idle_mib=idle_mib,
        rows=receipt.rows,
        filters={name: round(rows) for name, rows in receipt.facts.items()},
    )


def _num_shared(directory: Path) -> int:
    return pq.read_metadata(directory / "held-out.parquet").num_rows - _HELD_OUT


def _write_jobs(directory: Path, samples: int, num_problems: int) -> int:
    """Problems, a held-out set, and jobs with their manifests; how many samples are right and end by themselves."""
    rng = np.random.default_rng(0)
    questions = make_questions(rng, 0, num_problems)
    write_problems(directory / "problems.parquet", questions)
    shared = questions[: min(_SHARED_PROBLEMS, num_problems // 10)]
    held_out = make_questions(rng, num_problems, _HELD_OUT)
    write_problems(directory / "held-out.parquet", [*held_out, *shared])
    solutions = make_solutions(rng)
    num_kept = 0
    for number in range(NUM_JOBS):
        of_job = samples // NUM_JOBS + (number < samples % NUM_JOBS)
        num_kept += _write_job(directory / f"job-{number}", rng, questions, solutions, of_job)
    return num_kept


def _write_job(
    directory: Path, rng: np.random.Generator, questions: list[str], solutions: list[str], samples: int
) -> int:
    drawn: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    num_kept = 0
    problem = np.arange(samples, dtype=np.int64) % len(questions)
    for number, shard in enumerate(write_shards(directory, rng, questions, solutions, problem=problem)):
        num_kept += int((shard.delta.is_correct & ~shard.is_cut).sum())
        attempt = f"t{number}.1"
        drawn.append({"attempt": attempt, "part": 0, "model": "m", **_file(directory, shard.samples)})
        scores.append({"source_attempt": attempt, "source_part": 0, **_file(directory, shard.scores)})
    manifest = {
        "manifest_version": 2,
        "is_sealed": True,
        "job_id": directory.name,
        "job": {"problems": "problems", "scorers": SCORERS},
        "models": [{"name": "m", "path": "", "revision": "sha256:0", "cost": {"parameters": 1}}],
        "problems": {"fingerprint": "sha256:1", "num_problems": len(questions)},
        "versions": {},
        "account": {"currency": "samples", "limit": samples, "spent": samples},
        "shards": drawn,
        "scores": scores,
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return num_kept


def _file(directory: Path, receipt: Receipt) -> dict[str, Any]:
    return {
        "path": str(Path(receipt.path).relative_to(directory)),
        "sha256": receipt.sha256,
        "rows": receipt.rows,
    }


if __name__ == "__main__":
    from dataclasses import asdict

    print(json.dumps(asdict(_select_once(Path(sys.argv[1]), sys.argv[2]))))
