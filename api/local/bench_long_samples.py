"""`isoflop bench long-samples`: how full engines stay while a budget is spent on long samples. On a virtual clock.

The controller, its store, the hosts and their admission by credit are the real ones (`workers.virtual_cluster`); only
the engines are simulated, with lengths from a log-normal distribution that `max_tokens` cuts. Invariant: a run depends
on its arguments alone; at every look of the control loop what is spent and what may still be spent in the engines are
within the budget, or the run raises.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from api.local.bench_machine import Machine, this_machine
from api.local.bench_samples import make_questions, write_problems
from service.cluster import HostSpec
from service.controller import Controller
from service.currency import Budget, Currency, from_amount, to_amount, worst_case
from service.flops import AttentionTerm, ForwardCost
from service.jobs import Job, JobSpec, Phase, Resolved
from service.models import EngineOptions, ModelSpec
from service.planner import Options, Plan
from service.problems import ProblemSet
from service.sampling import SamplingSpec
from service.store import Store
from service.work import TaskKind
from workers.simulated_engine import LENGTH_STEPS, SimulatedEngine
from workers.virtual_cluster import VirtualCluster

Lengths = npt.NDArray[np.int64]
COST = ForwardCost(
    body_flops_per_token=2e9,
    head_flops_per_token=3e8,
    attention=(AttentionTerm(flops_per_token_pair=2e5, window=None),),
    parameters=1_100_000_000,
    active_parameters=1_100_000_000,
    embedding_parameters=100_000_000,
)
"""About that of a model of a billion parameters."""
_SIGMA = 0.9
"""Of the logarithm of lengths: one completion in a hundred reaches a limit of 5.5 times the mean."""
_NUM_PROBLEMS = 500
_MAX_LOOKS = 200_000
_BANDS = 20
_START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class LongSamples:
    """What is simulated.

    Args:
        models: names; each has a pool of `engines` engines.
        mean_tokens: mean completion length, once `max_tokens` has cut it [tokens].
        budget_worst: the budget in worst cases of all that runs in the engines at once.
        step_tokens: tokens that every sequence gains between two looks of the control loop. A real loop looks ten
            times a second, between two and ten tokens: large steps make it slow, and credit late.
        tokens_per_s: of one sequence.
        flush_s: see `Options`; only bounds the number of files here.
    """

    engines: int = 8
    max_num_seqs: int = 256
    mean_tokens: float = 6000.0
    max_tokens: int = 32_768
    budget_worst: float = 30.0
    currency: Currency = Currency.tokens
    step_tokens: int = 256
    tokens_per_s: float = 50.0
    flush_s: float = 600.0
    models: tuple[str, ...] = ("m",)
    seed: int = 0

    @property
    def num_engines(self) -> int:
        """Of all pools."""
        return self.engines * len(self.models)


@dataclass(frozen=True, slots=True, kw_only=True)
class LongSamplesResult:
    """What came of it.

    Args:
        busy: mean share of the engines' sequences that ran until 95 % of the budget was spent.
        busy_bands: the same in each twentieth of the budget; the last one is the end, when credit runs out.
        spent: share of the budget, of finished samples.
        mean_tokens: of the completions [tokens].
        standard_error: of it [tokens].
        true_mean_tokens: of the distribution that they were drawn from [tokens].
        looks: of the control loop.
        hours: virtual.
        last_share_of_time: share of the hours after 95 % were spent.
    """

    machine: Machine
    given: LongSamples
    busy: float
    busy_bands: tuple[float, ...]
    spent: float
    samples: int
    mean_tokens: float
    standard_error: float
    true_mean_tokens: float
    looks: int
    hours: float
    last_share_of_time: float


def bench_long_samples(directory: Path, given: LongSamples) -> LongSamplesResult:
    """Runs one job to its end.

    Raises:
        RuntimeError: more was spent or promised than the budget, or the job does not succeed.
    """
    machine = this_machine()
    quantile = capped_quantile(given.mean_tokens, given.max_tokens)
    run = _Run(directory, given, quantile)
    try:
        run.to_end()
        lengths, spent_share = run.lengths(), run.spent_share()
    finally:
        run.store.close()
    spent, busy = np.array(run.spent), np.array(run.busy)
    is_before = spent < 0.95
    band = np.minimum((spent * _BANDS).astype(int), _BANDS - 1)
    return LongSamplesResult(
        machine=machine,
        given=given,
        busy=float(busy[is_before].mean()),
        busy_bands=tuple(float(busy[band == each].mean()) if (band == each).any() else 0.0 for each in range(_BANDS)),
        spent=spent_share,
        samples=len(lengths),
        mean_tokens=float(lengths.mean()),
        standard_error=float(lengths.std() / math.sqrt(len(lengths))),
        true_mean_tokens=_true_mean(quantile, given.max_tokens),
        looks=len(spent),
        hours=run.cluster.now / 3600,
        last_share_of_time=float((~is_before).mean()),
    )


def capped_quantile(mean: float, cap: int) -> Callable[[float], float]:
    """Quantiles of log-normal lengths whose mean is `mean` once they are cut at `cap` [tokens].

    Raises:
        ValueError: no such lengths: the mean is not between one token and the cap.
    """
    if not 1 < mean < cap:
        raise ValueError(f"mean length: got {mean:,.0f}, allowed: above 1 and below the limit of {cap:,}")
    shares = (np.arange(LENGTH_STEPS + 1) / LENGTH_STEPS).clip(1e-6, 1 - 1e-6)
    shape = np.exp(_SIGMA * np.array([NormalDist().inv_cdf(share) for share in shares.tolist()]))
    low, high = 0.0, float(cap)
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle * shape, cap).mean() < mean else (low, middle)
    lengths = (low * shape).tolist()
    return lambda share: lengths[round(share * LENGTH_STEPS)]


def _true_mean(quantile: Callable[[float], float], cap: int) -> float:
    """Mean over every length that a simulated engine can draw, all as likely [tokens]."""
    lengths = [min(max(1, int(quantile(step / LENGTH_STEPS))), cap) for step in range(LENGTH_STEPS + 1)]
    return math.fsum(lengths) / len(lengths)


@dataclass(slots=True)
class _Run:
    """A job on its way.

    Attributes:
        spent: share of the budget that finished samples had cost, at each look since the first sample entered.
        busy: share of the engines' sequences that ran in the step before it.
    """

    directory: Path
    given: LongSamples
    quantile: Callable[[float], float]
    spent: list[float] = field(default_factory=list[float])
    busy: list[float] = field(default_factory=list[float])
    store: Store = field(init=False)
    cluster: VirtualCluster = field(init=False)
    job: Job = field(init=False)

    def __post_init__(self) -> None:
        given = self.given
        self.cluster = VirtualCluster(
            make_engine=self._make_engine,
            step_s=given.step_tokens / given.tokens_per_s,
            num_cpus=float(given.num_engines),
        )
        self.store = Store.open(f"sqlite:///{self.directory}/isoflop.db")
        self.job = _submit(self.store, self.directory, given)

    def _make_engine(self, spec: HostSpec) -> SimulatedEngine:
        return SimulatedEngine(
            model=spec.model,
            max_num_seqs=self.given.max_num_seqs,
            quantile=self.quantile,
            tokens_per_step=self.given.step_tokens,
        )

    def to_end(self) -> None:
        """Looks until the job has ended."""
        controller = Controller(
            store=self.store,
            cluster=self.cluster,
            options=Options(data_dir=str(self.directory), flush_s=self.given.flush_s),
            clock=lambda: _START + timedelta(seconds=self.cluster.now),
        )
        for _ in range(_MAX_LOOKS):
            self.cluster.advance()
            if (phase := _ended(controller.tick())) is not None:
                break
            self._look()
        else:
            raise RuntimeError(f"{self.job.id} has not ended after {_MAX_LOOKS:,} looks")
        if phase is not Phase.succeeded:
            raise RuntimeError(f"{self.job.id} is {phase.value}: {self.store.jobs.get(self.job.id).error}")

    def _look(self) -> None:
        budget = self.job.spec.budget
        limit, used = from_amount(budget.currency, budget.limit), self.cluster.used
        if used + self.cluster.inflight_worst > limit:
            raise RuntimeError(
                f"{used:,.0f} spent and {self.cluster.inflight_worst:,.0f} at risk, allowed: {limit:,.0f}"
            )
        running = sum(engine.num_running for engine in self.cluster.engines.values())
        if running or self.busy:
            self.busy.append(running / (self.given.num_engines * self.given.max_num_seqs))
            self.spent.append(used / limit)

    def lengths(self) -> Lengths:
        """Of all completions [tokens]."""
        parts = self.store.reads.parts(self.job.id, TaskKind.generate)
        tables = [pq.read_table(part.path, columns=["completion_tokens"]) for part in parts]
        return np.concatenate([table["completion_tokens"].to_numpy() for table in tables])

    def spent_share(self) -> float:
        """Share of the budget that the ledger says is spent."""
        account = self.store.reads.account(self.job.id)
        if account.reserved:
            raise RuntimeError(f"{self.job.id} has ended with {account.reserved:,} reserved")
        return account.spent / self.job.spec.budget.limit


def _ended(plan: Plan) -> Phase | None:
    return next((write.phase for write in plan.jobs if write.phase.is_terminal), None)


def _submit(store: Store, directory: Path, given: LongSamples) -> Job:
    questions = make_questions(np.random.default_rng(given.seed), 0, _NUM_PROBLEMS)
    problems = ProblemSet(
        name="p",
        path=str(directory / "problems.parquet"),
        fingerprint="sha256:0",
        num_problems=_NUM_PROBLEMS,
        source="simulated",
    )
    write_problems(Path(problems.path), questions)
    store.catalogue.register_problems(problems)
    models = _models(given, questions)
    for model in models:
        store.catalogue.register_model(model)
        store.catalogue.change_pool(model.name, replicas=given.engines)
    spec = JobSpec(
        name="long samples",
        problems=problems.name,
        models=given.models,
        budget=Budget(currency=given.currency, limit=_limit(given, models[0])),
        sampling=SamplingSpec(max_tokens=given.max_tokens),
        scorers=(),
        seed=given.seed,
    )
    resolved = Resolved(
        models=models,
        problems_path=problems.path,
        num_problems=problems.num_problems,
        problems_fingerprint=problems.fingerprint,
    )
    return store.jobs.submit(spec, resolved, now=_START)


def _models(given: LongSamples, questions: Sequence[str]) -> tuple[ModelSpec, ...]:
    # room for the longest prompt, a token a character, and what begins and ends it
    context_len = given.max_tokens + max(map(len, questions)) + 2
    engine = EngineOptions(simulated=True, max_num_seqs=given.max_num_seqs)
    return tuple(
        ModelSpec(name=name, path=name, revision="sha256:0", context_len=context_len, cost=COST, engine=engine)
        for name in given.models
    )


def _limit(given: LongSamples, model: ModelSpec) -> int:
    prompt_tokens = model.context_len - given.max_tokens
    worst = worst_case(given.currency, model.pricing, prompt_tokens=prompt_tokens, max_tokens=given.max_tokens)
    return to_amount(given.currency, given.budget_worst * given.num_engines * given.max_num_seqs * worst)
