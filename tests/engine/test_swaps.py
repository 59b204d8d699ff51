"""Checkpoints swapped in a real engine: each is drawn as by an engine of its own, and broken ones change nothing."""

import json
import re
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.engine.drive_engine import model_spec
from tests.engine.own_process import drive
from tests.engine.tiny_llama import CHARACTERS, build_model, perturb
from workers.prepared import write_prepared

PROMPT_TOKENS = 150  # more than one block of keys and values, which is 128 tokens on a CPU
STREAM = {
    "base.1": "base",
    "tuned.1": "tuned",
    "base.2": "base",
    "tuned.2": "tuned",
    "cut.1": "cut",
    "gone.1": "gone",
    "wide.1": "wide",
    "tuned.3": "tuned",
    # its files are whole, and torch finds while loading them that it has no such type
    "strange.1": "strange",
    "tuned.4": "tuned",
    "base.3": "base",
}


def cut(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


def repeat_embedding(directory: Path) -> None:
    """Some models come with their tied embedding a second time; what trainers save of them has it once."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(directory / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def widen(directory: Path) -> None:
    build_model(directory, intermediate_size=128)


def make_strange(directory: Path) -> None:
    """Declares the last tensor to be of a type that the format knows and torch does not."""
    file = directory / "model.safetensors"
    data = file.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:end])
    name, tensor = max(header.items(), key=lambda item: item[1].get("data_offsets", [0])[0])
    size = tensor["data_offsets"][1] - tensor["data_offsets"][0]
    header[name] = {**tensor, "dtype": "F6_E2M3"}
    smaller = size // 4 * 6 // 8
    header[name]["data_offsets"][1] = tensor["data_offsets"][0] + smaller
    encoded = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data[end : len(data) - size + smaller])


def prepare_prompts(folder: Path) -> None:
    rng = np.random.default_rng(0)
    token_ids = [rng.integers(3, len(CHARACTERS), PROMPT_TOKENS).tolist() for _ in range(40)]
    write_prepared(
        out_dir=folder / "prepared",
        prompt_id="0" * 16,
        problem_ids=[f"p{i}" for i in range(40)],
        prompts=[f"prompt {i}" for i in range(40)],
        token_ids=token_ids,
        max_tokens=[24] * 40,
        errors=[None] * 40,
        facts={},
    )


def drive_swaps(folder: Path, first: str, attempts: dict[str, str]) -> dict[str, Any]:
    pairs = [f"{name}={model}" for name, model in attempts.items()]
    return drive("drive_swaps.py", model_spec(folder / first), folder, first, *pairs)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """The folder, what one engine made of the stream, and what an engine that began with the checkpoint drew."""
    folder = tmp_path_factory.mktemp("swaps")
    build_model(folder / "base")
    perturb(folder / "base", 1)
    for name, change in (
        ("tuned", lambda directory: perturb(directory, 2)),
        ("cut", cut),
        ("wide", widen),
        ("strange", make_strange),
    ):
        shutil.copytree(folder / "base", folder / name)
        change(folder / name)
    repeat_embedding(folder / "base")
    prepare_prompts(folder)
    return folder, drive_swaps(folder, "base", STREAM), drive_swaps(folder, "tuned", {"fresh.1": "tuned"})


def texts(found: dict[str, Any], name: str) -> dict[tuple[int, int], str]:
    rows = [row for path in found["attempts"][name]["parts"] for row in pq.read_table(path).to_pylist()]
    assert len(rows) == 80
    return {(row["problem_index"], row["sample_index"]): row["completion"] for row in rows}


@pytest.mark.engine
def test_swapped_checkpoint_draws_what_an_engine_of_its_own_draws(
    world: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    _, stream, fresh = world

    expected = texts(fresh, "fresh.1")
    for name in ("tuned.1", "tuned.2", "tuned.3", "tuned.4"):
        assert texts(stream, name) == expected
    base = texts(stream, "base.1")
    assert texts(stream, "base.2") == texts(stream, "base.3") == base
    assert sum(base[key] != expected[key] for key in base) > 40


@pytest.mark.engine
def test_swap_drops_the_keys_and_values_of_the_old_weights(
    world: tuple[Path, dict[str, Any], dict[str, Any]],
) -> None:
    _, stream, _ = world

    for name in ("base.1", "tuned.1"):
        paths = stream["attempts"][name]["parts"]
        rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
        # the first sample of a prompt finds nothing, though the base has drawn from it; the second may find the first's
        assert {row["cached_tokens"] for row in rows if row["sample_index"] == 0} == {0}
        assert max(row["cached_tokens"] for row in rows) > 0


@pytest.mark.engine
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.1", "cut/model.safetensors: .* cut off"),
        ("gone.1", "gone: no such directory"),
        ("wide.1", "wide: weights have .*mlp.* of shape"),
        ("strange.1", "strange: vLLM cannot load these weights"),
    ],
)
def test_weights_that_cannot_be_loaded_fail_their_attempt_and_leave_the_engine_as_it_was(
    world: tuple[Path, dict[str, Any], dict[str, Any]], name: str, message: str
) -> None:
    _, stream, _ = world

    attempt = stream["attempts"][name]
    assert (attempt["state"], attempt["is_retriable"], attempt["parts"]) == ("failed", False, [])
    assert re.search(message, attempt["error"])
