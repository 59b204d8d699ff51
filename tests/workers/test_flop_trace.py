"""Traced coefficients against FlopCounterMode on real tensors, in both forms, and every refusal.

The unpriced form is one eager forward, where every query meets every key. The priced form is cached decoding token
by token, where a query meets only what the mask allows, beyond the window for sliding layers.
"""

import copy
import functools
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    AXK1Config,
    DeepseekV2Config,
    DeepseekV3Config,
    Dots1Config,
    Ernie4_5_MoeConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    Glm4MoeConfig,
    Glm4MoeLiteConfig,
    GptOssConfig,
    GraniteMoeConfig,
    GraniteMoeSharedConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OlmoeConfig,
    Phi3Config,
    PhiConfig,
    PhimoeConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    Qwen3NextConfig,
    T5Config,
    YoutuConfig,
)
from transformers.cache_utils import DynamicCache

from service.errors import InvalidInput
from service.flops import ForwardCost, decode_flops
from workers.flop_latent import absorbed
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
    "qwen3": small(Qwen3Config, head_dim=20),
    "gemma3": small(
        Gemma3TextConfig,
        head_dim=20,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"],
        tie_word_embeddings=True,
    ),
    "phi": small(PhiConfig),
    "phi3": small(Phi3Config, sliding_window=None),
    "phi3_sliding": small(Phi3Config, sliding_window=WINDOW),
}
ROUTED: dict[str, Any] = {"num_experts_per_tok": 3, "moe_intermediate_size": 32}
# The first layer dense, then routed experts beside shared ones.
SHARED: dict[str, Any] = ROUTED | {
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
}
EXPERTS = {
    "mixtral": small(MixtralConfig, num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": small(Qwen3MoeConfig, head_dim=12, num_experts=8, **ROUTED),
    "qwen2_moe": small(
        Qwen2MoeConfig, num_experts=8, shared_expert_intermediate_size=56, mlp_only_layers=[0], **ROUTED
    ),
    "phimoe": small(PhimoeConfig, num_local_experts=4, num_experts_per_tok=2),
    "olmoe": small(OlmoeConfig, num_experts=8, num_experts_per_tok=3),
    "granitemoe": small(GraniteMoeConfig, num_local_experts=8, num_experts_per_tok=3),
    "granitemoe_shared": small(
        GraniteMoeSharedConfig, num_local_experts=8, num_experts_per_tok=3, shared_intermediate_size=56
    ),
    "ernie4_5_moe": small(
        Ernie4_5_MoeConfig,
        moe_num_experts=8,
        moe_k=3,
        moe_intermediate_size=32,
        moe_num_shared_experts=2,
        moe_layer_start_index=1,
    ),
    "glm4_moe": small(Glm4MoeConfig, head_dim=12, **SHARED),
    "dots1": small(Dots1Config, head_dim=12, sliding_window=None, **SHARED),
    "gpt_oss": small(
        GptOssConfig,
        num_local_experts=4,
        num_experts_per_tok=2,
        head_dim=12,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention", "full_attention"],
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    ),
}
# Heads of 12 + 8 for scores and 10 for values, expanded from latents of 20.
MLA: dict[str, Any] = SHARED | {
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
}
LATENT = {
    "deepseek_v2": small(DeepseekV2Config, **MLA),
    "deepseek_v2_lite": small(DeepseekV2Config, **MLA | {"q_lora_rank": None}),
    "deepseek_v3": small(DeepseekV3Config, **MLA),
    "glm4_moe_lite": small(Glm4MoeLiteConfig, **MLA),
    "axk1": small(AXK1Config, **MLA),
}
FAMILIES = DENSE | EXPERTS | LATENT


@functools.cache
def traced(family: str) -> ForwardCost:
    return trace_config(FAMILIES[family])


@functools.cache
def real_model(family: str) -> Any:
    """The model with real random weights; experts run one by one, so that each of their products is counted."""
    torch.manual_seed(0)
    experts = {"experts_implementation": "eager"} if family in EXPERTS | LATENT else {}
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
    """FLOPs of each of CONTEXT steps, one token at a time from an empty cache, in the form that engines decode in."""
    cache = DynamicCache(config=FAMILIES[family])
    steps: list[int] = []
    for token in range(CONTEXT):
        counter = FlopCounterMode(display=False)
        input_ids = torch.tensor([[3 + token]])
        with torch.no_grad(), absorbed(real_model(family)) if family in LATENT else nullcontext(), counter:
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


@pytest.mark.parametrize("family", LATENT)
def test_trace_absorbed_decoding_computes_the_models_own_logits(family: str) -> None:
    input_ids = torch.randint(3, 96, (1, CONTEXT), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = real_model(family)(input_ids=input_ids, use_cache=False).logits[0]
        cache = DynamicCache(config=LATENT[family])
        with absorbed(real_model(family)):
            rows = [
                real_model(family)(input_ids=input_ids[:, [at]], past_key_values=cache, use_cache=True).logits[0, 0]
                for at in range(CONTEXT)
            ]
        plain = real_model(family)(input_ids=input_ids, use_cache=False).logits[0]
    torch.testing.assert_close(torch.stack(rows), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(plain, expected)


@pytest.mark.parametrize("family", LATENT)
def test_trace_latent_attention_costs_keys_in_a_prompt_and_latents_in_decoding(family: str) -> None:
    (term,) = traced(family).attention
    # Per layer, head and pair: scores of 12 + 8 and values of 10; in decoding scores of 20 + 8 and values of 20.
    assert term.flops_per_token_pair == 3 * 4 * 2 * (12 + 8 + 10)
    assert term.sampled_flops_per_token_pair == 3 * 4 * 2 * (20 + 8 + 20)


@pytest.mark.parametrize("family", DENSE | EXPERTS)
def test_trace_other_attention_costs_sampled_queries_what_it_costs_a_prompts(family: str) -> None:
    assert {term.sampled_flops_per_token_pair for term in traced(family).attention} == {None}


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
        ("gemma3", 1, 2, 20),
        ("phi3_sliding", 0, 3, 12),
        ("gpt_oss", 2, 1, 12),
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


def test_trace_experts_shared_ones_are_active_and_dense_layers_whole() -> None:
    cost = traced("deepseek_v3")
    one_expert = 3 * 48 * 32
    assert cost.parameters - cost.active_parameters == 2 * 5 * one_expert  # 2 of 3 layers, 5 of 8 experts idle


# As checkpoints on the hub have it in their config.json.
QUANTIZED: dict[str, dict[str, Any]] = {
    "awq": {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 128,
        "version": "gemm",
        "zero_point": True,
        "modules_to_not_convert": None,
    },
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True},
    "fp8": {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "weight_block_size": [128, 128],
    },
    "compressed_tensors": {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "ignore": ["lm_head"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128},
            }
        },
    },
}


@pytest.mark.parametrize("method", QUANTIZED)
@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "deepseek_v3"])
def test_trace_quantized_checkpoint_costs_what_the_plain_one_does(tmp_path: Path, family: str, method: str) -> None:
    FAMILIES[family].save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(fields | {"quantization_config": QUANTIZED[method]}), encoding="utf-8")
    assert trace_forward_cost(path) == traced(family)


def test_trace_quantized_config_of_the_caller_stays_as_it_is() -> None:
    quantized = small(LlamaConfig, quantization_config=QUANTIZED["gptq"])
    assert trace_config(quantized) == traced("llama")
    assert quantized.to_dict()["quantization_config"] == QUANTIZED["gptq"]


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
            small(YoutuConfig, **{name: size for name, size in MLA.items() if name not in SHARED}),
            "'youtu': a decoding step after 255 tokens counts",
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
