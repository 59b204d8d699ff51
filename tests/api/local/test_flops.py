"""The report of `isoflop flops`."""

import json
from pathlib import Path

import pytest

from api.local.flops import flops_report
from service.errors import InvalidInput

CONFIG = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG), encoding="utf-8")
    return path


def test_flops_report_json_has_exactly_the_documented_keys(config_path: Path) -> None:
    report = flops_report(config_path, 20, 8, 10)
    assert set(report.to_json()) == {"ideal_flops", "paper_flops", "parameters"}
    assert json.loads(json.dumps(report.to_json())) == report.to_json()


def test_flops_report_small_llama_equals_counting_by_hand(config_path: Path) -> None:
    report = flops_report(config_path, 20, 8, 10)
    layer = 2 * 48 * 48 + 2 * 48 * 24 + 3 * 48 * 80  # query and output, key and value, gated MLP
    norms = 7 * 48
    parameters = 3 * layer + 2 * 96 * 48 + norms
    body = 2 * 3 * layer
    prompt_pairs = 20 * 21 // 2
    sample_pairs = sum(range(21, 28))
    attention = 3 * 4 * 48 * (prompt_pairs + 10 * sample_pairs)
    assert report.parameters == parameters
    assert report.ideal_flops == body * (20 + 10 * 7) + attention + 10 * 8 * 2 * 96 * 48
    assert report.paper_flops == 2 * parameters * 8 * 10


def test_flops_report_text_shows_both_totals_and_their_ratio(config_path: Path) -> None:
    report = flops_report(config_path, 20, 8, 10)
    text = report.to_text()
    assert f"{report.ideal_flops:.6g} FLOPs (prompt computed once)" in text
    assert f"{report.paper_flops:.6g} FLOPs" in text
    assert f"{report.ideal_flops / report.paper_flops:.3f}" in text
    assert f"{report.parameters:,}" in text


def test_flops_report_adapter_is_priced_beside_its_base(config_path: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    fields = {"peft_type": "LORA", "r": 4, "target_modules": ["o_proj"], "base_model_name_or_path": "somebody/base"}
    (adapter / "adapter_config.json").write_text(json.dumps(fields), encoding="utf-8")
    report = flops_report(adapter, 20, 8, 10, base=config_path)
    base = flops_report(config_path, 20, 8, 10)
    assert report.parameters - base.parameters == 3 * 4 * (48 + 48)
    assert report.ideal_flops - base.ideal_flops == 2 * 3 * 4 * (48 + 48) * (20 + 10 * 7)


def test_flops_report_text_shows_what_a_sampled_query_costs_on_latents(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    latent = {"kv_lora_rank": 20, "q_lora_rank": None, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10}
    fields = CONFIG | latent | {"model_type": "deepseek_v3", "num_key_value_heads": 4, "first_k_dense_replace": 3}
    path.write_text(json.dumps(fields), encoding="utf-8")
    assert "720 per token and key seen, 1152 for a sampled token" in flops_report(path, 20, 8, 10).to_text()


@pytest.mark.parametrize(
    ("counts", "name"), [((0, 8, 10), "prompt_tokens"), ((20, 0, 10), "completion_tokens"), ((20, 8, 0), "samples")]
)
def test_flops_report_count_under_one_is_refused(config_path: Path, counts: tuple[int, int, int], name: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name} must be >= 1, got 0"):
        flops_report(config_path, *counts)


def test_flops_report_missing_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read model config"):
        flops_report(tmp_path / "config.json", 20, 8, 10)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": -2}, "num_hidden_layers: got -2, allowed: at least 1"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: got 0, allowed: at least 1"),
        ({"num_attention_heads": 0}, "num_attention_heads: got 0, allowed: at least 1"),
        ({"vocab_size": -5}, "vocab_size: got -5, allowed: at least 1"),
        ({"model_type": "bert"}, "'bert' is an encoder.*allowed: decoder-only causal language"),
    ],
)
def test_flops_report_of_what_is_no_decoder_is_refused(
    config_path: Path, changes: dict[str, object], words: str
) -> None:
    config_path.write_text(json.dumps(CONFIG | changes), encoding="utf-8")

    with pytest.raises(InvalidInput, match=words):
        flops_report(config_path, 20, 8, 10)
