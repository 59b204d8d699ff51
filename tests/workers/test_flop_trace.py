"""Traced coefficients against FlopCounterMode on real tensors, in both forms, and every refusal.

The unpriced form is one eager forward, where every query meets every key. The priced form is cached decoding token
by token, where a query meets only what the mask allows, beyond the window for sliding layers.
"""

import copy
import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma2Config,
    Gemma3Config,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3MoeConfig,
    Qwen3NextConfig,
    T5Config,
)
from transformers.cache_utils import DynamicCache

from service.errors import InvalidInput
from service.flops import ForwardCost, decode_flops
from workers.flop_trace import trace_config, trace_forward_cost

ALLOWED = 1e-3
WINDOW = 4
CONTEXT = 11
SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def small(config_class: Any, **fields: Any) -> PretrainedConfig:
    return config_class(**(SMALL | fields))


DENSE = {
    "llama": small(LlamaConfig),
    "qwen2": small(Qwen2Config, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
    "mistral": small(MistralConfig, sliding_window=None),
    "mistral_sliding": small(MistralConfig, sliding_window=WINDOW),
    "gemma2": small(Gemma2Config, head_dim=20, sliding_window=WINDOW, tie_word_embeddings=True),
}
EXPERTS = {
    "mixtral": small(MixtralConfig, num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": small(Qwen3MoeConfig, head_dim=12, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=32),
}
FAMILIES = DENSE | EXPERTS


@functools.cache
def traced(family: str) -> ForwardCost:
    return trace_config(FAMILIES[family])


@functools.cache
def real_model(family: str) -> Any:
    """The model with real random weights; experts run one by one, so that each of their products is counted."""
    torch.manual_seed(0)
    experts = {"experts_implementation": "eager"} if family in EXPERTS else {}
    config = copy.deepcopy(FAMILIES[family])
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32, **experts).eval()


def counted_forward(family: str, tokens: int, logits: int) -> int:
    counter = FlopCounterMode(display=False)
    input_ids = torch.randint(3, 96, (1, tokens), generator=torch.Generator().manual_seed(tokens))
    with torch.no_grad(), counter:
        real_model(family)(input_ids=input_ids, use_cache=False, logits_to_keep=logits)
    return counter.get_total_flops()


@functools.cache
def counted_decoding(family: str) -> list[int]:
    """FLOPs of each of CONTEXT steps, one token at a time from an empty cache."""
    cache = DynamicCache(config=FAMILIES[family])
    steps: list[int] = []
    for token in range(CONTEXT):
        counter = FlopCounterMode(display=False)
        input_ids = torch.tensor([[3 + token]])
        with torch.no_grad(), counter:
            real_model(family)(input_ids=input_ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        steps.append(counter.get_total_flops())
    return steps


def square_flops(cost: ForwardCost, tokens: int, logits: int) -> float:
    """One forward pass without a causal saving: every query meets every key."""
    pairs = sum(term.flops_per_token_pair for term in cost.attention)
    return cost.body_flops_per_token * tokens + pairs * tokens**2 + cost.head_flops_per_token * logits


@pytest.mark.parametrize("family", FAMILIES)
def test_trace_unpriced_square_matches_one_eager_forward(family: str) -> None:
    shapes = [(1, 1), (13, 1), (40, 40)]
    counted = [counted_forward(family, tokens, logits) for tokens, logits in shapes]
    assert [square_flops(traced(family), *shape) for shape in shapes] == pytest.approx(counted, rel=ALLOWED)


@pytest.mark.parametrize("family", FAMILIES)
def test_trace_priced_causal_form_matches_cached_decoding_step_by_step(family: str) -> None:
    priced = [decode_flops(traced(family), context_len) for context_len in range(CONTEXT)]
    assert priced == pytest.approx(counted_decoding(family), rel=ALLOWED)


def test_trace_sliding_layers_stop_costing_more_beyond_the_window() -> None:
    counted = counted_decoding("mistral_sliding")
    assert counted[WINDOW - 2] < counted[WINDOW - 1] == counted[WINDOW] == counted[-1]
    assert [decode_flops(traced("mistral_sliding"), context_len) for context_len in range(CONTEXT)] == counted


@pytest.mark.parametrize(
    ("family", "full_layers", "sliding_layers", "head_dim"),
    [
        ("llama", 3, 0, 12),
        ("qwen2", 1, 2, 12),
        ("mistral_sliding", 0, 3, 12),
        ("gemma2", 1, 2, 20),
    ],
)
def test_trace_attention_is_split_by_window(family: str, full_layers: int, sliding_layers: int, head_dim: int) -> None:
    by_window = {term.window: term.flops_per_token_pair for term in traced(family).attention}
    # Two products of 2 x heads x head size FLOPs, scores and values, per layer and pair; 4 heads.
    pair = 2 * 2 * 4 * head_dim
    expected = {None: full_layers * pair, WINDOW: sliding_layers * pair}
    assert by_window == {window: flops for window, flops in expected.items() if flops}


@pytest.mark.parametrize("family", FAMILIES)
def test_trace_parameters_equal_the_real_models(family: str) -> None:
    assert traced(family).parameters == sum(weight.numel() for weight in real_model(family).parameters())


def test_trace_tied_head_counts_once_and_untied_twice_as_vocabulary() -> None:
    assert traced("llama").embedding_parameters == 2 * 96 * 48
    assert traced("gemma2").embedding_parameters == 96 * 48


@pytest.mark.parametrize("family", DENSE)
def test_trace_dense_model_has_all_parameters_active(family: str) -> None:
    cost = traced(family)
    assert cost.active_parameters == cost.parameters


def test_trace_experts_only_the_routed_ones_are_active() -> None:
    cost = traced("mixtral")
    one_expert = 3 * 48 * 80
    assert cost.parameters - cost.active_parameters == 3 * 2 * one_expert  # 3 layers, 2 of 4 experts idle


def test_trace_quantized_config_costs_what_the_plain_one_does() -> None:
    quantized = small(LlamaConfig, quantization_config={"quant_method": "gptq", "bits": 4})
    assert trace_config(quantized) == traced("llama")
    assert quantized.to_dict()["quantization_config"] == {"quant_method": "gptq", "bits": 4}


@pytest.mark.parametrize("rope_type", ["dynamic", "linear", "yarn"])
def test_trace_rope_scaling_changes_no_cost(rope_type: str) -> None:
    scaled = small(
        LlamaConfig,
        rope_parameters={
            "rope_type": rope_type,
            "rope_theta": 1e4,
            "factor": 2.0,
            "original_max_position_embeddings": 128,
        },
    )
    assert trace_config(scaled) == traced("llama")


def test_trace_window_beyond_all_positions_costs_as_full_attention() -> None:
    wide = trace_config(small(MistralConfig, sliding_window=4096))
    full = traced("mistral")
    assert decode_flops(wide, 255) == decode_flops(full, 255)


def test_trace_forward_cost_directory_and_file_agree(tmp_path: Path) -> None:
    DENSE["llama"].save_pretrained(tmp_path)
    expected = traced("llama")
    assert trace_forward_cost(tmp_path) == expected
    assert trace_forward_cost(tmp_path / "config.json") == expected


def test_trace_forward_cost_code_in_the_model_directory_is_never_run(tmp_path: Path) -> None:
    DENSE["llama"].save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields["auto_map"] = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"}
    path.write_text(json.dumps(fields), encoding="utf-8")
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n", encoding="utf-8")
    assert trace_forward_cost(tmp_path) == traced("llama")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "must be a JSON object, got list"),
        ("{}", "model_type None is unknown"),
        ('{"model_type": "lama"}', "model_type 'lama' is unknown; .*llama"),
        ('{"model_type": "llama", "hidden_size": "wide"}', "not a valid llama config"),
        ('{"model_type": "llama", "hidden_size": 63, "num_attention_heads": 4}', "llama"),
        ('{"model_type": "clip"}', "model type 'clip' is composite"),
    ],
)
def test_trace_forward_cost_bad_config_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=message):
        trace_forward_cost(path)


