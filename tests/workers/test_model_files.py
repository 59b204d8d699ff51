"""Model directories, whole and broken in every way a download breaks."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from service.errors import InvalidInput
from service.sampling import ModelSampling
from workers.model_files import inspect_model


def write_weights(path: Path, names: tuple[str, ...] = ("a", "b")) -> None:
    header = {
        name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [24 * i, 24 * (i + 1)]} for i, name in enumerate(names)
    }
    encoded = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + b"\1" * (24 * len(names)))


def write_index(directory: Path, weight_map: dict[str, str]) -> None:
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    config = {"model_type": "llama", "max_position_embeddings": 192, "dtype": "bfloat16"}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text("{}")
    write_weights(directory / "model.safetensors")
    return directory


def test_inspect_whole_model_says_what_its_files_say(model: Path) -> None:
    files = inspect_model(model)

    assert (files.model_type, files.context_len, files.dtype) == ("llama", 192, "bfloat16")
    assert files.weight_bytes == (model / "model.safetensors").stat().st_size
    assert files.revision.startswith("sha256:")


def test_inspect_revision_follows_contents_and_not_the_place(model: Path, tmp_path: Path) -> None:
    first = inspect_model(model).revision
    (model / ".cache").write_text("no part of the model")
    moved = model.rename(tmp_path / "elsewhere")
    assert inspect_model(moved).revision == first

    data = bytearray((moved / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (moved / "model.safetensors").write_bytes(data)

    assert inspect_model(moved).revision != first


def test_inspect_sharded_weights_with_every_file_present_are_whole(model: Path) -> None:
    (model / "model.safetensors").unlink()
    write_weights(model / "model-1.safetensors", ("a", "b"))
    write_weights(model / "model-2.safetensors", ("c",))
    write_index(model, {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"})

    assert inspect_model(model).weight_bytes == sum(file.stat().st_size for file in model.glob("*.safetensors"))


def test_inspect_context_length_of_a_multimodal_model_is_its_text_part(model: Path) -> None:
    config = {"model_type": "gemma3", "text_config": {"max_position_embeddings": 77}}
    (model / "config.json").write_text(json.dumps(config))

    assert inspect_model(model).context_len == 77
    assert inspect_model(model).dtype == "auto"


def remove(name: str) -> Callable[[Path], None]:
    return lambda model: (model / name).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        (model / name).write_text(text)

    return change


def cut(model: Path) -> None:
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:-1])


def cut_header(model: Path) -> None:
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[:20])


def grow(model: Path) -> None:
    with (model / "model.safetensors").open("ab") as file:
        file.write(b"\0")


def reshape(model: Path) -> None:
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data.replace(b"[2, 3]", b"[2, 4]", 1))


def rename_dtype(model: Path) -> None:
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data.replace(b'"F32"', b'"F99"', 1))


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (remove("config.json"), "config.json: missing"),
        (write("config.json", "{"), "config.json: not readable as JSON"),
        (write("config.json", "[]"), "config.json: must hold a JSON object, got list"),
        (write("config.json", '{"model_type": "oracle"}'), "config.json: model_type is 'oracle'"),
        (write("config.json", "{}"), "config.json: model_type is None"),
        (write("config.json", '{"model_type": "llama"}'), "config.json: no context length"),
        (remove("model.safetensors"), "model.safetensors: missing"),
        (remove("tokenizer.json"), "no tokenizer"),
        (write("pytorch_model.bin", "x"), "pytorch_model.bin: a pickled file"),
        (write("rng.pt", "x"), "rng.pt: a pickled file"),
        (cut, "model.safetensors: .* long, its header says .* cut off"),
        (cut_header, "model.safetensors: header of .* cut off"),
        (grow, "model.safetensors: .* long, its header says"),
        (reshape, r"model.safetensors: a has 24 bytes, shape \[2, 4\] needs 32"),
        (rename_dtype, "model.safetensors: header entry of a is damaged"),
        (write("model.safetensors", ""), "model.safetensors: header"),
        (lambda m: write_index(m, {"a": "model.safetensors", "z": "gone.safetensors"}), "gone.safetensors: missing"),
        (lambda m: write_index(m, {"z": "model.safetensors"}), "model.safetensors: lacks z"),
        (lambda m: write_index(m, {"z": "../model.safetensors"}), "no file name in this directory"),
        (lambda m: write_index(m, {}), "model.safetensors.index.json: has no weight_map"),
    ],
)
def test_inspect_broken_model_is_refused_naming_the_file(
    model: Path, breaking: Callable[[Path], None], message: str
) -> None:
    breaking(model)

    with pytest.raises(InvalidInput, match=message):
        inspect_model(model)


def test_inspect_missing_directory_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere: no such directory"):
        inspect_model(tmp_path / "nowhere")


def test_model_sampling_is_what_its_generation_config_says(model: Path) -> None:
    assert inspect_model(model).sampling == ModelSampling()
    config = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.05}
    (model / "generation_config.json").write_text(json.dumps(config))
    assert inspect_model(model).sampling == ModelSampling(top_p=0.95, top_k=20, repetition_penalty=1.05)


@pytest.mark.parametrize(
    ("name", "value"), [("top_p", 0), ("top_p", "0.9"), ("top_k", 2.5), ("min_p", 2), ("min_p", True)]
)
def test_model_sampling_that_no_engine_takes_is_refused(model: Path, name: str, value: object) -> None:
    (model / "generation_config.json").write_text(json.dumps({name: value}))
    with pytest.raises(InvalidInput, match=rf"generation_config.json: {name}: got "):
        inspect_model(model)
