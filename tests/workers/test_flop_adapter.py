"""The cost of an adapter beside its base, against counts of peft's own model on real tensors."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, DeepseekV3Config, LlamaConfig, MistralConfig, Qwen3MoeConfig
from transformers.cache_utils import DynamicCache

from service.errors import InvalidInput
from service.flops import decode_flops
from workers.flop_latent import absorbed
from workers.flop_trace import trace_forward_cost

ALLOWED = 1e-3
CONTEXT = 7
SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 80,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
DEEPSEEK = DeepseekV3Config(
    **SIZES,
    q_lora_rank=24,
    kv_lora_rank=20,
    qk_nope_head_dim=12,
    qk_rope_head_dim=8,
    v_head_dim=10,
    n_routed_experts=8,
    num_experts_per_tok=3,
    moe_intermediate_size=32,
    n_group=2,
    topk_group=1,
    first_k_dense_replace=1,
)
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama_all_linear": (LlamaConfig(**SIZES), {"r": 4, "target_modules": "all-linear"}),
    "llama_head": (LlamaConfig(**SIZES), {"r": 3, "target_modules": ["q_proj", "lm_head"]}),
    "mistral_ranks": (
        MistralConfig(**SIZES, sliding_window=4),
        {"r": 4, "target_modules": ["q_proj", "down_proj"], "rank_pattern": {"down_proj": 9}},
    ),
    "qwen3_moe": (
        Qwen3MoeConfig(**SIZES, num_experts=8, num_experts_per_tok=3, moe_intermediate_size=32),
        {"r": 5, "target_modules": ATTENTION},
    ),
    "deepseek_v3": (DEEPSEEK, {"r": 5, "target_modules": ["q_a_proj", "q_b_proj", "o_proj"]}),
}


def peft_model(config: Any, fields: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float32, experts_implementation="eager"
    )
    return get_peft_model(base.eval(), LoraConfig(**fields, task_type="CAUSAL_LM"))


def saved(tmp_path: Path, config: Any, fields: dict[str, Any]) -> Path:
    """The directory of an adapter that names its base."""
    config.save_pretrained(tmp_path / "base")
    peft_model(config, fields).save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    return rewritten(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "base"))


def rewritten(adapter: Path, **fields: Any) -> Path:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")
    return adapter


@pytest.mark.parametrize("case", CASES)
def test_trace_adapter_matches_peft_on_real_tensors_in_both_forms(tmp_path: Path, case: str) -> None:
    config, fields = CASES[case]
    cost = trace_forward_cost(saved(tmp_path, config, fields))
    model = peft_model(config, fields)

    forward = FlopCounterMode(display=False)
    with torch.no_grad(), forward:
        model(input_ids=torch.full((1, 13), 5), use_cache=False, logits_to_keep=1)
    pairs = sum(term.flops_per_token_pair for term in cost.attention)
    square = cost.body_flops_per_token * 13 + pairs * 13**2 + cost.head_flops_per_token
    assert square == pytest.approx(forward.get_total_flops(), rel=ALLOWED)

    cache, steps = DynamicCache(config=config), []
    for token in range(CONTEXT):
        counter = FlopCounterMode(display=False)
        form = absorbed(model.get_base_model()) if config is DEEPSEEK else nullcontext()
        with torch.no_grad(), form, counter:
            model(input_ids=torch.tensor([[3 + token]]), past_key_values=cache, use_cache=True, logits_to_keep=1)
        steps.append(counter.get_total_flops())
    assert [decode_flops(cost, context) for context in range(CONTEXT)] == pytest.approx(steps, rel=ALLOWED)
    assert cost.parameters == sum(weight.numel() for weight in model.parameters())


def test_trace_adapter_costs_its_rank_times_inputs_and_outputs_more_than_its_base(tmp_path: Path) -> None:
    config, fields = CASES["llama_all_linear"]
    cost = trace_forward_cost(saved(tmp_path, config, fields))
    base = trace_forward_cost(tmp_path / "base")
    added = 3 * 4 * (4 * (48 + 48) + 3 * (48 + 80))  # 3 layers of rank 4: four attention and three MLP products
    assert cost.parameters - base.parameters == added
    assert cost.body_flops_per_token - base.body_flops_per_token == 2 * added
    assert cost.attention == base.attention
    assert cost.embedding_parameters == base.embedding_parameters


def test_trace_adapter_takes_the_base_that_is_given(tmp_path: Path) -> None:
    adapter = saved(tmp_path, *CASES["llama_head"])
    expected = trace_forward_cost(adapter)
    rewritten(adapter, base_model_name_or_path="somebody/base")
    with pytest.raises(InvalidInput, match="the base it names is no directory here"):
        trace_forward_cost(adapter)
    assert trace_forward_cost(adapter, base=tmp_path / "base") == expected
    assert trace_forward_cost(adapter / "adapter_config.json", base=tmp_path / "base" / "config.json") == expected


def test_trace_base_of_what_is_no_adapter_is_refused(tmp_path: Path) -> None:
    LlamaConfig(**SIZES).save_pretrained(tmp_path)
    with pytest.raises(InvalidInput, match="is no adapter"):
        trace_forward_cost(tmp_path, base=tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type: got 'IA3', allowed: 'LORA'"),
        ({"use_dora": True}, "use_dora is set"),
        ({"target_modules": ["q_proj", "experts_proj"]}, "'experts_proj' is no layer that can be adapted"),
        ({"r": 7}, "other shapes"),
        ({"target_modules": ["nothing"]}, "cannot trace model type 'llama'"),
    ],
)
def test_trace_adapter_that_computes_something_else_is_refused(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    adapter = rewritten(saved(tmp_path, *CASES["llama_all_linear"]), **fields)
    with pytest.raises(InvalidInput, match=message):
        trace_forward_cost(adapter)


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys")
def test_trace_adapter_on_experts_is_refused(tmp_path: Path) -> None:
    adapter = saved(tmp_path, *CASES["qwen3_moe"])
    with pytest.raises(InvalidInput, match="adapts experts"):
        trace_forward_cost(rewritten(adapter, target_modules=["q_proj", "gate_proj", "up_proj", "down_proj"]))


def test_trace_adapter_on_the_expansion_of_latents_is_refused(tmp_path: Path) -> None:
    adapter = saved(tmp_path, DEEPSEEK, {"r": 2, "target_modules": ["kv_b_proj"]})
    with pytest.raises(InvalidInput, match="adapts kv_b_proj"):
        trace_forward_cost(adapter)
