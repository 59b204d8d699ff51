"""`isoflop bench report`: seconds and memory of the report of two large jobs, from their files to every form of it.

    python -m api.local.bench_report DIRECTORY

makes the report of the jobs that `bench_report` has written, in a process of its own so that memory is its own too.
Invariant: coverage and false positives of both jobs are known when they are written, so a report that is fast because
it is wrong fails here. The second job has half of its samples for a quarter of the problems: numbers of samples differ
as under an adaptive strategy, so lines at equal numbers are made as well.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from api.local.bench_machine import Machine, Spread, this_machine
from api.local.bench_models import COST
from api.local.bench_process import measure_apart, peak_mib
from api.local.bench_samples import SCORERS, Shard, make_questions, make_solutions, write_problems, write_shards
from service.currency import Budget, Currency
from service.jobs import Job, JobSpec, Resolved
from service.models import ModelSpec
from service.planner.plan import PartWrite, Plan, TaskWrite, UsageWrite
from service.receipts import Receipt, Usage
from service.stats import Estimate
from service.store import Store
from service.tasks import ShardRef, Task
from service.work import TaskKind

NAMES = ("even", "uneven")
_DATABASE = "isoflop.db"
_SAMPLES_PER_PROBLEM = 100
_FORMS = ("html", "md", "json")
_MODEL = ModelSpec(name="m", path="", revision="sha256:0", context_len=512, cost=COST)

Found = dict[str, list[float]]
"""Value of each job, by the key of a line of the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRun:
    """One report.

    Args:
        seconds: on the clock, from opening the database to the last form of the report.
        cpu_s: processor time of all threads of the process.
        peak_mib: resident memory of the process at its highest, imports included.
        idle_mib: the same before it began.
        html_bytes: size of the page, drawing code included.
    """

    seconds: float
    cpu_s: float
    peak_mib: float
    idle_mib: float
    html_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportResult:
    """Repeats, each in a new process.

    Args:
        samples: of each job.
        num_bytes: of the files of samples and scores.
    """

    machine: Machine
    samples: int
    problems: int
    num_bytes: int
    runs: tuple[ReportRun, ...]
    seconds: Spread
    cpu_s: Spread
    peak_mib: Spread


def bench_report(directory: Path, samples: int, repeats: int) -> ReportResult:
    """Writes two jobs of `samples` samples each, and makes their report `repeats` times.

    Raises:
        ValueError: under 1,000 samples.
        RuntimeError: the report says something else than is in the files.
    """
    if samples < 1000:
        raise ValueError(f"samples must be at least 1000, got {samples}")
    machine = this_machine()
    num_problems = samples // _SAMPLES_PER_PROBLEM
    made = _write_jobs(directory, samples, num_problems)
    runs: list[ReportRun] = []
    for _ in range(repeats):
        measured = measure_apart("api.local.bench_report", directory)
        found: Found = measured.pop("found")
        if any(not np.allclose(found[key], made[key]) for key in made):
            raise RuntimeError(f"the report says {found}, the files hold {made}")
        runs.append(ReportRun(**measured))
    return ReportResult(
        machine=machine,
        samples=samples,
        problems=num_problems,
        num_bytes=sum(path.stat().st_size for path in directory.glob("*/attempts/**/*.parquet")),
        runs=tuple(runs),
        seconds=Spread.of([run.seconds for run in runs]),
        cpu_s=Spread.of([run.cpu_s for run in runs]),
        peak_mib=Spread.of([run.peak_mib for run in runs]),
    )


