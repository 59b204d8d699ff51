"""`isoflop bench swap`: seconds to give an engine that runs the weights of another checkpoint, against a new engine.

    python -m api.local.bench_swap DIRECTORY MODEL NUM_SWAPS

loads an engine of one shipped model, in a process of its own, and swaps two checkpoints of its shape in turns.
Invariant: after every swap the engine says what that checkpoint says, so a swap that is fast because it leaves weights
behind fails here.
"""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from api.local.bench_machine import Machine, Spread, this_machine
from api.local.bench_models import THREADS, describe
from api.local.bench_process import measure_apart
from api.local.tiny_world import model_dir, problem_file
from service.jobs import PromptSpec
from service.models import EngineOptions, ModelSpec
from service.sampling import SamplingSpec
from workers.engine import VllmEngine, engine_environment
from workers.prepare import load_tokenizer

MODELS = ("gsm-mini-small", "gsm-mini-large")
_ENGINE = EngineOptions(dtype="float32", max_num_seqs=64, kv_cache_gib=0.1)
_GREEDY = SamplingSpec(temperature=0.0)
_MAX_TOKENS = 40
_PROMPTS = 8
_NOISE = 0.05
"""Of the other checkpoint's weights: enough to answer otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapRun:
    """One model.

    Args:
        weight_bytes: of its safetensors files.
        load_s: seconds until a new engine is ready in a process that is there, imports included.
        swaps_s: of each swap, files read and compared included.
    """

    model: str
    weight_bytes: int
    load_s: float
    swaps_s: Sequence[float]

    @property
    def spread(self) -> Spread:
        """Of the swaps."""
        return Spread.of(self.swaps_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapResult:
    """All of them."""

    machine: Machine
    runs: tuple[SwapRun, ...]


def bench_swap(directory: Path, num_swaps: int, models: Sequence[str] = MODELS) -> SwapResult:
    """Swaps two checkpoints of each model `num_swaps` times.

    Raises:
        IsoflopError: an engine failed, or said after a swap what it must not.
    """
    machine = this_machine()
    runs: list[SwapRun] = []
    for model in models:
        environment = engine_environment(describe(model, model_dir(model), _ENGINE), THREADS)
        found = measure_apart("api.local.bench_swap", directory, model, num_swaps, environment=environment)
        runs.append(SwapRun(**found))
    return SwapResult(machine=machine, runs=tuple(runs))


def _measure(directory: Path, model: str, num_swaps: int) -> SwapRun:
    checkpoints = [
        describe(name, _copy(model_dir(model), directory / f"{model}-{name}", noise), _ENGINE)
        for name, noise in (("one", 0.0), ("other", _NOISE))
    ]
    started = time.perf_counter()
    engine = VllmEngine(checkpoints[0], seed=0)
    load_s = time.perf_counter() - started
    rows = problem_file("test").read_text().splitlines()[:_PROMPTS]
    questions = [str(json.loads(row)["question"]) + "\n" for row in rows]
    prompts = load_tokenizer(checkpoints[0], PromptSpec()).encode_batch(questions)
    said = [_answers(engine, prompts), _swap(engine, checkpoints[1], prompts)[1]]
    if said[0] == said[1]:
        raise RuntimeError(f"{model}: both checkpoints say the same; they were made to differ")
    swaps_s: list[float] = []
    for number in range(num_swaps):
        seconds, answers = _swap(engine, checkpoints[number % 2], prompts)
        if answers != said[number % 2]:
            raise RuntimeError(f"{model}: after swap {number + 1} the engine says what its checkpoint does not")
        swaps_s.append(seconds)
    weight_bytes = sum(path.stat().st_size for path in model_dir(model).glob("*.safetensors"))
    return SwapRun(model=model, weight_bytes=weight_bytes, load_s=load_s, swaps_s=tuple(swaps_s))


def _swap(engine: VllmEngine, checkpoint: ModelSpec, prompts: Sequence[Sequence[int]]) -> tuple[float, list[str]]:
    started = time.perf_counter()
    engine.load_weights(checkpoint)
    return time.perf_counter() - started, _answers(engine, prompts)


def _answers(engine: VllmEngine, prompts: Sequence[Sequence[int]]) -> list[str]:
    for number, token_ids in enumerate(prompts):
        engine.add(str(number), token_ids, max_tokens=_MAX_TOKENS, sampling=_GREEDY, seed=0)
    said: dict[str, str] = {}
    while engine.num_unfinished():
        said |= {finished.request_id: finished.text for finished in engine.step()}
    return [said[str(number)] for number in range(len(prompts))]


def _copy(source: Path, target: Path, noise: float) -> Path:
    """A checkpoint like another, with its weights off by a little."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target, copy_function=shutil.copyfile)
    torch.manual_seed(0)
    for path in target.glob("*.safetensors"):
        weights = {name: tensor + noise * torch.randn_like(tensor) for name, tensor in load_file(path).items()}
        save_file(weights, path, metadata={"format": "pt"})
    return target


if __name__ == "__main__":
    print(json.dumps(asdict(_measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))))
