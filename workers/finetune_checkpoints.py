"""Turns what the training library saves, or an adapter, into a checkpoint that engines load and a run goes on from.

Owns the layout of a checkpoint directory. At the top a model like its base: the base's own configuration, generation
settings and tokenizer, byte for byte, and weights in the base's precision. In `adapter/` the adapters, if some were
trained; their top level is the base with them merged in, for not every engine takes adapters, and a comparison should
not depend on how they are applied. In `state/` what only a resumed run needs: optimizer, schedule, random numbers, and
trained weights in float32 if those at the top are not. Nothing pickled lies at the top. Attempts at a run lie side by
side and are called `<task>.<number>`: together they keep the states of their two newest checkpoints, one to go on from
and one for when that is damaged. Must not import ray or vllm.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from service.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from service.checkpoints import (
    CHECKPOINT_FILE,
    STATE_DIRECTORY,
    check_files,
    checkpoint_step,
    read_document,
    write_checkpoint,
)
from service.errors import CorruptFile, InvalidInput
from service.models import ModelSpec
from service.receipts import Receipt
from service.work import FinetuneWork
from workers.finetune_model import served_dtype, write_merged

_ADAPTER_DIRECTORY = "adapter"
_STATE_FILES = ("optimizer.pt", "scheduler.pt", "scaler.pt", "trainer_state.json", "rng_state*.pth")
_ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
_WEIGHT_FILES = ("model*.safetensors", "model.safetensors.index.json")
_DESCRIPTION_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.jinja",
)
_STATES_KEPT = 2
"""Newest checkpoints of a run whose `state/` is kept: it is three times as large as the model."""


def publish(saved: Path, final: Path, base: ModelSpec, receipt: Receipt, details: Mapping[str, Any]) -> Receipt:
    """Makes a checkpoint of a directory that the library saved, and returns its receipt with path and hash.

    Args:
        saved: what the library wrote, on the same file system as `final`; it is gone afterwards.
        details: what else `checkpoint.json` says.
    """
    state, adapter = saved / STATE_DIRECTORY, saved / _ADAPTER_DIRECTORY
    _move(saved, state, _STATE_FILES)
    if _found(saved, _ADAPTER_FILES):
        _move(saved, adapter, _ADAPTER_FILES)
        _remove_top(saved, keep=())
        write_merged(base, adapter, saved)
    elif (dtype := served_dtype(base)) != torch.float32:
        _round_weights(saved, state, dtype)
    _remove_top(saved, keep=_found(saved, _WEIGHT_FILES))
    for file in _found(Path(base.path), _DESCRIPTION_FILES):
        shutil.copyfile(file, saved / file.name)
    if final.exists():
        shutil.rmtree(final)  # left by a process that died before it counted
    saved.rename(final)
    return write_checkpoint(final, receipt, details)


def drop_old_states(out_dir: Path) -> None:
    """Removes what nobody will resume from, earlier attempts' included.

    Args:
        out_dir: of the attempt that trains now.
    """
    for directory in _with_state(out_dir)[:-_STATES_KEPT]:
        shutil.rmtree(directory / STATE_DIRECTORY, ignore_errors=True)


def find_whole(work: FinetuneWork, out_dir: Path, damaged: Path, identity: Mapping[str, Any]) -> Path | None:
    """Where a run goes on that cannot go on from `damaged`: its newest checkpoint before that one that is whole."""
    for directory in reversed(_with_state(out_dir)):
        if checkpoint_step(directory) < checkpoint_step(damaged):
            try:
                check_resumable(work, directory, identity)
            except (CorruptFile, InvalidInput):
                continue
            return directory
    return None


def check_resumable(work: FinetuneWork, checkpoint: Path, identity: Mapping[str, Any]) -> int:
    """The step after which a checkpoint was made, if this work can go on from it.

    Args:
        identity: what `checkpoint.json` has to say about base, data and training for the run to be the same.

    Raises:
        CorruptFile: a file is missing or is not what was written.
        InvalidInput: it belongs to another run.
    """
    document = read_document(checkpoint)
    if different := [name for name, wanted in identity.items() if document.get(name) != wanted]:
        raise InvalidInput(
            f"{checkpoint}: belongs to another run than {work.base.name} on {work.dataset_path}; "
            f"different: {', '.join(different)}"
        )
    check_files(checkpoint, document, with_state=True, with_hashes=True)
    return int(document["facts"]["step"])


def resume_directory(checkpoint: Path, view: Path) -> Path:
    """Lays out a checkpoint as the library wants it, by links in `view`."""
    view.mkdir(parents=True)
    state = checkpoint / STATE_DIRECTORY
    files = list(state.iterdir())
    if (checkpoint / _ADAPTER_DIRECTORY).is_dir():
        files += (checkpoint / _ADAPTER_DIRECTORY).iterdir()
    elif not _found(state, _WEIGHT_FILES):
        files += _found(checkpoint, _WEIGHT_FILES)
    for file in files:
        (view / file.name).symlink_to(file.resolve())
    return view


def _with_state(out_dir: Path) -> list[Path]:
    """Checkpoints that were resumable once: earlier attempts' before this one's, then in the order of their steps."""
    task, _, number = out_dir.name.rpartition(".")
    attempts = [out_dir]
    if number.isdigit():
        attempts = [out_dir.with_name(f"{task}.{earlier}") for earlier in range(1, int(number) + 1)]
    return [
        directory
        for attempt in attempts
        for directory in sorted(attempt.glob("checkpoint-*"), key=checkpoint_step)
        if (directory / CHECKPOINT_FILE).exists() and (directory / STATE_DIRECTORY).exists()
    ]


def _round_weights(saved: Path, state: Path, dtype: torch.dtype) -> None:
    """Moves trained weights to `state` and writes them again in the precision that engines load."""
    _move(saved, state, _WEIGHT_FILES)
    num_bytes = 0
    for file in _found(state, ("model*.safetensors",)):
        tensors = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
        num_bytes += sum(tensor.nbytes for tensor in tensors.values())
        save_file(tensors, saved / file.name, metadata={"format": "pt"})
    for file in _found(state, ("model.safetensors.index.json",)):
        index = json.loads(file.read_bytes())
        index["metadata"]["total_size"] = num_bytes
        (saved / file.name).write_text(json.dumps(index, indent=2))


def _found(directory: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for path in directory.glob(pattern) if path.is_file()})


def _move(source: Path, target: Path, patterns: tuple[str, ...]) -> None:
    for file in _found(source, patterns):
        target.mkdir(exist_ok=True)
        file.rename(target / file.name)


def _remove_top(directory: Path, keep: list[Path] | tuple[()]) -> None:
    for file in [path for path in directory.iterdir() if path.is_file() and path not in keep]:
        file.unlink()
