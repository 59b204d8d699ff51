"""`isoflop bench throughput`: completion tokens a second through the whole service, against vLLM alone.

Both sides get the same prompts as token ids, the same sampling, the same engine arguments and OpenMP threads, engines
that are loaded, the same priority (Ray makes its workers nice, which matters on a machine with other work), and the
machine to themselves: the service is stopped while plain vLLM draws. The service's side has everything a user gets:
REST, planning, ledger, one request a sample, Parquet, hashes, fsync, and scoring.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from api.client import Job
from api.local.bench_machine import Machine, Spread, this_machine
from api.local.bench_process import measure_apart
from api.local.bench_service import BenchService, moment
from api.local.tiny_world import problem_file
from service.cluster import HostKind
from service.work import TaskKind
from workers.engine import engine_environment

MODEL = "gsm-mini-small"
SCORERS = ("math_answer", "steps")
THREADS = 1
_WARM_UP_SAMPLES = 3
_PLAIN_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRun:
    """One job.

    Args:
        tokens: completion tokens of all committed samples.
        seconds: from submission to the commit of the last samples: prompts are prepared and tasks planned in it.
        drawing_s: from the first task given to the engine to the commit of the last samples.
        scored_s: from submission to the end of the job, when all of it is scored.
        busy_s: seconds in which the engine's steps ran.
        flops: counted for all committed samples.
    """

    samples: int
    tokens: int
    seconds: float
    drawing_s: float
    scored_s: float
    busy_s: float
    flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainRun:
    """One call of `LLM.generate`."""

    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both sides, one after the other."""

    service: ServiceRun
    plain: PlainRun

    @property
    def ratio(self) -> float:
        """Tokens a second of the service over those of plain vLLM."""
        return self._of_plain(self.service.seconds)

    @property
    def drawing_ratio(self) -> float:
        """The same without what comes before the first sample."""
        return self._of_plain(self.service.drawing_s)

    def _of_plain(self, seconds: float) -> float:
        return (self.service.tokens / seconds) / (self.plain.tokens / self.plain.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputResult:
    """Pairs and their summary.

    Args:
        niceness: of the engine's process, on both sides.
    """

    machine: Machine
    scorers: tuple[str, ...]
    niceness: int
    pairs: tuple[Pair, ...]
    service_tokens_per_s: Spread
    plain_tokens_per_s: Spread
    ratio: Spread
    drawing_ratio: Spread

    @classmethod
    def of(cls, machine: Machine, scorers: tuple[str, ...], niceness: int, pairs: Sequence[Pair]) -> "ThroughputResult":
        """Summary of the pairs."""
        return cls(
            machine=machine,
            scorers=scorers,
            niceness=niceness,
            pairs=tuple(pairs),
            service_tokens_per_s=Spread.of([pair.service.tokens / pair.service.seconds for pair in pairs]),
            plain_tokens_per_s=Spread.of([pair.plain.tokens / pair.plain.seconds for pair in pairs]),
            ratio=Spread.of([pair.ratio for pair in pairs]),
            drawing_ratio=Spread.of([pair.drawing_ratio for pair in pairs]),
        )


def bench_throughput(
    directory: Path, *, num_pairs: int, seconds: float, num_problems: int, is_scored: bool
) -> ThroughputResult:
    """Draws `num_pairs` pairs of about `seconds` each, in turns; who begins alternates."""
    machine = this_machine()
    scorers = SCORERS if is_scored else ()
    pairs: list[Pair] = []
    with BenchService(directory) as service:
        service.start()
        keep_engine(service)
        warm_up = draw_samples(service, num_problems, _WARM_UP_SAMPLES, ())
        known = read_run(service, warm_up)
        niceness = engine_niceness(service)
        per_problem = max(1, round(known.samples / known.busy_s * seconds / num_problems))
        for number in range(num_pairs):
            if number % 2:
                plain = _run_plain(service, warm_up.id, per_problem, niceness)
                drawn = run_service(service, num_problems, per_problem, scorers)
            else:
                drawn = run_service(service, num_problems, per_problem, scorers)
                plain = _run_plain(service, warm_up.id, per_problem, niceness)
            pairs.append(Pair(service=drawn, plain=plain))
    return ThroughputResult.of(machine, scorers, niceness, pairs)


def keep_engine(service: BenchService) -> None:
    """Registers the tiny world's small model and its problems as `p`; an engine that is loaded stays."""
    service.register_model(MODEL, MODEL)
    service.client.problems.register(name="p", path=problem_file("train"))
    service.client.pools.scale(MODEL, min=1)


def run_service(service: BenchService, num_problems: int, per_problem: int, scorers: tuple[str, ...]) -> ServiceRun:
    """One job on a loaded engine; the service is started if it does not run."""
    if not service.is_running:
        service.start()
    draw_samples(service, num_problems, 1, ())  # loads the engine
    return read_run(service, draw_samples(service, num_problems, per_problem, scorers))


def engine_niceness(service: BenchService) -> int:
    """At which priority the service's only engine runs."""
    (pid,) = [host.pid for host in service.store.reads.hosts() if host.kind is HostKind.generator]
    return int(psutil.Process(pid).nice())


def draw_samples(service: BenchService, num_problems: int, per_problem: int, scorers: tuple[str, ...]) -> Job:
    """A job of so many samples a problem, ended."""
    job = service.client.jobs.create(
        problems="p",
        models=[MODEL],
        budget={"samples_per_problem": per_problem},
        sampling={"temperature": 0.8, "max_tokens": "auto"},
        scorers=list(scorers),
        max_problems=num_problems,
    )
    return service.run(job)


def read_run(service: BenchService, job: Job) -> ServiceRun:
    """What the service wrote down of a job that has ended."""
    created_at, ended_at = moment(job.document["created_at"]), moment(job.document["ended_at"])
    reads = service.store.reads
    usage = [row for row in reads.usage(job_id=job.id) if row.stage == "generate"]
    committed_at = max(part.committed_at for part in reads.parts(job.id, TaskKind.generate))
    began_at = min(
        task.submitted_at for task in reads.tasks(job.id) if task.kind is TaskKind.generate and task.submitted_at
    )
    return ServiceRun(
        samples=job.document["progress"]["samples"],
        tokens=job.document["progress"]["completion_tokens"],
        seconds=(committed_at - created_at).total_seconds(),
        drawing_s=(committed_at - began_at).total_seconds(),
        scored_s=(ended_at - created_at).total_seconds(),
        busy_s=sum(row.busy_s for row in usage),
        flops=sum(row.flops for row in usage),
    )


def _run_plain(service: BenchService, job_id: str, per_problem: int, niceness: int) -> PlainRun:
    service.stop()
    model = service.store.jobs.resolved(job_id).models[0]
    found = measure_apart(
        "api.local.bench_plain",
        service.database,
        job_id,
        per_problem,
        environment=engine_environment(model, THREADS),
        niceness=niceness,
        limit_s=_PLAIN_S,
    )
    return PlainRun(**found)
