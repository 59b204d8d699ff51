"""`isoflop bench control-plane`: what the control loop costs a sample, and whether memory grows with samples.

The real service as a process, real Ray, real files and scoring; only the model is simulated, in a process of its own
as every engine. So the service's process holds the control loop, HTTP and Ray's client and nothing else.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from api.local.bench_machine import Machine, this_machine
from api.local.bench_service import BenchService

MODEL = "simulated"
NUM_PROBLEMS = 1000
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneRow:
    """One job.

    Args:
        samples: committed and scored.
        seconds: from submission to the end of the job.
        tick_cpu_s: processor time of the control loop's thread meanwhile.
        process_cpu_s: ... and of the whole service process.
        ticks: passes of the control loop meanwhile.
        rss_mib: resident memory of the service process after the job.
        scoring_busy_s: seconds in which scorers worked, in processes of their own: grading, reading and writing files.
    """

    samples: int
    seconds: float
    tick_cpu_s: float
    process_cpu_s: float
    ticks: int
    rss_mib: float
    scoring_busy_s: float

    @property
    def tick_us_per_sample(self) -> float:
        """Processor time of the control loop a sample [microseconds]."""
        return self.tick_cpu_s / self.samples * 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlaneResult:
    """Jobs of growing size, one after the other on one service.

    Args:
        rss_idle_mib: resident memory before the first of them, after one that warmed everything up.
    """

    machine: Machine
    rss_idle_mib: float
    rows: tuple[ControlPlaneRow, ...]


def decades(samples: int) -> list[int]:
    """Sizes of the jobs: powers of ten from 10,000, up to `samples` and ending with it.

    Raises:
        ValueError: below one sample a problem.
    """
    if samples < NUM_PROBLEMS:
        raise ValueError(f"samples: got {samples}, allowed: at least {NUM_PROBLEMS}, one for each problem")
    sizes = [10**exponent for exponent in range(4, 19) if 10**exponent < samples]
    return [*sizes, samples]


def bench_control_plane(directory: Path, samples: int) -> ControlPlaneResult:
    """Runs jobs of 10,000 samples and ten times more each, up to `samples`."""
    machine = this_machine()
    sizes = decades(samples)
    with BenchService(directory) as service:
        service.start()
        service.register_model(MODEL, "gsm-mini-small", simulated=True)
        service.client.problems.register(name="p", path=_write_problems(directory / "problems.jsonl"))
        service.client.pools.scale(MODEL, min=1)
        _measure(service, NUM_PROBLEMS)
        rss_idle_mib = service.process.memory_info().rss / _MIB
        rows = tuple(_measure(service, size) for size in sizes)
    return ControlPlaneResult(machine=machine, rss_idle_mib=rss_idle_mib, rows=rows)


def _measure(service: BenchService, samples: int) -> ControlPlaneRow:
    before = _cost(service)
    started = time.perf_counter()
    job = service.client.jobs.create(
        problems="p",
        models=[MODEL],
        budget={"samples_per_problem": samples // NUM_PROBLEMS},
        sampling={"max_tokens": 64},
        scorers=["math_answer"],
    )
    drawn = service.run(job).document["progress"]["samples"]
    seconds = time.perf_counter() - started
    tick_cpu_s, process_cpu_s, ticks = (b - a for a, b in zip(before, _cost(service), strict=True))
    return ControlPlaneRow(
        samples=drawn,
        seconds=seconds,
        tick_cpu_s=tick_cpu_s,
        process_cpu_s=process_cpu_s,
        ticks=round(ticks),
        rss_mib=service.process.memory_info().rss / _MIB,
        scoring_busy_s=sum(row.busy_s for row in service.store.reads.usage(job_id=job.id) if row.stage == "score"),
    )


def _cost(service: BenchService) -> tuple[float, float, float]:
    times = service.process.cpu_times()
    ticks = service.metric("isoflop_ticks_total")
    return service.metric("isoflop_tick_cpu_seconds_total"), times.user + times.system, ticks


def _write_problems(path: Path) -> Path:
    rows = [
        {"id": f"p{i}", "question": f"What is {i} and {i}? [answer={2 * i}]", "answer": str(2 * i)}
        for i in range(NUM_PROBLEMS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
