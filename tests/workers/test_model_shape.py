"""Which checkpoints may take the place of a model's weights, and which must be refused before an engine is touched."""

import dataclasses
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.checkpoints import write_checkpoint
from service.errors import InvalidInput
from service.models import ModelSpec
from service.receipts import Receipt, Usage
from tests.workers.generate_attempts import COST
from workers.model_shape import check_revision, check_same_shape, shape_of

Tensors = dict[str, tuple[str, list[int]]]
TENSORS: Tensors = {"embed": ("BF16", [4, 2]), "norm": ("BF16", [2])}
BYTES = {"BF16": 2, "F32": 4, "I32": 4}
CONFIG: dict[str, Any] = {"model_type": "llama", "hidden_size": 2, "num_attention_heads": 1, "eos_token_id": 2}


def write_model(directory: Path, *, tensors: Tensors = TENSORS, config: dict[str, Any] = CONFIG) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    write_json(directory / "tokenizer.json", {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": []})
    write_weights(directory / "model.safetensors", tensors)
    return directory


def write_weights(path: Path, tensors: Tensors) -> None:
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = BYTES[dtype] * (shape[0] if len(shape) == 1 else shape[0] * shape[1])
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + b"\1" * end)


def write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_model(tmp_path / "base")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return write_model(tmp_path / "other")


def weights(changes: Tensors) -> Callable[[Path], None]:
    return lambda other: write_weights(other / "model.safetensors", {**TENSORS, **changes})


def config(**changes: object) -> Callable[[Path], None]:
    return lambda other: write_json(other / "config.json", CONFIG | changes)


def file(name: str, document: dict[str, Any]) -> Callable[[Path], None]:
    return lambda other: write_json(other / name, document)


@pytest.mark.parametrize(
    "changing",
    [
        weights({"embed": ("F32", [4, 2])}),
        config(transformers_version="5.0", dtype="float32", use_cache=False, attention_dropout=0.1, pad_token_id=0),
        # a default that the base left out
        config(rms_norm_eps=1e-6),
        file("generation_config.json", {"eos_token_id": [2], "temperature": 0.3}),
        file(
            "tokenizer.json",
            {"model": {"vocab": {"b": 1, "a": 0}}, "added_tokens": [], "padding": {"strategy": "BatchLongest"}},
        ),
    ],
)
def test_checkpoint_that_differs_in_nothing_that_counts_is_accepted(
    base: Path, other: Path, changing: Callable[[Path], None]
) -> None:
    changing(other)

    check_same_shape(shape_of(base), shape_of(other))


@pytest.mark.parametrize(
    ("changing", "message"),
    [
        (weights({"embed": ("BF16", [8, 2])}), r"other: weights have embed of shape \[8, 2\], the engine has \[4, 2\]"),
        (weights({"lora": ("BF16", [2])}), "other: weights have lora, which .*base has not"),
        (weights({"norm": ("I32", [2])}), "other: weights have norm as I32, the engine as BF16"),
        (
            lambda other: write_weights(other / "model.safetensors", {"norm": ("BF16", [2])}),
            r"other: weights lack embed \(1 of 2 tensors\)",
        ),
        (
            lambda other: (other / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes()[:-1]),
            "other/model.safetensors: .*cut off",
        ),
        (lambda other: (other / "model.safetensors").unlink(), "other/model.safetensors: missing"),
        (config(rms_norm_eps=1e-3), "other/config.json: rms_norm_eps is 0.001, the engine runs with 1e-06"),
        (config(hidden_act="gelu"), "other/config.json: hidden_act is 'gelu'"),
        (config(model_type="oracle"), "other/config.json: transformers cannot read it"),
        (file("generation_config.json", {"eos_token_id": [2, 5]}), r"other: completions end at tokens \[2, 5\]"),
        (
            file("tokenizer.json", {"model": {"vocab": {"a": 1, "b": 0}}, "added_tokens": []}),
            "other/tokenizer.json: its tokens are not those of",
        ),
        (
            file(
                "tokenizer.json",
                {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "<pad>"}]},
            ),
            "other/tokenizer.json: its tokens are not those of",
        ),
        (lambda other: (other / "tokenizer.json").unlink(), "other: has no tokenizer file"),
    ],
)
def test_checkpoint_of_another_shape_is_refused_by_what_differs(
    base: Path, other: Path, changing: Callable[[Path], None], message: str
) -> None:
    changing(other)

    with pytest.raises(InvalidInput, match=message):
        check_same_shape(shape_of(base), shape_of(other))


def test_checkpoint_may_lack_what_its_base_holds_twice_and_have_no_head_of_its_own(tmp_path: Path, other: Path) -> None:
    twice = TENSORS | {"lm_head.weight": ("BF16", [4, 2]), "layers.0.rotary_emb.inv_freq": ("F32", [1])}
    tied, untied = CONFIG | {"tie_word_embeddings": True}, CONFIG | {"tie_word_embeddings": False}
    base = write_model(tmp_path / "base", tensors=twice, config=tied)
    write_json(other / "config.json", tied)
    check_same_shape(shape_of(base), shape_of(other))

    with pytest.raises(InvalidInput, match=r"weights have layers.0.rotary_emb.inv_freq, which .*other has not"):
        check_same_shape(shape_of(other), shape_of(base))
    for directory in (base, other):
        write_json(directory / "config.json", untied)
    with pytest.raises(InvalidInput, match=r"weights lack lm_head.weight"):
        check_same_shape(shape_of(base), shape_of(other))


def test_checkpoint_of_a_quantized_model_is_refused(tmp_path: Path) -> None:
    quantized = CONFIG | {"quantization_config": {"quant_method": "fp8"}}
    base, other = (write_model(tmp_path / name, config=quantized) for name in ("base", "other"))

    with pytest.raises(InvalidInput, match="quantized"):
        check_same_shape(shape_of(base), shape_of(other))


def test_checkpoint_that_is_not_the_registered_one_is_refused(other: Path) -> None:
    receipt = Receipt(part=0, path="", sha256="", rows=1, usage=Usage(), facts={"step": 5.0, "loss": 1.0})
    written = write_checkpoint(other, receipt, {})
    model = ModelSpec(
        name="run/step-5", path=str(other), revision=f"sha256:{written.sha256}", context_len=64, cost=COST, base="base"
    )
    check_revision(model)

    with pytest.raises(InvalidInput, match="run/step-5 was registered as sha256:0"):
        check_revision(dataclasses.replace(model, revision="sha256:0"))
    (other / "model.safetensors").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"other/model.safetensors: 0 bytes"):
        check_revision(model)


def test_model_directory_that_no_training_run_wrote_has_no_revision_to_check(other: Path) -> None:
    check_revision(ModelSpec(name="other", path=str(other), revision="sha256:0", context_len=64, cost=COST))
