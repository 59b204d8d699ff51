"""Measures a model's forward-cost coefficients from its own `transformers` code, without weights or memory.

Owns the step from a config to a `ForwardCost`: the model is built from fake tensors, run at two lengths under torch's
FlopCounterMode, and the counts are split into body, attention per window and output head. Invariant: a cost is
returned only if it predicts a cached decoding step of the same model beyond its widest window; everything else is
refused by name, so nothing is priced by a formula that its code does not follow. Never runs code from a model
directory, never needs a network. Must not import ray or vllm.
"""

import inspect
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import cast

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from service.adapters import ADAPTER_CONFIG
from service.errors import InvalidInput
from service.flops import AttentionTerm, ForwardCost, decode_flops
from workers.flop_adapter import Adapter, add_adapter, is_adapter, read_adapter
from workers.flop_config import MODEL_ERRORS, load_config, plain_config
from workers.flop_count import Counts, count_forward
from workers.flop_latent import ABSORBED_MODEL_TYPES, absorbed

MAX_DEVIATION = 1e-6
"""Largest relative error against a cached decoding step that a returned cost may have; the fit itself is exact."""

TRACE_TOKENS = 4096
"""Context to trace at [tokens]: long enough that attention, not only the body, shows in the check. Costs no memory."""


def trace_forward_cost(config_path_or_dir: Path, *, base: Path | None = None) -> ForwardCost:
    """Forward cost of the model that a config.json describes, or of an adapter beside its base.

    Args:
        config_path_or_dir: the config file, or the directory of the model or adapter that holds it.
        base: the base of an adapter, as a config file or directory; None for the directory that the adapter names.

    Raises:
        InvalidInput: if the file is missing or no config of a causal language model this version of transformers
            knows, the base of an adapter is not here, or the model is one that `trace_config` refuses.
    """
    if not is_adapter(config_path_or_dir):
        if base is not None:
            raise InvalidInput(f"base: {config_path_or_dir} is no adapter, which has an {ADAPTER_CONFIG}")
        return trace_config(load_config(config_path_or_dir))
    adapter = read_adapter(config_path_or_dir)
    if (found := base or adapter.base) is None:
        raise InvalidInput(f"{adapter.directory}: the base it names is no directory here; name one that is as base")
    return trace_config(load_config(found), adapter)


def trace_config(config: PretrainedConfig, adapter: Adapter | None = None) -> ForwardCost:
    """Forward cost of a model built from `config` with eager attention, with `adapter` beside its layers.

    Raises:
        InvalidInput: if the model is not a decoder-only text model whose cost is linear in tokens plus causal or
            sliding-window attention, or uses an operator whose FLOPs cannot be counted. The message names the model
            type and the reason.
    """
    config = plain_config(config)
    try:
        with (tensors := FakeTensorMode(allow_non_fake_inputs=True)):
            model = AutoModelForCausalLM.from_config(
                config, attn_implementation="eager", dtype=torch.bfloat16, trust_remote_code=False
            ).eval()
        if adapter is not None:
            add_adapter(cast("PreTrainedModel", model), adapter, tensors)
        with tensors:
            return _measure(cast("PreTrainedModel", model))
    except MODEL_ERRORS as error:
        raise InvalidInput(f"cannot trace model type {config.model_type!r}: {error}") from error


def _measure(model: PreTrainedModel) -> ForwardCost:
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        raise InvalidInput(f"model type {model.config.model_type!r} cannot skip its output head (logits_to_keep)")
    windows = _layer_windows(model)
    long_tokens = _trace_tokens(model, windows)
    short_tokens = long_tokens // 2
    is_latent = model.config.model_type in ABSORBED_MODEL_TYPES
    cache = DynamicCache(config=model.config)
    short = count_forward(model, tokens=short_tokens, logits=1)
    two_logits = count_forward(model, tokens=short_tokens, logits=2)
    long = count_forward(model, tokens=long_tokens, logits=1, cache=cache)
    with absorbed(model) if is_latent else nullcontext():
        step = count_forward(model, tokens=1, logits=1, cache=cache)

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

    sampled_rate = float(_latent_rate(model, lengths, step.total)) if is_latent else None

    parameters = sum(parameter.numel() for parameter in model.parameters())
    cost = ForwardCost(
        body_flops_per_token=float(body),
        head_flops_per_token=float(head),
        attention=tuple(
            AttentionTerm(flops_per_token_pair=float(pairs), window=window, sampled_flops_per_token_pair=sampled_rate)
            for window, pairs in by_window.items()
        ),
        parameters=parameters,
        active_parameters=parameters - _idle_parameters(long, long_tokens),
        embedding_parameters=_embedding_parameters(model),
    )
    _check_decode_step(cost, context_len=long_tokens, counted=step.total, model_type=model.config.model_type)
    return cost


def _latent_rate(model: PreTrainedModel, lengths: tuple[int, int], long_step: int) -> Fraction:
    """FLOPs of a sampled query and one latent: the slope between a decoding step at each length."""
    cache = DynamicCache(config=model.config)
    count_forward(model, tokens=lengths[0], logits=1, cache=cache)
    with absorbed(model):
        short_step = count_forward(model, tokens=1, logits=1, cache=cache)
    return Fraction(long_step - short_step.total, lengths[1] - lengths[0])


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


def _idle_parameters(counts: Counts, tokens: int) -> int:
    """Expert weights that one token does not meet."""
    idle = sum(
        (product.experts - Fraction(product.rows, tokens)) * product.weights_per_expert for product in counts.grouped
    )
    return int(idle)


def _embedding_parameters(model: PreTrainedModel) -> int:
    """Parameters of all embedding tables and the output head, a tied table once."""
    tables = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    head = model.get_output_embeddings()
    head = getattr(head, "base_layer", head)  # beside an adapter
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
