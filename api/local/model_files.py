"""What the service has to read of a model's directory: its shape and cost when it is registered, its chat template.

An adapter is merged into its base here too.

In a process of its own each time: torch and transformers would stay in the service's memory for ever.
"""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from hashlib import sha256
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from service.adapters import adapter_model
from service.endpoints import PromptForm
from service.errors import InvalidInput
from service.flops import ForwardCost
from service.forward_cost import UNKNOWN_COST
from service.jobs import PromptSpec
from service.models import AdapterSource, EndpointSource, EngineOptions, ModelSpec
from service.sampling import ModelSampling
from service.shards import file_sha256

if TYPE_CHECKING:
    from workers.model_files import TokenizerFiles


def inspect_model(name: str, path: Path, engine: EngineOptions, *, traces: Path) -> ModelSpec:
    """A model of a directory, complete.

    Args:
        traces: directory that keeps FLOP coefficients by the content of a config.

    Raises:
        InvalidInput: a file is missing, damaged, of an unknown kind or pickled.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_inspect, name, path, engine, traces).result()


def inspect_adapter(name: str, path: Path, base: ModelSpec, *, merged: Path) -> ModelSpec:
    """A model made of an adapter, complete: merged into its base, whose engines serve it at the base's cost.

    Args:
        merged: directory that keeps what was merged, by its contents.

    Raises:
        InvalidInput: a file is missing, damaged or pickled, or the adapter does not fit the base; or merging took more
            memory than there is.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_hide_gpus) as pool:
        try:
            return pool.submit(_inspect_adapter, name, path, base, merged).result()
        except BrokenProcessPool as error:
            raise InvalidInput(
                f"{path}: the process that merged it into {base.name} was killed, as happens without memory for all "
                "weights of the base; nothing was registered"
            ) from error


def _hide_gpus() -> None:
    """Merging is done on the CPU; a mere look at the GPUs would take memory of engines."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _inspect_adapter(name: str, path: Path, base: ModelSpec, merged: Path) -> ModelSpec:
    from transformers.utils import logging

    from workers.adapter_merge import merge_adapter  # imports torch

    logging.disable_progress_bar()  # the terminal is the service's
    found = merge_adapter(base, path, merged)
    source = AdapterSource(path=str(path), revision=found.adapter_revision, base=base.name)
    return adapter_model(base, name, path=str(found.directory), revision=found.revision, source=source)


def inspect_endpoint(source: EndpointSource, *, traces: Path) -> ModelSpec:
    """A model that a server elsewhere draws for, complete.

    Raises:
        InvalidInput: nothing says how long its context is, prompts go as ids and no tokenizer is here, or a file is
            missing, damaged or pickled.
    """
    if source.path is None:
        return _of_endpoint(source, None, UNKNOWN_COST)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_inspect_endpoint, source, Path(source.path), traces).result()


def _inspect_endpoint(source: EndpointSource, path: Path, traces: Path) -> ModelSpec:
    from workers.model_files import inspect_tokenizer  # imports transformers

    files = inspect_tokenizer(path)
    cost = _traced(path / "config.json", traces) if files.context_len is not None else UNKNOWN_COST
    return _of_endpoint(source, files, cost)


def _of_endpoint(source: EndpointSource, files: "TokenizerFiles | None", cost: ForwardCost) -> ModelSpec:
    endpoint = source.endpoint
    if files is None and endpoint.prompt_form is PromptForm.token_ids:
        raise InvalidInput(
            "endpoint.prompt_form: got token_ids without a path to the model's tokenizer; allowed: text, or a path"
        )
    if source.parameters is not None:
        if cost.is_known:
            raise InvalidInput("parameters: got a number beside a path with config.json; allowed: one of them")
        cost = ForwardCost.of_size(source.parameters)
    context_len = source.context_len or (None if files is None else files.context_len)
    if context_len is None:
        raise InvalidInput("context_len: got nothing; needed without a config.json that says it: the server's limit")
    named = json.dumps(
        [endpoint.base_url, endpoint.model, endpoint.prompt_form, None if files is None else files.revision]
    )
    return ModelSpec(
        name=source.name,
        path=source.path or "",
        revision=f"endpoint:{sha256(named.encode()).hexdigest()}",
        context_len=context_len,
        cost=cost,
        sampling=ModelSampling() if files is None else files.sampling,
        endpoint=endpoint,
    )


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


def _tracing() -> str:
    """What coefficients follow from beside a config: the code that traces, and the libraries that build the model."""
    code = [file_sha256(file) for file in sorted((Path(__file__).parents[2] / "workers").glob("flop_*.py"))]
    libraries = [version(name) for name in ("torch", "transformers")]
    return sha256(json.dumps([code, libraries]).encode()).hexdigest()[:16]


def _traced(config: Path, traces: Path) -> ForwardCost:
    """FLOP coefficients of a model, traced once per content of its config and of what traces it."""
    known = traces / f"{file_sha256(config)}-{_tracing()}.json"
    if known.exists():
        return ForwardCost.from_json(json.loads(known.read_text()))
    from workers.flop_trace import trace_forward_cost  # imports torch

    cost = trace_forward_cost(config)
    traces.mkdir(parents=True, exist_ok=True)
    temporary = known.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(cost.to_json()))
    temporary.replace(known)
    return cost
