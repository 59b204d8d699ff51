"""Builds a store, a fake cluster and a controller on a virtual clock, and audits them after every tick."""

import itertools
from collections.abc import Callable
from concurrent.futures import Executor, Future
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import numpy as np

from service.cluster import HostKind
from service.controller import Controller
from service.currency import Budget, Currency, from_amount
from service.fake_cluster import FakeCluster
from service.fake_world import FakeWorld
from service.flops import AttentionTerm, ForwardCost
from service.jobs import AllocationSpec, Arm, Job, JobSpec, Resolved
from service.manifest_writer import ManifestWriter
from service.models import ModelSpec
from service.planner import Options
from service.planner.submit import attempt_dir
from service.pricing import Price, Pricing
from service.problems import ProblemSet
from service.receipts import Receipt
from service.store import Store
from service.tasks import TaskState, expand_runs
from service.work import TaskKind
from tests.databases import new_store

COST = ForwardCost(
    body_flops_per_token=2e6,
    head_flops_per_token=3e5,
    attention=(AttentionTerm(flops_per_token_pair=500.0, window=None),),
    parameters=1_100_000,
    active_parameters=1_100_000,
    embedding_parameters=100_000,
)


PRICE = Price(input_usd=0.123457, output_usd=1.5)
PRICING = Pricing(cost=COST, price=PRICE)


class SimulatedCrash(Exception):
    """The controller's process ends here."""


