"""What the service has to read of a model's directory: its shape and cost when it is registered, its chat template.

In a process of its own each time: torch and transformers would stay in the service's memory for ever.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from service.flops import ForwardCost
from service.jobs import PromptSpec
from service.models import EngineOptions, ModelSpec
from service.shards import file_sha256


def inspect_model(name: str, path: Path, engine: EngineOptions, *, traces: Path) -> ModelSpec:
    """A model of a directory, complete.

    Args:
        traces: directory that keeps FLOP coefficients by the content of a config.

    Raises:
        InvalidInput: a file is missing, damaged, of an unknown kind or pickled.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_inspect, name, path, engine, traces).result()


def render_prompt(model: ModelSpec, prompt: PromptSpec, problems_path: str, seed: int) -> str:
    """The first problem's prompt.

    Raises:
        InvalidInput: prompt or chat template break a rule.
    """
    if not prompt.use_chat_template:
        return _render(model, prompt, problems_path, seed)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_render, model, prompt, problems_path, seed).result()


def _render(model: ModelSpec, prompt: PromptSpec, problems_path: str, seed: int) -> str:
    from workers.prepare import first_prompt  # imports transformers for a chat template

    return first_prompt(model, prompt, problems_path, seed)


def _inspect(name: str, path: Path, engine: EngineOptions, traces: Path) -> ModelSpec:
    from workers.model_files import inspect_model  # imports transformers

    files = inspect_model(path)
    return ModelSpec(
        name=name,
        path=str(path),
        revision=files.revision,
        context_len=min(files.context_len, engine.max_model_len or files.context_len),
        cost=_traced(path / "config.json", traces),
        engine=engine,
        sampling=files.sampling,
    )


def _traced(config: Path, traces: Path) -> ForwardCost:
    """FLOP coefficients of a model, traced once per content of its config."""
    known = traces / f"{file_sha256(config)}.json"
    if known.exists():
        return ForwardCost.from_json(json.loads(known.read_text()))
    from workers.flop_trace import trace_forward_cost  # imports torch

    cost = trace_forward_cost(config)
    traces.mkdir(parents=True, exist_ok=True)
    temporary = known.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(cost.to_json()))
    temporary.replace(known)
    return cost
