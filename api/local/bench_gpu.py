"""`isoflop bench gpu`: the whole service on an NVIDIA GPU against plain vLLM, and its trainer against plain TRL.

Models have the shapes of real ones and random weights (`random_models`). Drawing: a job through REST, Ray, an engine in
an actor, shards, ledger and scorer, against `LLM.generate` in its default layout, an engine process of its own. Both
engines are loaded at once, each with its share of the card's memory, and take turns: loading a model of 15 GB before
every turn would be most of the measurement. Training is in `bench_gpu_training`.

Invariant: both sides draw from the same prompts, as token ids, with the same sampling and engine options; the FLOPs are
those that the service charged.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from api.client import Job
from api.local.bench_gpu_training import TrainingComparison, compare_training
from api.local.bench_machine import Machine, Spread, this_machine
from api.local.bench_process import measure_apart
from api.local.bench_service import BenchService
from api.local.bench_throughput import Pair, PlainRun, engine_niceness, read_run
from api.local.gpu_card import Card, find_card
from api.local.random_models import Shape, write_problems
from service.cluster import HostKind
from service.errors import IsoflopError
from service.finetunes import Method

PROMPT_TOKENS = 128
COMPLETION_TOKENS = 256
PROBLEMS = 64
SHARE_OF_MEMORY = 0.42
"""Of the card for each of the two engines."""
_WARM_UP_SAMPLES = 4
_END_S = 20.0
_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawingResult:
    """One shape.

    Args:
        like: the public model of that shape.
        parameters: of the model.
        load_s: until the service's engine could sample, imports included.
        plain_load_s: the same of plain vLLM.
        gpu_s: what the ledger's usage says that all turns together kept the GPU busy [s].
        ratio: tokens a second from submission to the last commit, over plain vLLM's.
        drawing_ratio: the same from the first task given to the engine.
    """

    shape: str
    like: str
    parameters: int
    load_s: float
    plain_load_s: float
    gpu_s: float
    pairs: tuple[Pair, ...]
    tokens_per_s: Spread
    drawing_tokens_per_s: Spread
    plain_tokens_per_s: Spread
    ratio: Spread
    drawing_ratio: Spread
    flops_per_s: Spread
    plain_flops_per_s: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuResult:
    """Everything, of one card.

    Args:
        matmul_flops_per_second: what a large bfloat16 product reaches on this card in this run.
    """

    machine: Machine
    card: Card
    matmul_flops_per_second: float
    drawing: tuple[DrawingResult, ...]
    training: tuple[TrainingComparison, ...]


def bench_gpu(
    directory: Path,
    *,
    shapes: Sequence[Shape],
    num_pairs: int,
    seconds: float,
    methods: Sequence[Method],
    training_steps: int,
    on_progress: Callable[[GpuResult], None],
) -> GpuResult:
    """Draws with each shape, then trains it with its method.

    Args:
        directory: for models, data and logs; weights of one shape at a time are written there, and removed.
        num_pairs: turns of each side.
        seconds: about how long a turn draws.
        methods: of training; the first shape takes the first, and so on.
        on_progress: called with what there is, as soon as there is more: a card is rented by the minute.

    Raises:
        NoGpu: no NVIDIA GPU here.
        IsoflopError: a side failed.
    """
    result = GpuResult(
        card=find_card(),
        machine=this_machine(),
        matmul_flops_per_second=measure_apart("api.local.gpu_card")["matmul_flops_per_second"],
        drawing=(),
        training=(),
    )
    for number, shape in enumerate(shapes):
        where = directory / shape.name
        model_dir = where / "model"  # below the service's own directory, or it would not take it
        measure_apart("api.local.random_models", shape.name, model_dir)
        drawn = compare_drawing(where, shape, model_dir, num_pairs, seconds)
        result = replace(result, drawing=(*result.drawing, drawn))
        on_progress(result)
        if number < len(methods):
            trained = compare_training(where, shape, model_dir, methods[number], training_steps, num_pairs)
            result = replace(result, training=(*result.training, trained))
            on_progress(result)
        shutil.rmtree(model_dir)
    return result


def compare_drawing(
    directory: Path, shape: Shape, model_dir: Path, num_pairs: int, seconds: float, **engine: Any
) -> DrawingResult:
    """Turns of the service and of plain vLLM; who begins alternates.

    Args:
        engine: options of both engines, beside their share of the memory.
    """
    options = {"gpu_memory_utilization": SHARE_OF_MEMORY} | engine
    pairs: list[Pair] = []
    with BenchService(directory) as service:
        service.start()
        service.client.models.register(name=shape.name, path=model_dir, engine=options)
        problems = directory / "problems.jsonl"
        write_problems(problems, shape, num_problems=PROBLEMS, prompt_tokens=PROMPT_TOKENS)
        service.client.problems.register(name="p", path=problems)
        service.client.pools.scale(shape.name, min=1)
        _draw(service, shape, 1)  # loads
        warm_up = _draw(service, shape, _WARM_UP_SAMPLES)
        known = read_run(service, warm_up)
        per_problem = max(1, round(known.samples / known.busy_s * seconds / PROBLEMS))
        jobs: list[Job] = []
        with PlainTurns(service.database, warm_up.id, engine_niceness(service)) as plain:
            plain.draw(_WARM_UP_SAMPLES)
            for number in range(num_pairs):
                first = plain.draw(per_problem) if number % 2 else None
                jobs.append(_draw(service, shape, per_problem))
                drawn = read_run(service, jobs[-1])
                pairs.append(Pair(service=drawn, plain=first or plain.draw(per_problem)))
        (host,) = [host for host in service.store.reads.hosts() if host.kind is HostKind.generator]
        resolved = service.store.jobs.resolved(warm_up.id).models[0]
    return summarise(shape, resolved.cost.parameters, float(host.load_s or 0.0), plain.load_s, pairs)


def summarise(
    shape: Shape, parameters: int, load_s: float, plain_load_s: float, pairs: Sequence[Pair]
) -> DrawingResult:
    """Ratios within pairs, and rates of each side."""
    sides = [(pair.service, pair.plain) for pair in pairs]
    return DrawingResult(
        shape=shape.name,
        like=shape.like,
        parameters=parameters,
        load_s=load_s,
        plain_load_s=plain_load_s,
        gpu_s=sum(ours.busy_s for ours, _ in sides),
        pairs=tuple(pairs),
        tokens_per_s=Spread.of([ours.tokens / ours.seconds for ours, _ in sides]),
        drawing_tokens_per_s=Spread.of([ours.tokens / ours.drawing_s for ours, _ in sides]),
        plain_tokens_per_s=Spread.of([plain.tokens / plain.seconds for _, plain in sides]),
        ratio=Spread.of([pair.ratio for pair in pairs]),
        drawing_ratio=Spread.of([pair.drawing_ratio for pair in pairs]),
        flops_per_s=Spread.of([ours.flops / ours.drawing_s for ours, _ in sides]),
        plain_flops_per_s=Spread.of([ours.flops / ours.tokens * plain.tokens / plain.seconds for ours, plain in sides]),
    )


def _draw(service: BenchService, shape: Shape, per_problem: int) -> Job:
    job = service.client.jobs.create(
        problems="p",
        models=[shape.name],
        budget={"samples_per_problem": per_problem},
        sampling={"temperature": 1.0, "max_tokens": COMPLETION_TOKENS},
        scorers=["math_answer"],
    )
    return service.run(job)


class PlainTurns:
    """Plain vLLM in a process that draws when it is told to.

    Args:
        job_id: whose prompts, sampling and model it takes.
        niceness: to run at.
    """

    def __init__(self, database: Path, job_id: str, niceness: int) -> None:
        self._log = database.parent.parent / "plain.log"
        command = ["nice", "-n", str(niceness - os.nice(0)), sys.executable, "-m", "api.local.bench_plain"]
        self._command = [*command, str(database), job_id, "--turns"]
        self.load_s = 0.0

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env={**os.environ, **_ENVIRONMENT},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        with ExitStack() as ends_it:
            ends_it.callback(self._end)
            self.load_s = float(self._read()["load_s"])
            ends_it.pop_all()  # loaded: it goes on until `__exit__`
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def draw(self, num_samples: int) -> PlainRun:
        """One call of `LLM.generate`, `num_samples` a prompt."""
        assert self._process.stdin is not None, "it was asked for"
        with suppress(BrokenPipeError):  # its end is noticed, with its last words, where its answer is read
            self._process.stdin.write(f"{num_samples}\n")
            self._process.stdin.flush()
        return PlainRun(**self._read())

    def _read(self) -> dict[str, Any]:
        """Its next answer; libraries write to the same stream."""
        assert self._process.stdout is not None, "it was asked for"
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        code = self._process.wait(_END_S)
        raise IsoflopError(f"plain vLLM ended with {code}; the last it said: {self._log.read_text()[-3000:]}")

    def _end(self) -> None:
        assert self._process.stdin is not None, "it was asked for"
        assert self._process.stdout is not None, "it was asked for"
        with suppress(BrokenPipeError):
            self._process.stdin.close()  # no more turns: it ends
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:  # with the engine's process, whose memory the next shape needs
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process.stdout.close()
