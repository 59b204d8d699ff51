"""What a sampled token costs in models with multi-head latent attention, in the form that engines decode in.

`transformers` caches the latents and expands those of the whole context again at every step. An engine does so for a
prompt only: in decoding it folds the expansion into the query and into the output, so that the query meets the latents
themselves (the absorbed form, DeepSeek-V2, arXiv:2405.04434). Owns the models that engines decode so, and that form of
their attention. Invariant: the form computes the model's own numbers; only the order of its products differs. Must not
import ray or vllm.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ABSORBED_MODEL_TYPES = frozenset({"axk1", "deepseek_v2", "deepseek_v3", "glm4_moe_lite"})
"""Models that vLLM decodes in the absorbed form and `transformers` builds with a cache of latents.

Source: vllm/transformers_utils/model_arch_config_convertor.py, `is_deepseek_mla`, less those with sparse, linear or
doubled attention.
"""

_NAME = "isoflop_absorbed"


def absorbed_attention(
    module: Any,
    query: torch.Tensor,
    latents: torch.Tensor,
    rotated_keys: torch.Tensor,
    _mask: torch.Tensor | None,
    *,
    scaling: float,
    **_kwargs: object,
) -> tuple[torch.Tensor, None]:
    """Attention of the newest position, whose query sees every latent.

    Args:
        module: the attention layer: heads N, latent size L, head sizes P without and R with position, V of values.
        query: of shape (batch, N, 1, P + R).
        latents: of shape (batch, 1, keys, L).
        rotated_keys: of shape (batch, 1, keys, R).
        scaling: factor of the scores.

    Returns:
        Values of shape (batch, 1, N, V), and no weights.
    """
    size, rotated = module.qk_nope_head_dim, module.qk_rope_head_dim
    weight = module.kv_b_proj.weight.view(-1, size + module.v_head_dim, module.kv_lora_rank)
    to_keys, to_values = weight.split([size, module.v_head_dim], dim=1)
    plain_query, rotated_query = query.split([size, rotated], dim=-1)
    latent_query = torch.matmul(plain_query, to_keys)
    scores = torch.matmul(latent_query, latents.transpose(2, 3))
    scores = (scores + torch.matmul(rotated_query, rotated_keys.transpose(2, 3))) * scaling
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    values = torch.matmul(torch.matmul(weights, latents), to_values.transpose(1, 2))
    return values.transpose(1, 2).contiguous(), None


@contextmanager
def absorbed(model: PreTrainedModel) -> Iterator[None]:
    """Within it, a forward pass over one token after a cache decodes in the absorbed form."""
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "expand_kv")]
    before = model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS[_NAME] = absorbed_attention
    for layer in layers:
        layer.expand_kv = _as_they_are
    model.config._attn_implementation = _NAME
    try:
        yield
    finally:
        model.config._attn_implementation = before
        for layer in layers:
            del layer.expand_kv
        del ALL_ATTENTION_FUNCTIONS[_NAME]


def _as_they_are(latents: torch.Tensor, rotated_keys: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return latents, rotated_keys
