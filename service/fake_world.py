"""What simulated engines do, and what they did: lengths, answers, receipts on a storage in memory.

Every number follows from the seed, the problem and the sample, so that each attempt at a sample gives the same. No
number made here is a measurement.
"""

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np

from service.currency import Currency, actual, can_price, worst_case
from service.pricing import Pricing
from service.receipts import Receipt, ScoreDelta, Usage
from service.work import AttemptSpec, FinetuneWork, GenerateWork, PrepareWork, ScoreWork


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeWorld:
    """What the fake engines do.

    Args:
        max_tokens: most completion tokens of a sample.
        window: samples an engine holds at once.
        samples_per_s: finished samples of one engine and virtual second.
        solve_rate: chance that a sample is correct, by problem index modulo its length.
        load_s: virtual seconds until a host is ready.
        swap_s: virtual seconds until an engine has the weights of another model of its pool.
        flush_rows: finished samples become a part at this many.
        poison: problems that kill the engine they enter.
        dies_silently: an engine that dies of one is gone without a word.
        only_errors: models of which every sample is an error.
        slow_answers: prepare and score attempts never end.
        shorter: how many times shorter an arm's completions are than others', by its name.
        score_s: virtual seconds of a score attempt.
        train_s: virtual seconds of a finetune.
    """

    seed: int
    max_tokens: int = 64
    window: int = 16
    samples_per_s: float = 40.0
    solve_rate: tuple[float, ...] = (0.9, 0.5, 0.2)
    load_s: float = 1.0
    swap_s: float = 0.0
    flush_rows: int = 50
    poison: frozenset[int] = frozenset()
    dies_silently: bool = False
    only_errors: frozenset[str] = frozenset()
    slow_answers: bool = False
    shorter: dict[str, int] = field(default_factory=dict[str, int])
    score_s: float = 0.0
    train_s: float = 10.0

    def prompt_tokens(self, problem: int) -> int:
        """Length of a prompt [tokens]."""
        return 10 + (problem * 7919 + self.seed) % 30

    def draw(self, problem: int, sample: int) -> tuple[int, bool, int]:
        """Completion tokens, whether correct, and which solution: the same for every attempt at the sample."""
        rng = np.random.default_rng([self.seed, problem, sample])
        length = int(rng.integers(1, self.max_tokens + 1))
        is_correct = bool(rng.random() < self.solve_rate[problem % len(self.solve_rate)])
        return length, is_correct, int(rng.integers(0, 4))


@dataclass(slots=True, kw_only=True)
class FakeSample:
    """A planned sample on its way through a fake engine."""

    problem: int
    index: int
    worst: float
    is_refused: bool = False
    cost: float = 0.0
    tokens: int = 0


class FakeRecord:
    """What really happened: every cost whether reported or not, every draw, every file.

    Attributes:
        files: receipts on the fake storage, by path.
        true_cost: what all engines ever spent [cost units of the budget].
        num_drawn: samples that engines finished.
        busy_s: time in which engines had samples inside [s].
    """

    def __init__(self, world: FakeWorld) -> None:
        self.world = world
        self.files: dict[str, Receipt] = {}
        self.true_cost = 0.0
        self.num_drawn = 0
        self.busy_s = 0.0

    def _store(self, spec: AttemptSpec, receipt: Receipt) -> Receipt:
        path = f"{spec.attempt_id}/{receipt.part}"
        self.files[path] = dataclasses.replace(receipt, path=path, sha256=f"{hash(path) & 0xFFFFFFFF:064x}")
        return self.files[path]

    def prepare_receipt(self, spec: AttemptSpec, work: PrepareWork) -> Receipt:
        """Prompts of every problem."""
        facts = {"num_valid": float(work.num_problems), "num_errors": 0.0}
        facts["mean_prompt_tokens"] = float(np.mean([self.world.prompt_tokens(p) for p in range(work.num_problems)]))
        for currency in Currency:
            if not can_price(currency, work.model.pricing):
                continue
            costs = [
                worst_case(
                    currency,
                    work.model.pricing,
                    prompt_tokens=self.world.prompt_tokens(problem),
                    max_tokens=self.world.max_tokens,
                )
                for problem in range(work.num_problems)
            ]
            facts[f"min_worst_{currency}"] = min(costs)
            facts[f"mean_worst_{currency}"] = sum(costs) / len(costs)
        return self._store(
            spec, Receipt(part=0, path="", sha256="", rows=work.num_problems, usage=Usage(), facts=facts)
        )

    def generate_receipt(self, spec: AttemptSpec, part: int, samples: list[FakeSample], time: Usage) -> Receipt:
        """One flushed part, and the time it took."""
        if not isinstance(spec.work, GenerateWork):
            raise TypeError(f"{spec.attempt_id}: {spec.kind} attempts make no samples")
        pricing = spec.work.model.pricing
        usage = time
        for sample in samples:
            if sample.is_refused or spec.work.model.name in self.world.only_errors:
                usage = usage + Usage(samples=1, errors=1)
            else:
                usage = usage + _sample_usage(pricing, self.world.prompt_tokens(sample.problem), sample.tokens)
        indices = np.array([(s.problem, s.index) for s in samples], dtype=np.int32)
        return self._store(
            spec, Receipt(part=part, path="", sha256="", rows=len(samples), usage=usage, indices=indices)
        )

    def finetune_receipt(self, spec: AttemptSpec, work: FinetuneWork) -> Receipt:
        """The last checkpoint."""
        facts = {"step": float(work.training.steps), "loss": 1.0}
        return self._store(spec, Receipt(part=0, path="", sha256="", rows=0, usage=Usage(), facts=facts))

    def score_receipt(self, spec: AttemptSpec, work: ScoreWork) -> Receipt:
        """Scores of a shard."""
        indices = self.files[work.shard_path].indices
        if indices is None:
            raise ValueError(f"{work.shard_path}: a shard without indices")
        drawn = [self.world.draw(problem, sample) for problem, sample in indices.tolist()]
        delta = ScoreDelta(
            problem=indices[:, 0],
            sample_index=indices[:, 1],
            is_correct=np.array([is_correct for _, is_correct, _ in drawn]),
            steps=np.ones(len(drawn), dtype=np.int8),
            solution=np.array([solution for _, _, solution in drawn], dtype=np.uint64),
        )
        return self._store(spec, Receipt(part=0, path="", sha256="", rows=len(drawn), usage=Usage(), delta=delta))


def _sample_usage(pricing: Pricing, prompt_tokens: int, tokens: int) -> Usage:
    def cost(currency: Currency) -> float:
        if not can_price(currency, pricing):
            return math.nan
        return actual(currency, pricing, prompt_tokens=prompt_tokens, cached_tokens=0, completion_tokens=tokens)

    return Usage(
        samples=1,
        prompt_tokens=prompt_tokens,
        completion_tokens=tokens,
        flops=cost(Currency.flops),
        flops_paper=cost(Currency.flops_paper),
        nano_usd=cost(Currency.usd),
    )
