"""A generator host with a simulated engine, driven step by step on one thread with a clock of its own."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from service.cluster import AttemptReport, Grant, Orders
from service.currency import Currency, worst_case
from service.devices import ONE_CORE, Devices
from service.jobs import PromptSpec
from service.models import EngineOptions, ModelSpec
from service.shards import check_file
from service.spec_ids import spec_id
from service.work import AttemptSpec
from tests.workers.generate_attempts import COST, PRICE, generate_attempt
from workers.engine_protocol import Finished
from workers.generator import GeneratorHost
from workers.prepared import write_prepared
from workers.simulated_engine import SimulatedEngine, SimulatedTokenizer

MODEL = ModelSpec(
    name="sim",
    path="",
    revision="sha256:0",
    context_len=128,
    cost=COST,
    price=PRICE,
    engine=EngineOptions(simulated=True),
)
ERROR = "prompt too long"
PRICING = MODEL.pricing


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """One host, its engine and clock, and a controller's habits."""

    def __init__(
        self,
        directory: Path,
        *,
        engine: SimulatedEngine | None = None,
        num_problems: int = 6,
        devices: Devices = ONE_CORE,
        step_s: float = 0.0,
    ) -> None:
        self.directory, self.clock = directory, Clock()
        self.step_s = step_s
        self.engine = engine or SimulatedEngine(model=MODEL, max_num_seqs=8, mean_tokens=20, tokens_per_step=4)
        self.host = GeneratorHost(engine_factory=self._timed_engine, clock=self.clock, devices=devices)
        self.prompts = [f"Problem {i} " + "x" * i + f" [answer={i}]" for i in range(num_problems)]
        self.prepared_path = str(directory / "prepared" / "part-00000.parquet")
        self.broken: set[int] = set()

    def _timed_engine(self) -> SimulatedEngine:
        """The engine; each step takes `step_s` on the clock."""
        step = self.engine.step

        def timed_step() -> list[Finished]:
            self.clock.now += self.step_s
            return step()

        self.engine.step = timed_step  # type: ignore[method-assign]
        return self.engine

    def prepare(self, broken: Sequence[int] = ()) -> None:
        self.broken = set(broken)
        tokens = [[] if i in self.broken else SimulatedTokenizer().encode(p) for i, p in enumerate(self.prompts)]
        write_prepared(
            out_dir=Path(self.prepared_path).parent,
            prompt_id=spec_id(PromptSpec()),
            problem_ids=[f"p{i}" for i in range(len(self.prompts))],
            prompts=self.prompts,
            token_ids=tokens,
            max_tokens=[0 if i in self.broken else 40 for i in range(len(self.prompts))],
            errors=[ERROR if i in self.broken else None for i in range(len(self.prompts))],
            facts={},
        )

    def spec(self, runs: Sequence[Sequence[int]], *, name: str = "t.1", **work: object) -> AttemptSpec:
        arguments = {"model": MODEL, "prepared_path": self.prepared_path, "runs": runs, **work}
        return generate_attempt(self.directory, name, **arguments)  # type: ignore[arg-type]

    def begin(self, *specs: AttemptSpec, credit: float | None = None, is_final: bool = False) -> None:
        grants = ()
        if credit is not None:
            grants = tuple(
                Grant(attempt_id=spec.attempt_id, version=1, credit=credit, is_final=is_final) for spec in specs
            )
        self.host.load()
        self.host.exchange(Orders(submits=specs, grants=grants))
        self.write()

    def write(self) -> None:
        while self.host.write_once():
            pass

    def run(self, steps: int = 10_000) -> AttemptReport:
        self.advance(steps)
        return self.report()

    def advance(self, steps: int = 10_000) -> None:
        for _ in range(steps):
            # a writer that is behind holds the engine up, so idle means that neither has anything to do
            if not self.host.step_once() and not self.host.write_once():
                break
        self.write()

    def report(self, name: str = "t.1") -> AttemptReport:
        return next(r for r in self.host.exchange(Orders()).attempts if r.attempt_id == name)

    def worst(self, problem: int, currency: Currency = Currency.flops) -> float:
        tokens = len(SimulatedTokenizer().encode(self.prompts[problem]))
        return worst_case(currency, PRICING, prompt_tokens=tokens, max_tokens=40)


def planned(runs: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    return [(problem, first + i) for problem, first, num in runs for i in range(num)]


def written(report: AttemptReport) -> list[tuple[int, int]]:
    pairs = []
    for receipt in report.receipts:
        check_file(receipt.path, receipt.sha256)
        table = pq.read_table(receipt.path)
        assert receipt.indices is not None
        assert receipt.indices.tolist() == np.column_stack([table["problem_index"], table["sample_index"]]).tolist()
        pairs += map(tuple, receipt.indices.tolist())
    return pairs


def returned(report: AttemptReport) -> list[tuple[int, int]]:
    return [] if report.returned is None else list(map(tuple, report.returned.tolist()))
