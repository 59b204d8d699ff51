"""Adapters merged into a base: what they compute, where they lie, and everything that is refused."""

import dataclasses
import fcntl
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from service.checkpoints import CHECKPOINT_FILE
from service.errors import InvalidInput
from service.models import ModelSpec
from tests.workers.tiny_adapters import rewrite_config, write_adapter, write_base
from workers.adapter_merge import Merged, merge_adapter
from workers.model_files import inspect_model
from workers.model_shape import check_revision, check_same_shape, shape_of

TOKEN_IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 21, 22]])
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
UNTIED = {"tie_word_embeddings": False}
# sizes of the base, and fields of the adapter
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "some layers": ({}, {"target_modules": ATTENTION, "layers_to_transform": [1]}),
    "patterns": ({}, {"rank_pattern": {"down_proj": 9}, "alpha_pattern": {"q_proj": 3}, "use_rslora": True}),
    "dora": ({}, {"use_dora": True, "target_modules": ATTENTION}),
    "bias": ({"attention_bias": True}, {"target_modules": ATTENTION, "bias": "lora_only"}),
    "bias of the adapter": ({"attention_bias": True}, {"target_modules": ATTENTION, "lora_bias": True}),
    "whole modules": (UNTIED, {"target_modules": ATTENTION, "modules_to_save": ["mlp", "embed_tokens", "lm_head"]}),
    "tokens": ({}, {"target_modules": ATTENTION, "trainable_token_indices": [20, 30]}),
    "embedding and head": (UNTIED, {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    "eva": ({}, {"init_lora_weights": "eva"}),
    "orthogonal": ({}, {"init_lora_weights": "orthogonal"}),
    "mica": ({}, {"init_lora_weights": "mica"}),
    "parameters": ({}, {"target_modules": ATTENTION, "target_parameters": ["mlp.gate_proj.weight"]}),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return write_base(tmp_path_factory.mktemp("base"), attention_bias=True)


@pytest.fixture(scope="module")
def plain(base: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter on every linear layer."""
    return write_adapter(tmp_path_factory.mktemp("adapters") / "plain", base.path)


@pytest.fixture
def adapter(plain: Path, tmp_path: Path) -> Path:
    """A copy of it, to break."""
    return Path(shutil.copytree(plain, tmp_path / "adapter"))


@torch.no_grad()
def logits(directory: str | Path, adapter: Path | None = None) -> torch.Tensor:
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    return model.eval()(TOKEN_IDS).logits


def names(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))


@pytest.mark.filterwarnings("ignore:Adapter 'default'. 8 LoRA tensor")  # peft of biases, when it saves them
@pytest.mark.filterwarnings("ignore:.* eva", "ignore:.*'eva'")
@pytest.mark.parametrize("form", FORMS)
def test_merged_adapter_computes_what_it_computes_beside_its_base(tmp_path: Path, form: str) -> None:
    sizes, fields = FORMS[form]
    base = write_base(tmp_path / "base", **sizes)
    adapter = write_adapter(tmp_path / "adapter", base.path, **fields)

    merged = merge_adapter(base, adapter, tmp_path / "merged")

    found = logits(merged.directory)
    torch.testing.assert_close(found, logits(base.path, adapter), rtol=1e-4, atol=1e-5)
    assert (found - logits(base.path)).abs().max() > 1e-2


def test_merged_adapter_is_a_checkpoint_that_engines_of_its_base_take(
    base: ModelSpec, plain: Path, tmp_path: Path
) -> None:
    merged = merge_adapter(base, plain, tmp_path)

    model = dataclasses.replace(base, name="tuned", path=str(merged.directory), revision=merged.revision)
    check_revision(model)
    check_same_shape(shape_of(base.path), shape_of(merged.directory))
    assert inspect_model(merged.directory).context_len == 192
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (merged.directory / name).read_bytes() == (Path(base.path) / name).read_bytes()
    assert names(merged.directory / "adapter") == ["adapter_config.json", "adapter_model.safetensors"]
    assert [name for name in names(tmp_path) if name.endswith(".tmp") or "/state" in name] == []


def test_merge_in_bfloat16_keeps_the_precision_of_the_base(tmp_path: Path) -> None:
    half = write_base(tmp_path / "base", dtype=torch.bfloat16)
    adapter = write_adapter(tmp_path / "adapter", half.path)

    merged = merge_adapter(half, adapter, tmp_path / "merged")

    assert inspect_model(merged.directory).dtype == "bfloat16"
    deviation = (logits(merged.directory) - logits(half.path, adapter)).abs().max()
    assert deviation < 0.05 * (logits(half.path, adapter) - logits(half.path)).abs().max()


def test_merge_again_takes_what_is_there_also_from_another_place(
    base: ModelSpec, adapter: Path, tmp_path: Path
) -> None:
    first = merge_adapter(base, adapter, tmp_path / "merged")
    written = (first.directory / "model.safetensors").stat()
    moved = adapter.rename(tmp_path / "elsewhere")
    (moved / "training_args.bin").write_bytes(b"of a trainer, and never read")

    assert merge_adapter(base, moved, tmp_path / "merged") == first
    assert (first.directory / "model.safetensors").stat() == written


def test_merges_of_one_adapter_at_the_same_time_are_one(base: ModelSpec, plain: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(merge_adapter, base, plain, tmp_path) for _ in range(3)]

    assert len({merged.result() for merged in found}) == 1
    assert [name for name in names(tmp_path) if name.endswith(".tmp")] == []


def test_merge_of_other_weights_or_into_another_base_is_another_model(
    base: ModelSpec, plain: Path, tmp_path: Path
) -> None:
    other_base = write_base(tmp_path / "base", attention_bias=True, rms_norm_eps=1e-5)
    other = write_adapter(tmp_path / "adapter", base.path, seed=3)

    found = [merge_adapter(*pair, tmp_path / "merged") for pair in ((base, plain), (base, other), (other_base, plain))]

    assert len({merged.directory for merged in found}) == len({merged.revision for merged in found}) == 3


@pytest.mark.parametrize("left", ["nothing that counts", "a cut file"])
def test_what_a_killed_merge_left_is_made_anew(base: ModelSpec, plain: Path, tmp_path: Path, left: str) -> None:
    whole = merge_adapter(base, plain, tmp_path)
    if left == "a cut file":
        file = whole.directory / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-4])
    else:
        (whole.directory / CHECKPOINT_FILE).unlink()
        shutil.copytree(whole.directory, tmp_path / f".{whole.directory.name}.tmp")

    assert merge_adapter(base, plain, tmp_path) == whole

    torch.testing.assert_close(logits(whole.directory), logits(base.path, plain), rtol=1e-4, atol=1e-5)
    assert not (tmp_path / f".{whole.directory.name}.tmp").exists()


def remove(name: str) -> Callable[[Path], None]:
    return lambda adapter: (adapter / name).unlink()


def configure(**fields: Any) -> Callable[[Path], None]:
    return lambda adapter: rewrite_config(adapter, **fields) and None


def cut(adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


def pickle(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")


def change_tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def apply(adapter: Path) -> None:
        tensors = load_file(adapter / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, adapter / "adapter_model.safetensors", metadata={"format": "pt"})

    return apply


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (pickle, "adapter_model.bin: a pickled file can run code"),
        (remove("adapter_model.safetensors"), "adapter_model.safetensors: missing"),
        (cut, "adapter_model.safetensors: .* cut off or damaged"),
        (change_tensors(dict.clear), "adapter_model.safetensors: holds no tensor"),
        (change_tensors(lambda t: t.pop(FIRST)), r"lacks .*layers.0.self_attn.q_proj.lora_A.*, which adapter_config"),
        (
            change_tensors(lambda t: t.update({FIRST.replace("q_proj", "qkv_proj"): torch.zeros(4, 32)})),
            "has .*qkv_proj.*, which base has no place for",
        ),
        (configure(r=5), r"adapter/adapter_model.safetensors: .*lora_A.* has shape \[4, \d+\], with base it is \[5, "),
        (change_tensors(lambda t: t[FIRST].fill_(float("nan"))), "cannot be merged into base: ValueError: NaNs"),
        (configure(peft_type="IA3"), "peft_type: got 'IA3', allowed: 'LORA'"),
        (configure(task_type="SEQ_CLS"), "task_type: got 'SEQ_CLS', allowed: 'CAUSAL_LM'"),
        (configure(alora_invocation_tokens=[5]), r"alora_invocation_tokens: got \[5\], allowed: null"),
        (configure(layer_replication=[[0, 2]]), "layer_replication: got .*, allowed: null"),
        (configure(init_lora_weights="pissa_niter_4"), "init_lora_weights: got 'pissa_niter_4', allowed: null, true"),
        (configure(init_lora_weights="lora_ga"), "init_lora_weights: got 'lora_ga', allowed: .*, mica, with which"),
        (configure(init_lora_weights="tomorrow"), "init_lora_weights: got 'tomorrow', allowed: null, true, false, "),
        (configure(init_lora_weights=1), "init_lora_weights: got 1, allowed: null, true, false, gaussian, eva"),
        (configure(rank_pattern={"(": 3}), r"rank_pattern: got '\(', allowed: a regular expression; missing \)"),
        (configure(exclude_modules="((("), r"exclude_modules: got '\(\(\(', allowed: a regular expression; missing"),
        (configure(modules_to_save=["("]), r"adapter: cannot be merged into base: error: missing \)"),
        (configure(rank_pattern=5), "adapter: cannot be merged into base: AttributeError: 'int' object has no"),
        (configure(r=10**12), r"lora_A.* has shape \[4, \d+\], with base it is \[1000000000000, "),
        (
            configure(rank_pattern={"k_proj": 10**12}, init_lora_weights="orthogonal"),
            r"k_proj.lora_A.* has shape \[4, 32\], with base it is \[1000000000000, 32\]",
        ),
        (configure(use_tomorrow=True), "use_tomorrow: got True, a field that peft .* does not know; allowed: null"),
        (configure(target_modules=["nowhere"]), r"adapter: cannot be merged into base: .*Target modules .*nowhere"),
    ],
)
def test_adapter_that_cannot_be_merged_is_refused_and_leaves_nothing(
    base: ModelSpec, adapter: Path, tmp_path: Path, breaking: Callable[[Path], None], message: str
) -> None:
    breaking(adapter)

    with pytest.raises(InvalidInput, match=message):
        merge_adapter(base, adapter, tmp_path / "merged")

    assert [name for name in names(tmp_path) if name.startswith("merged/") and not name.endswith(".lock")] == []


def test_adapter_on_a_base_of_another_size_is_refused_naming_both_shapes(plain: Path, tmp_path: Path) -> None:
    wide = write_base(tmp_path / "base", hidden_size=48, attention_bias=True)

    with pytest.raises(InvalidInput, match=r"lora_B.weight has shape \[32, 4\], with base it is \[48, 4\]"):
        merge_adapter(wide, plain, tmp_path / "merged")


def write_mixture(directory: Path) -> ModelSpec:
    config = Qwen3MoeConfig(
        vocab_size=114,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        max_position_embeddings=192,
    )
    other = write_base(directory)
    AutoModelForCausalLM.from_config(config).save_pretrained(other.path)
    return dataclasses.replace(other, revision=inspect_model(other.path).revision)


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys")
def test_merged_adapter_on_experts_computes_what_it_computes_beside_its_base(tmp_path: Path) -> None:
    base = write_mixture(tmp_path / "base")
    adapter = write_adapter(
        tmp_path / "adapter", base.path, target_modules=[*ATTENTION, "gate_proj", "up_proj", "down_proj"], scale=0.1
    )

    merged = merge_adapter(base, adapter, tmp_path / "merged")

    beside = logits(base.path, adapter)
    torch.testing.assert_close(logits(merged.directory), beside, rtol=1e-4, atol=1e-5)
    assert (beside - logits(base.path)).abs().max() > 1e-2


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
@pytest.mark.parametrize("layer", ["embed_tokens", "lm_head"])
@pytest.mark.parametrize("way", ["target_modules", "modules_to_save"])
def test_adapter_on_the_embedding_that_is_also_the_head_is_refused(
    base: ModelSpec, tmp_path: Path, way: str, layer: str
) -> None:
    fields: dict[str, Any] = {"target_modules": ["q_proj"], "modules_to_save": []}
    fields[way] += [layer]
    adapter = write_adapter(tmp_path / "adapter", base.path, **fields)

    with pytest.raises(
        InvalidInput, match=f"{adapter}/adapter_config.json: changes the embedding .* one matrix in base"
    ):
        merge_adapter(base, adapter, tmp_path / "merged")


def test_adapter_on_a_base_of_another_architecture_is_refused(plain: Path, tmp_path: Path) -> None:
    other = write_mixture(tmp_path / "base")

    with pytest.raises(InvalidInput, match=r"has .*mlp.*lora_A.*, which base has no place for"):
        merge_adapter(other, plain, tmp_path / "merged")


def test_base_that_holds_its_tied_embedding_twice_takes_an_adapter(
    base: ModelSpec, plain: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(base.path, tmp_path / "base")
    tensors = load_file(directory / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    twice = dataclasses.replace(base, path=str(directory), revision=inspect_model(directory).revision)

    merged = merge_adapter(twice, plain, tmp_path / "merged")

    torch.testing.assert_close(logits(merged.directory), logits(base.path, plain), rtol=1e-4, atol=1e-5)


def test_merge_with_other_tensors_than_its_base_is_refused_and_leaves_nothing(
    base: ModelSpec, plain: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(base.path, tmp_path / "base")
    tensors = load_file(directory / "model.safetensors")
    save_file(tensors | {"one.more": torch.zeros(1)}, directory / "model.safetensors", metadata={"format": "pt"})
    more = dataclasses.replace(base, path=str(directory), revision=inspect_model(directory).revision)

    with pytest.raises(InvalidInput, match=r"makes another model than base, whose .*: merged weights lack one.more"):
        merge_adapter(more, plain, tmp_path / "merged")
    assert [name for name in names(tmp_path / "merged") if not name.endswith(".lock")] == []


@pytest.mark.parametrize("changed", ["generation_config.json", "model.safetensors"])
def test_merge_again_after_the_base_has_changed_is_refused_and_keeps_what_was_merged(
    base: ModelSpec, plain: Path, tmp_path: Path, changed: str
) -> None:
    directory = shutil.copytree(base.path, tmp_path / "base")
    here = dataclasses.replace(base, path=str(directory))
    merged = merge_adapter(here, plain, tmp_path / "merged")
    if changed == "generation_config.json":
        (directory / changed).write_text(json.dumps({"eos_token_id": [2, 0]}))
    else:
        (directory / changed).unlink()

    with pytest.raises(InvalidInput, match=r"was merged before and is kept; .*base/?.*(end at tokens|missing)"):
        merge_adapter(here, plain, tmp_path / "merged")

    check_revision(dataclasses.replace(base, path=str(merged.directory), revision=merged.revision))
    torch.testing.assert_close(logits(merged.directory), logits(base.path, plain), rtol=1e-4, atol=1e-5)


def test_merge_removes_what_killed_merges_of_other_adapters_left(base: ModelSpec, plain: Path, tmp_path: Path) -> None:
    for address in ("killed", "running"):
        (tmp_path / f".{address}.tmp" / "made").mkdir(parents=True)
    with (tmp_path / ".running.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        merged = merge_adapter(base, plain, tmp_path)

    left = [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"]
    assert sorted(left) == [".running.tmp", merged.directory.name]


@pytest.mark.filterwarnings("ignore:.* eva", "ignore:.*'eva'")
@pytest.mark.parametrize("begun", [None, True, False, "gaussian", "eva", "orthogonal", "mica"])
def test_ways_to_begin_a_training_that_are_taken_leave_the_base_as_it_was(base: ModelSpec, begun: Any) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}

    config = LoraConfig(r=4, target_modules=ATTENTION, task_type="CAUSAL_LM", init_lora_weights=begun)
    after = get_peft_model(model, config).unload().state_dict()  # type: ignore[operator]

    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_quantized_base_is_refused(base: ModelSpec, plain: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(base.path, tmp_path / "base")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))

    with pytest.raises(InvalidInput, match="quantization_config: got quantized weights, allowed: a base of floating"):
        merge_adapter(dataclasses.replace(base, path=str(directory)), plain, tmp_path / "merged")


def test_base_whose_files_have_changed_is_refused(base: ModelSpec, plain: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(base.path, tmp_path / "base")
    change_base = load_file(directory / "model.safetensors")
    change_base["model.norm.weight"] += 1
    save_file(change_base, directory / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(InvalidInput, match=r"is revision sha256:.*, base was registered as sha256:"):
        merge_adapter(dataclasses.replace(base, path=str(directory)), plain, tmp_path / "merged")


def test_adapter_of_an_adapter_is_merged_into_what_that_one_made(base: ModelSpec, plain: Path, tmp_path: Path) -> None:
    first: Merged = merge_adapter(base, plain, tmp_path / "merged")
    middle = dataclasses.replace(base, path=str(first.directory), revision=first.revision, base="base")
    second = write_adapter(tmp_path / "adapter", first.directory, seed=5)

    merged = merge_adapter(middle, second, tmp_path / "merged")

    torch.testing.assert_close(logits(merged.directory), logits(first.directory, second), rtol=1e-4, atol=1e-5)
