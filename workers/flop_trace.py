"""Measures a model's forward-cost coefficients from its own `transformers` code, without weights or memory.

Owns the step from a config to a `ForwardCost`: the model is built from fake tensors, run at two lengths under torch's
FlopCounterMode, and the counts are split into body, attention per window and output head. Invariant: a cost is
returned only if it predicts a cached decoding step of the same model beyond its widest window; everything else is
refused by name, so nothing is priced by a formula that its code does not follow. Never runs code from a model
directory, never needs a network. Must not import ray or vllm.
"""

import copy
import difflib
import inspect
import json
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from service.errors import InvalidInput
from service.flops import AttentionTerm, ForwardCost, decode_flops

MAX_DEVIATION = 1e-6
"""Largest relative error against a cached decoding step that a returned cost may have; the fit itself is exact."""

TRACE_TOKENS = 4096
"""Context to trace at [tokens]: long enough that attention, not only the body, shows in the check. Costs no memory."""

# What transformers and torch raise on a config whose fields contradict each other or that cannot run on fake tensors.
_MODEL_ERRORS = (
    StrictDataclassError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    ImportError,
    ArithmeticError,
)
_COUNTS = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size",
    "vocab_size", "max_position_embeddings", "n_layer", "n_layers", "n_embd", "n_head", "n_heads", "n_positions",
)  # fmt: skip
"""Fields that no model has fewer than one of, by the names that families use."""

# Names of operators that do tensor products. Any of them without a FLOP formula would be missed without a word.
_PRODUCT_NAME = re.compile(r"mm|mv|dot|matmul|conv|attention|linear|lstm|gru|einsum")
_LOCAL_NAMESPACES = frozenset({"aten", "prim", "prims"})
_DENSE_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})


def trace_forward_cost(config_path_or_dir: Path) -> ForwardCost:
    """Forward cost of the model that a config.json describes.

    Args:
        config_path_or_dir: the config file, or the model directory that holds it.

    Raises:
        InvalidInput: if the file is missing or no config of a causal language model this version of transformers
            knows, or the model is one that `trace_config` refuses.
    """
    return trace_config(load_config(config_path_or_dir))


def load_config(config_path_or_dir: Path) -> PretrainedConfig:
    """The config, read from local JSON alone: no hub, no code from the model directory.

    Raises:
        InvalidInput: see `trace_forward_cost`.
    """
    path = config_path_or_dir / "config.json" if config_path_or_dir.is_dir() else config_path_or_dir
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"cannot read model config {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"model config {path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"model config {path} must be a JSON object, got {type(document).__name__}")
    fields = cast("dict[str, Any]", document)
    model_type = fields.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise InvalidInput(_unknown_model_type(path, model_type))
    for name in _COUNTS:
        if isinstance(count := fields.get(name), int) and count < 1:
            raise InvalidInput(f"model config {path}: {name}: got {count}, allowed: at least 1")
    fields.pop("auto_map", None)  # it names Python files of the model directory
    try:
        return CONFIG_MAPPING[model_type].from_dict(fields)
    except _MODEL_ERRORS as error:
        raise InvalidInput(f"model config {path} is not a valid {model_type} config: {error}") from error


def trace_config(config: PretrainedConfig) -> ForwardCost:
    """Forward cost of a model built from `config` with eager attention.

    Raises:
        InvalidInput: if the model is not a decoder-only text model whose cost is linear in tokens plus causal or
            sliding-window attention, or uses an operator whose FLOPs cannot be counted. The message names the model
            type and the reason.
    """
    config = _plain_config(config)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            model = AutoModelForCausalLM.from_config(
                config, attn_implementation="eager", dtype=torch.bfloat16, trust_remote_code=False
            ).eval()
            return _measure(cast("PreTrainedModel", model))
    except _MODEL_ERRORS as error:
        raise InvalidInput(f"cannot trace model type {config.model_type!r}: {error}") from error


def _unknown_model_type(path: Path, model_type: object) -> str:
    known = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    close = difflib.get_close_matches(str(model_type), known, n=5, cutoff=0.5) or ["llama", "mistral", "qwen2"]
    return (
        f"model config {path}: model_type {model_type!r} is unknown; transformers {transformers.__version__} knows "
        f"{len(known)} causal language models, e.g. {', '.join(close)}"
    )