class AtOnceExecutor(Executor):
    """Runs a call where it is submitted, so that histories depend on the seed alone."""

    def submit(self, fn, /, *args, **kwargs):  # pyright: ignore[reportIncompatibleMethodOverride]
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Simulation:
    """One store and one cluster that outlive any number of controllers."""

    opened: ClassVar[list[Store]] = []
    """Stores of the running test; conftest closes them."""

    def __init__(self, directory: Path, *, seed: int = 0, num_problems: int = 40, **world: object) -> None:
        self.world = FakeWorld(seed=seed, **world)  # type: ignore[arg-type]
        self.cluster = FakeCluster(self.world)
        self.store = new_store(directory)
        self.opened.append(self.store)
        self.options = Options(data_dir=str(directory), flush_s=1.0)
        self.start = datetime(2026, 1, 1, tzinfo=UTC)
        self.model = ModelSpec(name="m", path="/nowhere", revision="sha256:0", context_len=512, cost=COST, price=PRICE)
        self.problems = ProblemSet(
            name="p", path="problems", fingerprint="sha256:1", num_problems=num_problems, source="fake"
        )
        self.store.catalogue.register_model(self.model)
        self.store.catalogue.register_problems(self.problems)
        self.controller = self.new_controller()

    def new_controller(self, read_receipt: Callable[[str], Receipt] | None = None) -> Controller:
        """A controller as after a restart: it knows only what the database and the cluster say."""
        return Controller(
            store=self.store,
            cluster=self.cluster,
            options=self.options,
            clock=lambda: self.start + timedelta(seconds=self.cluster.now),
            read_receipt=read_receipt or self.cluster.read_receipt,
            manifests=ManifestWriter(self.store, data_dir=self.options.data_dir, executor=AtOnceExecutor()),
        )

    def controller_now(self) -> datetime:
        """The controller's time."""
        return self.start + timedelta(seconds=self.cluster.now)

    def submit(
        self,
        *,
        budget: Budget,
        models: tuple[str, ...] = ("m",),
        strategy: str = "uniform",
        arms: tuple[Arm, ...] = (),
        **allocation: object,
    ) -> Job:
        spec = JobSpec(
            name="job",
            problems="p",
            models=models,
            budget=budget,
            allocation=AllocationSpec(strategy=strategy, **allocation),  # type: ignore[arg-type]
            arms=arms,
        )
        resolved = Resolved(
            models=tuple(self.store.catalogue.model(name) for name in models),
            problems_path="problems",
            num_problems=self.problems.num_problems,
            problems_fingerprint=self.problems.fingerprint,
        )
        return self.store.jobs.submit(spec, resolved, now=self.start + timedelta(seconds=self.cluster.now))

    def tick(self, elapsed_s: float = 0.25) -> None:
        """Virtual time passes, the controller ticks once, the audit runs."""
        self.cluster.advance(elapsed_s)
        self.controller.tick()
        self.audit()

    def run(self, job: Job, *, max_ticks: int = 4000) -> Job:
        """Ticks until the job ends."""
        for _ in range(max_ticks):
            self.tick()
            if self.store.jobs.get(job.id).phase.is_terminal:
                return self.store.jobs.get(job.id)
        events = [event.message for event in self.store.reads.events()[-12:]]
        raise AssertionError(f"{job.id} did not end: {events}")

    def audit(self) -> None:
        """Holds at every instant: nothing promised beyond the limit, nothing spent beyond what was promised."""
        for job_id, account in self.store.reads.active_accounts().items():
            assert account.limit is not None
            assert account.spent + account.reserved <= account.limit
            totals = self.store.reads.transfers_total(account.id)
            assert account.spent == totals.get("settle", 0)
            assert account.reserved == totals.get("reserve", 0) - totals.get("settle", 0) - totals.get("void", 0)
            if account.currency.is_soft:
                continue  # what runs may go beyond what is promised
            at_risk = sum(
                a.used + a.inflight_worst
                for host in self.cluster.hosts.values()
                for a in host.attempts.values()
                if a.spec.job_id == job_id
            )
            held = from_amount(account.currency, account.reserved + account.spent)
            assert at_risk <= held * (1 + 1e-12) + 1e-6

    def audit_rows(self, job: Job) -> None:
        """Holds at the end: every planned sample once, or withdrawn with its task; every shard scored once."""
        for task in self.store.reads.tasks(job.id, with_runs=True):
            assert task.state.is_terminal
            if task.runs is None:
                continue
            committed = [tuple(pair) for pair in self.store.reads.committed(task.id).tolist()]
            planned = [tuple(pair) for pair in expand_runs(task.runs).tolist()]
            assert len(committed) == len(set(committed))
            assert set(committed) <= set(planned)
            if task.state is TaskState.succeeded:
                assert len(committed) == len(planned)
        for samples in self.samples_by_arm(job).values():
            assert len(samples) == len(set(samples))
        shards = {(p.attempt_id, p.part) for p in self.store.reads.parts(job.id, TaskKind.generate)}
        scored = [(p.source_attempt, p.source_part) for p in self.store.reads.parts(job.id, TaskKind.score)]
        assert len(scored) == len(set(scored))
        assert set(scored) <= shards

    def samples(self, job: Job) -> list[tuple[int, int]]:
        """Problem and sample index of every committed sample of a job."""
        return list(itertools.chain.from_iterable(self.samples_by_arm(job).values()))

    def samples_by_arm(self, job: Job) -> dict[str, list[tuple[int, int]]]:
        """Problem and sample index of every committed sample, by arm."""
        found: dict[str, list[tuple[int, int]]] = {}
        for task in self.store.reads.tasks(job.id):
            if task.kind is TaskKind.generate:
                pairs = self.store.reads.committed(task.id).tolist()
                found.setdefault(task.arm, []).extend((problem, index) for problem, index in pairs)
        return found

    def account(self, job: Job):
        return self.store.reads.account(job.id)

    def engines(self) -> list[str]:
        return self.cluster.living(HostKind.generator)

    def worst_sample(self, currency: Currency) -> float:
        """Worst case of the costliest sample in cost units; of device time, what a sample takes on average."""
        if currency.is_soft:
            return 1000.0 / self.world.samples_per_s
        from service.currency import worst_case

        return max(
            worst_case(currency, PRICING, prompt_tokens=self.world.prompt_tokens(i), max_tokens=self.world.max_tokens)
            for i in range(self.problems.num_problems)
        )


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


__all__ = ["COST", "SimulatedCrash", "Simulation", "attempt_dir", "rng"]
