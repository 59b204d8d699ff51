"""`isoflop bench start`: how long until the service answers, and until an engine can sample.

Every repeat is a new data directory, so nothing is left from the one before but the disk cache.
"""

from dataclasses import dataclass
from pathlib import Path

from api.local.bench_machine import Machine, Spread, this_machine
from api.local.bench_service import BenchService
from api.local.tiny_world import problem_file
from service.cluster import HostKind
from service.errors import IsoflopError

MODEL = "gsm-mini-small"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartResult:
    """Seconds of a start.

    Args:
        healthz: from the command to the first 200 of /healthz.
        actor: from the decision to start an engine to the tick that saw it ready: Ray's process, imports, load.
        load: the engine's construction alone, imports of vLLM and torch included.
    """

    machine: Machine
    healthz: Spread
    actor: Spread
    load: Spread


def bench_start(directory: Path, repeats: int) -> StartResult:
    """Starts the service `repeats` times under `directory` and loads one engine each time."""
    machine = this_machine()
    measured = [_start_once(directory / f"start-{number}") for number in range(repeats)]
    healthz, actor, load = zip(*measured, strict=True)
    return StartResult(machine=machine, healthz=Spread.of(healthz), actor=Spread.of(actor), load=Spread.of(load))


def _start_once(directory: Path) -> tuple[float, float, float]:
    with BenchService(directory) as service:
        healthz_s = service.start()
        service.register_model(MODEL, MODEL)
        service.client.problems.register(name="p", path=problem_file("test"))
        budget = {"samples_per_problem": 1}
        service.run(service.client.jobs.create(problems="p", models=[MODEL], budget=budget, max_problems=10))
        (host,) = [host for host in service.store.reads.hosts() if host.kind is HostKind.generator]
        ready = [e.at for e in service.store.reads.events() if e.kind == "engine_ready" and host.name in e.message]
        if not ready or host.load_s is None:
            raise IsoflopError(f"{host.name}: no event tells when it became ready")
        return healthz_s, (ready[0] - host.created_at).total_seconds(), host.load_s
