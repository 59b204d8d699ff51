"""What a request costs in forward FLOPs: closed forms over token counts.

Owns the price of one engine request under each accounting. Invariant: a price depends on the model's coefficients
and on token counts alone, so `verify` can recompute every amount from a stored row, and a request never costs more
than its worst case (each formula is monotone in tokens generated and falls with tokens cached, also in floats).
Must not import torch, transformers or anything of a cluster: coefficients are measured in `workers/flop_trace.py`.
The derivation is in docs/flops.md.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from service.forward_cost import AttentionTerm, ForwardCost, check_amount

__all__ = [
    "MFLOP",
    "AttentionTerm",
    "FloatArray",
    "ForwardCost",
    "IntArray",
    "decode_flops",
    "ideal_flops",
    "paper_flops",
    "paper_flops_array",
    "prefill_flops",
    "sample_flops",
    "sample_flops_array",
    "to_mflop",
    "worst_case_flops",
]

MFLOP = 1_000_000
"""FLOPs in one unit of the ledger."""

IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.float64]


def prefill_flops(cost: ForwardCost, *, prompt_tokens: int, cached_tokens: int = 0) -> float:
    """Forward FLOPs of the body over a prompt whose first `cached_tokens` are in the KV cache; no output head.

    Args:
        prompt_tokens: length of the prompt [tokens].
        cached_tokens: leading tokens found cached [tokens], at most `prompt_tokens`.

    Raises:
        ValueError: on a negative count or more cached than prompt tokens.
    """
    _check_counts(prompt_tokens=prompt_tokens, cached_tokens=cached_tokens)
    _check_cached(prompt_tokens, cached_tokens)
    return _body_flops(cost, cached_tokens, prompt_tokens, prompt_tokens)


def decode_flops(cost: ForwardCost, context_len: int) -> float:
    """Forward FLOPs to generate one token after `context_len` cached tokens.

    Counts matrix products of the body, attention of the one new position over `context_len` + 1 keys (fewer behind
    a sliding window) and the output head; not the embedding lookup, softmax, activations or norms.

    Args:
        context_len: tokens already in the KV cache [tokens], >= 0.

    Raises:
        ValueError: if `context_len` is negative.
    Source: traced with torch FlopCounterMode; compare PaLM (arXiv:2204.02311) appendix B.
    """
    _check_counts(context_len=context_len)
    return _body_flops(cost, context_len, context_len, context_len + 1) + cost.head_flops_per_token


def sample_flops(cost: ForwardCost, *, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> float:
    """Forward FLOPs the engine computes for one request (accounting `exact`).

    The prompt minus its cached part and every sampled token but the last go through the body, each at its own
    context length; the head runs once per sampled token. A request aborted before its first token costs its prefill.

    Args:
        prompt_tokens: length of the prompt [tokens].
        cached_tokens: leading prompt tokens found cached [tokens].
        completion_tokens: tokens sampled, an end-of-sequence token included [tokens].

    Raises:
        ValueError: on a negative count or more cached than prompt tokens.
    """
    _check_counts(prompt_tokens=prompt_tokens, cached_tokens=cached_tokens, completion_tokens=completion_tokens)
    _check_cached(prompt_tokens, cached_tokens)
    body = _body_flops(cost, cached_tokens, prompt_tokens, prompt_tokens + max(completion_tokens - 1, 0))
    return body + cost.head_flops_per_token * completion_tokens


def sample_flops_array(
    cost: ForwardCost, prompt_tokens: IntArray, cached_tokens: IntArray, completion_tokens: IntArray
) -> FloatArray:
    """`sample_flops` of many requests, bit for bit the same numbers.

    Args:
        prompt_tokens, cached_tokens, completion_tokens: integer arrays of one shape [tokens].

    Returns:
        float64 array of that shape [FLOPs].

    Raises:
        ValueError: if a dtype is not integer, shapes differ, or any element breaks a rule of `sample_flops`.
    """
    columns = {
        "prompt_tokens": prompt_tokens,
        "cached_tokens": cached_tokens,
        "completion_tokens": completion_tokens,
    }
    for name, column in columns.items():
        if not np.issubdtype(column.dtype, np.integer):
            raise ValueError(f"{name} must be an integer array, got dtype {column.dtype}")
        if column.shape != prompt_tokens.shape:
            raise ValueError(f"{name} has shape {column.shape}, prompt_tokens has {prompt_tokens.shape}")
        if column.size and column.min() < 0:
            raise ValueError(f"{name} must be >= 0, got {column.min()}")
    if np.any(cached_tokens > prompt_tokens):
        row = int(np.flatnonzero(cached_tokens.ravel() > prompt_tokens.ravel())[0])
        _check_cached(int(prompt_tokens.flat[row]), int(cached_tokens.flat[row]))
    start = cached_tokens.astype(np.int64)
    sampled = completion_tokens.astype(np.int64)
    prompt_end = prompt_tokens.astype(np.int64)
    end = prompt_end + np.maximum(sampled - 1, 0)
    # The same operations in the same order as `_body_flops`, so that float rounding agrees too.
    flops = cost.body_flops_per_token * (end - start).astype(np.float64)
    for term in cost.attention:
        sampled_rate = term.sampled_flops_per_token_pair
        first = end if sampled_rate is None else prompt_end
        pairs = _pairs_array(first, term.window) - _pairs_array(start, term.window)
        flops = flops + term.flops_per_token_pair * pairs.astype(np.float64)
        if sampled_rate is not None:
            pairs = _pairs_array(end, term.window) - _pairs_array(first, term.window)
            flops = flops + sampled_rate * pairs.astype(np.float64)
    return flops + cost.head_flops_per_token * sampled.astype(np.float64)


def worst_case_flops(cost: ForwardCost, *, prompt_tokens: int, max_tokens: int) -> float:
    """The most one request can cost under `exact`: nothing cached, `max_tokens` sampled.

    Raises:
        ValueError: on a negative count.
    """
    return sample_flops(cost, prompt_tokens=prompt_tokens, cached_tokens=0, completion_tokens=max_tokens)


def paper_flops(cost: ForwardCost, completion_tokens: int) -> float:
    """2 x total parameters x completion tokens (accounting `paper`): prompt and attention are free.

    Raises:
        ValueError: if `completion_tokens` is negative.
    Source: Kaplan et al. 2020 (arXiv:2001.08361), as used by Bansal et al. 2024 (arXiv:2408.16737).
    """
    _check_counts(completion_tokens=completion_tokens)
    return float(2 * cost.parameters * completion_tokens)


def paper_flops_array(cost: ForwardCost, completion_tokens: IntArray) -> FloatArray:
    """`paper_flops` of many samples [FLOPs]."""
    return (2 * cost.parameters * completion_tokens).astype(np.float64)


def ideal_flops(cost: ForwardCost, *, prompt_tokens: int, completion_tokens: int, num_samples: int) -> float:
    """Forward FLOPs of one problem if its prompt were computed once for all samples.

    The prompt once, every sampled token but the last of each sample through the body at its context, the head once
    per sampled token: a lower bound for what an engine with a perfect prefix cache spends.

    Args:
        prompt_tokens: length of the prompt [tokens].
        completion_tokens: length of each sample [tokens].
        num_samples: samples of the problem, >= 1.

    Raises:
        ValueError: on a negative count or no sample.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be >= 1, got {num_samples}")
    one_sample = sample_flops(
        cost, prompt_tokens=prompt_tokens, cached_tokens=prompt_tokens, completion_tokens=completion_tokens
    )
    return prefill_flops(cost, prompt_tokens=prompt_tokens) + num_samples * one_sample