def _plain_config(config: PretrainedConfig) -> PretrainedConfig:
    """A copy that builds the plain bf16 model; refuses what is not one decoder-only text model."""
    model_type = config.model_type
    if config.sub_configs:
        parts = ", ".join(sorted(config.sub_configs))
        raise InvalidInput(f"model type {model_type!r} is composite ({parts}); only plain text models can be traced")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or config.is_encoder_decoder:
        raise InvalidInput(f"model type {model_type!r} is not a decoder-only causal language model")
    if model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        raise InvalidInput(
            f"model type {model_type!r} is an encoder, which completes no prompt; allowed: decoder-only causal "
            "language models, such as llama, qwen2 or gpt2"
        )
    other_types = set(getattr(config, "layer_types", None) or ()) - _DENSE_LAYER_TYPES
    if other_types or getattr(config, "attention_chunk_size", None) is not None:
        got = ", ".join(sorted(other_types)) or "chunked_attention"
        raise InvalidInput(
            f"model type {model_type!r} has layers of type {got}; allowed: {', '.join(sorted(_DENSE_LAYER_TYPES))}"
        )
    config = copy.deepcopy(config)
    if hasattr(config, "quantization_config"):
        # Quantised weights run through kernels without a formula; the products they stand for are the plain ones.
        delattr(config, "quantization_config")
    # The default, grouped products: the expert loops of some callers' configs need the routing itself, not its shape.
    config._experts_implementation = None
    _plain_rope(getattr(config, "rope_parameters", None))
    return config


def _plain_rope(rope_parameters: object) -> None:
    """Drops rope scaling in place: it reads token positions, which fake tensors lack, and changes no product."""
    if not isinstance(rope_parameters, dict):
        return
    parameters = cast("dict[str, Any]", rope_parameters)
    if "rope_type" in parameters:
        parameters["rope_type"] = "default"
    for value in parameters.values():  # one dict per layer type in some families
        _plain_rope(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class _GroupedProduct:
    """One product of routed rows with expert weights: (rows, inner) times (experts, inner, outer)."""

    experts: int
    rows: int
    weights_per_expert: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """What one forward pass cost.

    Args:
        total: all FLOPs.
        by_module: FLOPs by dotted module name, inner modules included.
        grouped: every grouped product of mixture-of-experts layers.
    """

    total: int
    by_module: dict[str, int]
    grouped: tuple[_GroupedProduct, ...]


class _MissedProducts(TorchDispatchMode):
    """Records operators that do products but have no FLOP formula.

    Entered before the counter, so that it sees what the counter could not decompose any further.
    """

    def __init__(self, counted: Any) -> None:
        super().__init__()
        self.counted = counted
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = getattr(func, "overloadpacket", func)
        if packet not in self.counted:
            namespace, _, name = str(packet).rpartition(".")
            if namespace.split(".")[-1] not in _LOCAL_NAMESPACES or _PRODUCT_NAME.search(name):
                self.names.add(str(packet))
        return func(*args, **(kwargs or {}))


def _measure(model: PreTrainedModel) -> ForwardCost:
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        raise InvalidInput(f"model type {model.config.model_type!r} cannot skip its output head (logits_to_keep)")
    windows = _layer_windows(model)
    long_tokens = _trace_tokens(model, windows)
    short_tokens = long_tokens // 2
    cache = DynamicCache(config=model.config)
    short = _count(model, tokens=short_tokens, logits=1)
    two_logits = _count(model, tokens=short_tokens, logits=2)
    long = _count(model, tokens=long_tokens, logits=1, cache=cache)
    step = _count(model, tokens=1, logits=1, cache=cache)

    head = two_logits.total - short.total
    lengths = (short_tokens, long_tokens)
    body, rest = _fit(lengths, (short.total - head, long.total - head))
    by_window: dict[int | None, Fraction] = {}
    for name, window in zip(_layer_names(model), windows, strict=True):
        _, pairs = _fit(lengths, (short.by_module[name], long.by_module[name]))
        by_window[window] = by_window.get(window, Fraction(0)) + pairs
        rest -= pairs
    if rest:
        raise InvalidInput(f"model type {model.config.model_type!r} does attention outside its decoder layers")

    parameters = sum(parameter.numel() for parameter in model.parameters())
    cost = ForwardCost(
        body_flops_per_token=float(body),
        head_flops_per_token=float(head),
        attention=tuple(
            AttentionTerm(flops_per_token_pair=float(pairs), window=window) for window, pairs in by_window.items()
        ),
        parameters=parameters,
        active_parameters=parameters - _idle_parameters(long, long_tokens),
        embedding_parameters=_embedding_parameters(model),
    )
    _check_decode_step(cost, context_len=long_tokens, counted=step.total, model_type=model.config.model_type)
    return cost


def _trace_tokens(model: PreTrainedModel, windows: list[int | None]) -> int:
    """Context to trace at [tokens]: beyond the widest window, but within the positions the model has."""
    wanted = max([TRACE_TOKENS, *(window + 1 for window in windows if window is not None)])
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        return wanted
    if positions < 5:
        raise InvalidInput(f"max_position_embeddings must be >= 5 to trace a model, got {positions}")
    return min(wanted, positions - 1)  # one position is left for the decoding step


def _fit(lengths: tuple[int, int], flops: tuple[int, int]) -> tuple[Fraction, Fraction]:
    """Coefficients (per token, per token pair) of a T + b T^2 through two counts, exactly."""
    short, long = (Fraction(count, length) for count, length in zip(flops, lengths, strict=True))
    pairs = (long - short) / (lengths[1] - lengths[0])
    return short - pairs * lengths[0], pairs


def _count(model: PreTrainedModel, *, tokens: int, logits: int, cache: Cache | None = None) -> _Counts:
    """FLOPs of one pass over `tokens` new tokens after what is in `cache`, with the head at `logits` positions."""
    grouped: list[_GroupedProduct] = []

    def grouped_mm_flops(rows: torch.Size, weights: torch.Size, *_args: object, **_kwargs: object) -> int:
        """2 x rows x inner x outer: every routed row meets the weights of exactly one expert."""
        if len(rows) != 2 or len(weights) != 3:
            raise InvalidInput(f"grouped product of shapes {tuple(rows)} and {tuple(weights)} is not rows by experts")
        experts, inner, outer = weights
        grouped.append(_GroupedProduct(experts=experts, rows=rows[0], weights_per_expert=inner * outer))
        return 2 * rows[0] * inner * outer

    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten._grouped_mm: grouped_mm_flops})
    missed = _MissedProducts(counter.flop_registry)
    input_ids = torch.zeros(1, tokens, dtype=torch.long)
    with torch.no_grad(), missed, counter:
        model(input_ids=input_ids, past_key_values=cache, use_cache=cache is not None, logits_to_keep=logits)
    if missed.names:
        raise InvalidInput(
            f"model type {model.config.model_type!r} uses operators without a FLOP formula: "
            f"{', '.join(sorted(missed.names))}"
        )
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    return _Counts(total=counter.get_total_flops(), by_module=by_module, grouped=tuple(grouped))


