"""Builds a store with a simulated model and a small problem set, and runs controllers on any cluster."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from service.cluster import Cluster
from service.controller import Controller
from service.currency import Budget, Currency
from service.jobs import AllocationSpec, Job, JobSpec, Resolved
from service.models import EngineOptions, ModelSpec
from service.planner import Options
from service.problems import ProblemSource, register_problems
from service.sampling import SamplingSpec
from tests.databases import new_store
from tests.simulation.world import COST

DEADLINE_S = 120.0


def make_problems(directory: Path, num_problems: int) -> Path:
    """A problem file whose prompts carry what the simulated engine needs to be right at times."""
    path = directory / "problems.jsonl"
    rows = [
        {
            "id": f"p{i}",
            "question": f"What is {i} and {i}? [answer={2 * i}]",
            "answer": str(2 * i),
            "level": 1 + i % 3,
        }
        for i in range(num_problems)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class World:
    """A data directory with a catalogue, and controllers on it."""

    def __init__(self, directory: Path, *, num_problems: int = 50, model: ModelSpec | None = None) -> None:
        self.data_dir = directory / "data"
        self.data_dir.mkdir()
        self.store = new_store(self.data_dir)
        self.model = model or ModelSpec(
            name="simulated",
            path="/nowhere",
            revision="sha256:0",
            context_len=512,
            cost=COST,
            engine=EngineOptions(simulated=True, max_num_seqs=32),
        )
        self.store.catalogue.register_model(self.model)
        source = ProblemSource(path=str(make_problems(directory, num_problems)))
        self.problems = register_problems(name="p", source=source, data_dir=self.data_dir)
        self.store.catalogue.register_problems(self.problems)

    def controller(self, cluster: Cluster) -> Controller:
        """A controller with short parts, so that small jobs have several."""
        options = Options(
            data_dir=str(self.data_dir), flush_s=0.5, adaptive_flush_s=0.1, first_task_samples=200, retry_s=0.1
        )
        return Controller(store=self.store, cluster=cluster, options=options)

    def submit(
        self,
        *,
        budget: Budget | None = None,
        allocation: AllocationSpec | None = None,
        sampling: SamplingSpec | None = None,
        scorers: tuple[str, ...] = ("math_answer", "steps"),
    ) -> Job:
        spec = JobSpec(
            name="job",
            problems="p",
            models=(self.model.name,),
            budget=budget or Budget(currency=Currency.samples, limit=4 * self.problems.num_problems),
            allocation=allocation or AllocationSpec(),
            sampling=sampling or SamplingSpec(temperature=0.8, max_tokens=64),
            scorers=scorers,
        )
        resolved = Resolved(
            models=(self.model,),
            problems_path=self.problems.path,
            num_problems=self.problems.num_problems,
            problems_fingerprint=self.problems.fingerprint,
        )
        return self.store.jobs.submit(spec, resolved)

    def run(self, controller: Controller, job: Job) -> Job:
        """Ticks until the job ends."""
        return self.run_until(controller, lambda: self.store.jobs.get(job.id).phase.is_terminal, job)

    def run_until(self, controller: Controller, is_done: Callable[[], bool], job: Job) -> Job:
        """Ticks until `is_done`, real time bounded."""
        deadline = time.monotonic() + DEADLINE_S
        while not is_done():
            if time.monotonic() > deadline:
                events = [event.message for event in self.store.reads.events()]
                raise AssertionError(f"{self.store.jobs.get(job.id).phase}; {self.store.snapshot().tasks}; {events}")
            controller.tick()
            time.sleep(0.02)  # hosts work in threads or processes of their own
        return self.store.jobs.get(job.id)

    def job_dir(self, job: Job) -> Path:
        return self.data_dir / "jobs" / job.id
