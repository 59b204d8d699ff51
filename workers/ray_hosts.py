"""What runs inside Ray: the actor that holds one host, and the tasks of a dispatcher.

Owns how a host becomes an actor and an attempt a task. Invariants: neither is ever restarted or retried by Ray, which
would work without asking the ledger; a task is owned by its dispatcher's actor, so it outlives the controller.
"""

import os
import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.actor import exit_actor
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from service.cluster import HostKind, HostSpec, Orders
from service.models import ModelSpec
from service.shards import find_receipts
from service.work import AttemptSpec
from workers.dispatcher import Handle, Launch, Made, outcome_of
from workers.engine import engine_environment
from workers.host_attempts import Failure
from workers.hosts import Answer, HostRunner, Keys, MakeHost, Process, with_keys
from workers.trainer import Train, TrainerHost

_CONCURRENCY = 8
_LAST_CALL_S = 2.0  # for the call in which an actor ends; hosts are called every second or more often
_TASK_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """What every host of a cluster shares.

    Args:
        make_host: builds a host that is not started; runs in the actor.
        max_running: attempts that a dispatcher runs at the same time.
        task_cpus: logical CPUs of each of them.
        silence_s: a host that nobody calls for this long writes what it has and ends [s].
        stuck_s: ... and an engine that makes no token for this long after that ends without it: `HostRunner` [s].
        close_s: longest wait for its threads when it ends [s].
    """

    make_host: MakeHost
    max_running: int
    task_cpus: float
    silence_s: float
    stuck_s: float
    close_s: float


class HostActor:
    """One host in a process of its own. Every call is quick; loading and work go on in the host's threads."""

    def __init__(self, spec: HostSpec, settings: HostSettings, keys: Keys) -> None:
        node = ray.get_runtime_context().get_node_id()
        if _trains_in_many(spec):
            host = TrainerHost(load=lambda: _load_ray_training(spec), node=node, devices=spec.devices)
        else:
            make = with_keys(settings.make_host, keys)
            host = make(spec, ray_launcher(settings.task_cpus), node, settings.max_running)
        self._has_ended = False
        self._runner = HostRunner(
            host,
            spec=spec,
            end_process=self._end,
            silence_s=settings.silence_s,
            stuck_s=settings.stuck_s,
            close_s=settings.close_s,
        )
        self._runner.start()

    def exchange(self, connection: str, call: int, orders: Orders, should_drain: bool) -> Answer:
        """Takes orders, returns facts."""
        if self._has_ended:
            exit_actor()
        return self._runner.exchange(connection, call, orders, should_drain=should_drain)

    def _end(self) -> None:
        # An actor leaves in peace only from within a call: of any other end Ray tells the terminal that a worker
        # crashed. One that nobody calls has to end as well.
        self._has_ended = True
        time.sleep(_LAST_CALL_S)
        os._exit(0)


def create_actor(spec: HostSpec, settings: HostSettings, *, namespace: str, has_gpus: bool, keys: Keys) -> Any:
    """The detached actor of that name; made unless it lives already.

    Args:
        keys: of the servers that the host speaks to. They go as an argument, which Ray holds in memory while the actor
            lives, and not by its environment, which Ray writes to logs and shows.
    """
    environment = dict(_TASK_ENVIRONMENT)
    num_gpus = 0.0
    if spec.kind is HostKind.generator and spec.model is not None and _has_engine(spec.model):
        environment |= engine_environment(spec.model, threads=max(1, round(spec.num_cpus)))
        num_gpus = (spec.num_gpus or spec.model.engine.tensor_parallel_size) if has_gpus else 0.0
    elif spec.kind is HostKind.trainer:
        # one process trains on one device; two OpenMP threads on one core fight
        environment["OMP_NUM_THREADS"] = str(max(1, round(spec.num_cpus)))
        # with several GPUs the actor only commands: each belongs to a process of its own
        num_gpus = (spec.num_gpus or 1.0) if has_gpus and not _trains_in_many(spec) else 0.0
    actor = ray.remote(HostActor).options(  # type: ignore[attr-defined]
        name=spec.name,
        namespace=namespace,
        lifetime="detached",
        get_if_exists=True,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=_CONCURRENCY,
        num_cpus=0.0 if _trains_in_many(spec) else spec.num_cpus,
        num_gpus=num_gpus,
        runtime_env={"env_vars": environment},
    )
    return actor.remote(spec, settings, keys)


def _has_engine(model: ModelSpec) -> bool:
    """Whether its weights are loaded here."""
    return not model.engine.simulated and model.endpoint is None


def _trains_in_many(spec: HostSpec) -> bool:
    """Whether a trainer runs each student in one process a GPU."""
    return spec.kind is HostKind.trainer and spec.num_gpus > 1


def _load_ray_training(spec: HostSpec) -> Train:
    from workers.ray_train import ray_training

    return ray_training(round(spec.num_gpus), use_gpu=True, cpus_per_worker=spec.num_cpus / spec.num_gpus)


@dataclass(frozen=True, slots=True)
class TaskHandle:
    """An attempt that runs as a Ray task."""

    spec: AttemptSpec
    ref: Any

    def is_done(self) -> bool:
        """Whether the task has ended, well or not."""
        return bool(ray.wait([self.ref], timeout=0)[0])

    def result(self) -> Made | Failure:
        """What was made, or why there is nothing."""
        try:
            return ray.get(self.ref)
        except RayTaskError as error:
            return Failure.of(error.cause if isinstance(error.cause, Exception) else error)
        except RayError as error:
            # the worker is lost, perhaps after its files were complete
            return find_receipts(self.spec.out_dir) or Failure.of(error)

    def cancel(self) -> None:
        """Kills the task's process if it runs."""
        ray.cancel(self.ref, force=True)


def ray_launcher(task_cpus: float) -> Launch:
    """A `Launch` that runs attempts as Ray tasks owned by this process."""
    # one for all: to Ray each remote function is a type of task of its own, which workers are leased for anew
    task = ray.remote(num_cpus=task_cpus, max_retries=0)(outcome_of)

    def launch(spec: AttemptSpec) -> Handle:
        return TaskHandle(spec, task.options(name=f"{spec.kind}:{spec.attempt_id}").remote(spec))

    return launch


def ask_if_alive(process: Process, node: str) -> Any:
    """A reference to whether the process lives, asked on its own node."""
    where = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    ask = ray.remote(num_cpus=0, max_retries=0)(Process.is_alive)
    return ask.options(scheduling_strategy=where).remote(process)  # pyright: ignore[reportArgumentType]
