"""Whether the weights of an engine may be swapped for those of a checkpoint.

Owns what "of the same shape" means. Invariant: after a swap nothing of the old model is left and nothing of the new one
is missing. An engine replaces numbers only: whatever else decides what a model computes (tensors, configuration, end of
sequence, vocabulary) has to be the same before, for vLLM keeps the old weights of a tensor that a checkpoint lacks and
says so in its log alone. The type of the weights may differ: they are cast to the one that the engine runs with. Reads
headers and small files, no tensor. Must not import vllm, torch or ray.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.checkpoints import CHECKPOINT_FILE, read_checkpoint
from service.errors import CorruptFile, InvalidInput
from service.models import ModelSpec
from workers.model_files import check_weights, read_object, read_tensors

_FLOATS = ("F", "BF")  # how the names of floating types begin in the safetensors format
# what a configuration says of its own making, of training, or of how the engine was told to compute anyway
_OF_NO_MATTER = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "pad_token_id"}
_TRAINING_ONLY = ("dropout", "pdrop", "initializer_")
_OUTPUT_HEAD = "lm_head.weight"
_COMPUTED_TABLES = ("rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached")
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What two models must share to run in one engine.

    Args:
        directory: where it was read, for messages.
        tensors: type and shape by name.
        config: the configuration as the installed transformers fills it up, less what does not matter.
        stop_tokens: ids that end a completion.
        vocabularies: a digest by the name of the file that the tokenizer has its tokens from.
    """

    directory: Path
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    config: dict[str, Any]
    stop_tokens: tuple[int, ...]
    vocabularies: dict[str, str]


def shape_of(path: str | Path) -> ModelShape:
    """Reads the shape of a model directory.

    Raises:
        InvalidInput: a file is missing or damaged; the message names it.
    """
    directory = Path(path)
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for file in check_weights(directory):
        tensors |= read_tensors(file)
    config = _config(directory)
    return ModelShape(
        directory=directory,
        tensors=tensors,
        config={name: value for name, value in config.items() if _matters(name)},
        stop_tokens=_stop_tokens(directory, config),
        vocabularies={name: _digest(directory / name) for name in _VOCABULARIES if (directory / name).is_file()},
    )


def check_revision(model: ModelSpec) -> None:
    """Raises InvalidInput unless a checkpoint of a training run is whole and the one that the model was registered as.

    Files are compared by size; directories that no training run wrote are not checked.
    """
    if not (Path(model.path) / CHECKPOINT_FILE).is_file():
        return
    try:
        found = f"sha256:{read_checkpoint(model.path).sha256}"
    except CorruptFile as error:
        raise InvalidInput(str(error)) from error
    if found != model.revision:
        raise InvalidInput(
            f"{model.path}: is revision {found[:19]}…, {model.name} was registered as {model.revision[:19]}…"
        )


def check_same_shape(base: ModelShape, other: ModelShape) -> None:
    """Raises InvalidInput, naming the file and the first difference, unless `other` can run in an engine of `base`."""
    if "quantization_config" in base.config:
        raise InvalidInput(f"{base.directory}: the weights of a quantized model cannot be swapped in its engine")
    _check_tensors(base, other)
    for name in sorted(base.config.keys() | other.config.keys()):
        if base.config.get(name) != other.config.get(name):
            raise InvalidInput(
                f"{other.directory / 'config.json'}: {name} is {other.config.get(name)!r:.100}, the engine runs with "
                f"{base.config.get(name)!r:.100} of {base.directory}"
            )
    if base.stop_tokens != other.stop_tokens:
        raise InvalidInput(
            f"{other.directory}: completions end at tokens {list(other.stop_tokens)}, those of the engine at "
            f"{list(base.stop_tokens)} ({base.directory})"
        )
    shared = base.vocabularies.keys() & other.vocabularies.keys()
    if not shared:
        raise InvalidInput(f"{other.directory}: has no tokenizer file of {sorted(base.vocabularies)} to compare")
    for name in sorted(shared):
        if base.vocabularies[name] != other.vocabularies[name]:
            raise InvalidInput(f"{other.directory / name}: its tokens are not those of {base.directory / name}")


def _check_tensors(base: ModelShape, other: ModelShape) -> None:
    where = f"{other.directory}: weights"
    absent = base.tensors.keys() - other.tensors.keys()
    if missing := sorted(name for name in absent if not _is_derived(name, base.config)):
        raise InvalidInput(f"{where} lack {missing[0]} ({len(missing)} of {len(base.tensors)} tensors)")
    if strange := sorted(other.tensors.keys() - base.tensors.keys()):
        raise InvalidInput(f"{where} have {strange[0]}, which {base.directory} has not")
    for name, (dtype, shape) in other.tensors.items():
        base_dtype, base_shape = base.tensors[name]
        if shape != base_shape:
            raise InvalidInput(f"{where} have {name} of shape {list(shape)}, the engine has {list(base_shape)}")
        if dtype != base_dtype and not (dtype.startswith(_FLOATS) and base_dtype.startswith(_FLOATS)):
            raise InvalidInput(f"{where} have {name} as {dtype}, the engine as {base_dtype}")


def _is_derived(name: str, config: dict[str, Any]) -> bool:
    """Whether engines load no such tensor: a tied embedding's copy, or a table that follows from the configuration."""
    return (name == _OUTPUT_HEAD and bool(config.get("tie_word_embeddings"))) or any(
        table in name for table in _COMPUTED_TABLES
    )


def _config(directory: Path) -> dict[str, Any]:
    read_object(directory / "config.json")
    from transformers import AutoConfig

    try:
        # as this release fills it up: a checkpoint is saved with defaults that its base may have left out
        return AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True).to_dict()
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InvalidInput(f"{directory / 'config.json'}: transformers cannot read it: {error}") from error


def _matters(name: str) -> bool:
    return name not in _OF_NO_MATTER and not any(word in name for word in _TRAINING_ONLY)


def _stop_tokens(directory: Path, config: dict[str, Any]) -> tuple[int, ...]:
    file = directory / "generation_config.json"
    generation = read_object(file) if file.is_file() else {}
    found = generation.get("eos_token_id", config.get("eos_token_id"))
    return tuple(sorted(found)) if isinstance(found, list) else () if found is None else (found,)


def _digest(file: Path) -> str:
    """Of the tokens alone where the format says which these are: trainers save padding and truncation with them."""
    data = file.read_bytes()
    if file.name == "tokenizer.json":
        document = read_object(file)
        model, added = document.get("model", {}), document.get("added_tokens", [])
        tokens = [model.get("vocab"), sorted(f"{token.get('id')} {token.get('content')}" for token in added)]
        data = json.dumps(tokens, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()