def to_mflop(flops: float) -> int:
    """`flops` in whole MFLOP, rounded up.

    Integer arithmetic: dividing the float by 10^6 would round a few FLOPs above a border down to it.

    Raises:
        ValueError: if `flops` is negative, infinite or not a number.
    """
    check_amount("flops", flops)
    return -(-math.ceil(flops) // MFLOP)


def _body_flops(cost: ForwardCost, start: int, prompt_end: int, end: int) -> float:
    """Body and attention for the positions `start` <= t < `end`, each seeing itself and all before it [FLOPs].

    Positions from `prompt_end` on are sampled tokens.
    """
    flops = cost.body_flops_per_token * (end - start)
    for term in cost.attention:
        sampled_rate = term.sampled_flops_per_token_pair
        first = end if sampled_rate is None else prompt_end
        flops = flops + term.flops_per_token_pair * (_pairs(first, term.window) - _pairs(start, term.window))
        if sampled_rate is not None:
            flops = flops + sampled_rate * (_pairs(end, term.window) - _pairs(first, term.window))
    return flops


def _pairs(length: int, window: int | None) -> int:
    """Query-key pairs of `length` positions from 0: the sum of min(t, window) for t = 1..length."""
    if window is None or length <= window:
        return length * (length + 1) // 2
    return window * (window + 1) // 2 + (length - window) * window


def _pairs_array(length: npt.NDArray[np.int64], window: int | None) -> npt.NDArray[np.int64]:
    """`_pairs` of every element."""
    if window is None:
        return length * (length + 1) // 2
    inside = np.minimum(length, window)
    return inside * (inside + 1) // 2 + (length - inside) * window


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if count < 0:
            raise ValueError(f"{name} must be >= 0, got {count}")


def _check_cached(prompt_tokens: int, cached_tokens: int) -> None:
    if cached_tokens > prompt_tokens:
        raise ValueError(f"cached_tokens must be <= prompt_tokens, got {cached_tokens} cached of {prompt_tokens}")