def test_trace_forward_cost_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot read model config .*config\.json: No such file"):
        trace_forward_cost(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Gemma3Config(), "'gemma3' is composite"),
        (T5Config(), "'t5' is not a decoder-only"),
        (Llama4TextConfig(), "'llama4_text' has layers of type chunked_attention"),
        (Qwen3NextConfig(), "'qwen3_next' has layers of type linear_attention"),
        (
            small(DeepseekV3Config, num_key_value_heads=4, first_k_dense_replace=3),
            "'deepseek_v3': a decoding step after 255 tokens counts",
        ),
        (small(LlamaConfig, max_position_embeddings=4), "max_position_embeddings must be >= 5"),
    ],
    ids=["vision", "encoder_decoder", "chunked", "recurrent", "latent", "short"],
)
def test_trace_config_other_forms_are_refused_by_name(config: PretrainedConfig, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        trace_config(config)


class OpaqueProduct(torch.nn.Module):
    """A layer whose product torch knows no FLOP formula for: a matrix times a vector."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        weight = hidden_states.new_ones(hidden_states.shape[-1], hidden_states.shape[-1])
        return hidden_states + torch.mv(weight, hidden_states[0, 0])


def test_trace_config_operator_without_formula_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama import modeling_llama

    monkeypatch.setattr(modeling_llama, "LlamaMLP", lambda config: OpaqueProduct())
    with pytest.raises(InvalidInput, match=r"'llama' uses operators without a FLOP formula: aten\.mv"):
        trace_config(small(LlamaConfig))
