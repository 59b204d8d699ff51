"""Hosts whose simulated engines take their time: what is bounded by time alone must not draw without bound."""

from service.cluster import HostKind, HostSpec
from workers.dispatcher import Launch
from workers.engine_protocol import Engine
from workers.generator import GeneratorHost
from workers.hosts import MakeHost, RunnableHost, make_host
from workers.simulated_engine import SimulatedEngine


def slow_hosts(step_s: float = 0.02) -> MakeHost:
    """Generators that take a while: 8 samples at once, one token a step. A closure, so Ray ships it by value."""

    def build(spec: HostSpec, launch: Launch, node: str | None, max_running: int) -> RunnableHost:
        def engine() -> Engine:
            return SimulatedEngine(max_num_seqs=8, tokens_per_step=1, step_s=step_s)  # pyright: ignore[reportReturnType]

        if spec.kind is HostKind.generator:
            return GeneratorHost(engine_factory=engine, node=node)
        return make_host(spec, launch, node, max_running)

    return build