def _write_jobs(directory: Path, samples: int, num_problems: int) -> Found:
    """Problems, and both jobs with their files and rows; what the report has to find."""
    rng = np.random.default_rng(0)
    questions, solutions = make_questions(rng, 0, num_problems), make_solutions(rng)
    write_problems(directory / "problems.parquet", questions)
    number = np.arange(samples, dtype=np.int64)
    more_of_some = np.where(number < samples // 2, number % num_problems, number % (num_problems // 4))
    made: Found = {"coverage": [], "false_positive_rate": []}
    store = Store.open(f"sqlite:///{directory / _DATABASE}")
    try:
        store.catalogue.register_model(_MODEL)
        for name, problem in zip(NAMES, (number % num_problems, more_of_some), strict=True):
            job = _submit(store, name, directory / "problems.parquet", num_problems, samples)
            shards = write_shards(
                directory / name,
                rng,
                questions,
                solutions,
                problem=problem,
                correct=rng.beta(0.2, 0.8, num_problems),
            )
            is_solved, num_judged, num_wrong = np.zeros(num_problems, dtype=np.bool_), 0, 0
            for shard in _committed(store, job, shards):
                right, steps = shard.delta.is_correct, shard.delta.steps
                is_solved[shard.delta.problem[right]] = True
                num_judged += int((right & (steps != -1)).sum())
                num_wrong += int((right & (steps == 0)).sum())
            made["coverage"].append(float(is_solved.mean()))
            made["false_positive_rate"].append(num_wrong / num_judged)
    finally:
        store.close()
    return made


def _submit(store: Store, name: str, problems: Path, num_problems: int, samples: int) -> Job:
    spec = JobSpec(
        name=name,
        problems="problems",
        models=(_MODEL.name,),
        budget=Budget(currency=Currency.samples, limit=samples),
        scorers=SCORERS,
    )
    resolved = Resolved(
        models=(_MODEL,), problems_path=str(problems), num_problems=num_problems, problems_fingerprint="sha256:1"
    )
    return store.jobs.submit(spec, resolved)


def _committed(store: Store, job: Job, shards: Iterable[Shard]) -> Iterator[Shard]:
    """Passes shards on, each once the database has it and its scores."""
    for number, shard in enumerate(shards):
        drawn = Task(
            id=f"{job.id}-{2 * number}", job_id=job.id, kind=TaskKind.generate, order=2 * number, model="m", arm="m"
        )
        source = ShardRef(attempt_id=drawn.attempt_id, part=0, path=shard.samples.path, sha256=shard.samples.sha256)
        scored = Task(
            id=f"{job.id}-{2 * number + 1}",
            job_id=job.id,
            kind=TaskKind.score,
            order=2 * number + 1,
            model="m",
            arm="m",
            source=source,
        )
        usage = Usage(samples=shard.samples.rows, flops=1e9 * shard.samples.rows, busy_s=1.0, cpu_s=1.0)
        plan = Plan(
            tasks=(TaskWrite(before=None, after=drawn), TaskWrite(before=None, after=scored)),
            parts=(_part(drawn, shard.samples), _part(scored, shard.scores)),
            usage=(UsageWrite(job_id=job.id, model="m", stage=TaskKind.generate, outcome="useful", usage=usage),),
        )
        store.commit(plan, datetime.now(UTC))
        yield shard


def _part(task: Task, receipt: Receipt) -> PartWrite:
    return PartWrite(task=task, attempt_id=task.attempt_id, receipt=receipt)


def _report_once(directory: Path) -> tuple[ReportRun, Found]:
    from plotly.offline import get_plotlyjs

    from service.job_report import compare_jobs
    from service.report_files import render_markdown, to_json
    from service.report_html import render_html

    idle_mib = peak_mib()
    started, cpu_started = time.perf_counter(), time.process_time()
    store = Store.open(f"sqlite:///{directory / _DATABASE}")
    try:
        ids = {job.spec.name: job.id for _, job in store.jobs.list()}
        comparison, figures = compare_jobs(
            store,
            [ids[name] for name in NAMES],
            title="Two jobs",
            documents={job_id: "synthetic" for job_id in ids.values()},
            versions=(),
            now=datetime.now(UTC),
        )
    finally:
        store.close()
    html = render_html(comparison, figures, plotly_js=get_plotlyjs())
    forms = dict(zip(_FORMS, (html, render_markdown(comparison), to_json(comparison, figures)), strict=True))
    for form, text in forms.items():
        (directory / f"report.{form}").write_text(text, encoding="utf-8")
    run = ReportRun(
        seconds=time.perf_counter() - started,
        cpu_s=time.process_time() - cpu_started,
        peak_mib=peak_mib(),
        idle_mib=idle_mib,
        html_bytes=len(html.encode()),
    )
    found = {
        line.key: [value.value for value in line.values if isinstance(value, Estimate)] for line in comparison.metrics
    }
    return run, found


if __name__ == "__main__":
    made, values = _report_once(Path(sys.argv[1]))
    print(json.dumps(asdict(made) | {"found": values}))
