"""What training costs in FLOPs: closed forms over the lengths of what was trained.

Owns the price of finetuning under both accountings. Invariant: a price depends on the model's coefficients and on
token counts alone, so that it can be recomputed from a training set and the order it was read in. Must not import
torch.

Counted under `exact` are model FLOPs: matrix products and attention of every trained sequence at its real length, the
output head at the positions that have a loss. Not counted: padding, activations computed a second time to save memory
(gradient checkpointing), the optimizer's update (a few operations a parameter and step), and whatever a device computes
beside what is needed, such as the head at positions without a loss. How many padding tokens were computed is reported
apart.
"""

import numpy as np

from service.flops import FloatArray, ForwardCost, IntArray, sample_flops_array

_FULL_PASSES = 3.0
_FROZEN_PASSES = 2.0


def training_flops(
    cost: ForwardCost, sequence_tokens: IntArray, completion_tokens: IntArray, *, adapter_parameters: int | None = None
) -> FloatArray:
    """FLOPs to train once on each sequence (accounting `exact`).

    Every weight trained: 3 x forward. A matrix product costs as much again for the gradient of its input, and once
    more for the gradient of its weight (Kaplan et al. 2020, arXiv:2001.08361, section 2.1).

    Adapters on frozen weights: 2 x forward + 6 x adapter parameters x tokens. Gradients still flow back through frozen
    weights, but those have no gradient of their own; each adapter matrix costs its three products, 2 FLOPs a
    parameter and token each. For layers of width N and rank R this is 2 N^2 + 6 N R in place of 3 N^2 multiplications
    (Schulman et al. 2025, "LoRA Without Regret", on compute).

    Args:
        sequence_tokens: prompt and completion of each sequence, beginning and end of sequence included [tokens].
        completion_tokens: of them, those that have a loss [tokens].
        adapter_parameters: of all adapters; None if every weight is trained.

    Returns:
        float64 array of that shape [FLOPs].

    Raises:
        ValueError: if a dtype is not integer, shapes differ, or a count is negative.
    """
    none = np.zeros_like(sequence_tokens)
    body = sample_flops_array(cost, sequence_tokens, none, none)
    forward = body + cost.head_flops_per_token * completion_tokens.astype(np.float64)
    if adapter_parameters is None:
        return _FULL_PASSES * forward
    return _FROZEN_PASSES * forward + 6.0 * adapter_parameters * sequence_tokens.astype(np.float64)


def paper_training_flops(cost: ForwardCost, sequence_tokens: IntArray, *, has_adapters: bool = False) -> FloatArray:
    """6 x total parameters x tokens (accounting `paper`), 4 x with adapters on frozen weights [FLOPs].

    Source: Kaplan et al. 2020 (arXiv:2001.08361): 2 forward, 4 backward, of which 2 are gradients of weights.
    """
    per_parameter = 4 if has_adapters else 6
    return (per_parameter * cost.parameters * sequence_tokens.astype(np.int64)).astype(np.float64)