def _layer_windows(model: PreTrainedModel) -> list[int | None]:
    """Window of each decoder layer as cached decoding applies it [tokens]; None for full attention."""
    windows: list[int | None] = []
    for layer in DynamicCache(config=model.config).layers:
        if type(layer) is DynamicSlidingWindowLayer:
            windows.append(layer.sliding_window)
        elif type(layer) is DynamicLayer:
            windows.append(None)
        else:
            raise InvalidInput(
                f"model type {model.config.model_type!r} has a layer with {type(layer).__name__}; allowed: full and "
                "sliding-window attention"
            )
    return windows


def _layer_names(model: PreTrainedModel) -> list[str]:
    """Dotted names of the decoder layers as FlopCounterMode writes them, in order."""
    num_layers = model.config.num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == num_layers:
            return [f"{type(model).__name__}.{name}.{index}" for index in range(num_layers)]
    raise InvalidInput(f"model type {model.config.model_type!r} has no list of its {num_layers} decoder layers")


def _idle_parameters(counts: _Counts, tokens: int) -> int:
    """Expert weights that one token does not meet."""
    idle = sum(
        (product.experts - Fraction(product.rows, tokens)) * product.weights_per_expert for product in counts.grouped
    )
    return int(idle)


def _embedding_parameters(model: PreTrainedModel) -> int:
    """Parameters of all embedding tables and the output head, a tied table once."""
    tables = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    head = model.get_output_embeddings()
    if isinstance(head, torch.nn.Linear):
        tables.append(head.weight)
    return sum(table.numel() for table in {id(table): table for table in tables}.values())


def _check_decode_step(cost: ForwardCost, *, context_len: int, counted: int, model_type: str) -> None:
    """Refuses a cost that does not predict one cached decoding step.

    This is what catches a family that computes something else than its config says: recurrent states, latents
    expanded again at every step, attention that ignores the window.
    """
    priced = decode_flops(cost, context_len)
    if abs(priced - counted) > MAX_DEVIATION * counted:
        raise InvalidInput(
            f"model type {model_type!r}: a decoding step after {context_len} tokens counts {counted:.6g} FLOPs, body "
            f"plus causal attention plus head gives {priced:.6g}; its cost has another form"
        )
