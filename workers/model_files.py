"""Checks a model directory before it is registered, and fingerprints it.

Owns what counts as a loadable model: configuration of a known family, complete safetensors, a tokenizer, nothing
pickled. Invariant: no code of the directory is run and no tensor is loaded; only headers are read, and every file once
for the fingerprint. Must not import ray, vllm or torch.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import InvalidInput
from service.sampling import ModelSampling
from service.shards import file_sha256

_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_HASHED = {".json", ".safetensors", ".model", ".txt", ".jinja"}
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"), ("vocab.txt",))
_CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_LONGEST_HEADER_BYTES = 100_000_000  # the format's own limit
# bits of one element, by the names of the safetensors format
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64,
}  # fmt: skip


_SAMPLING_RANGES: dict[str, tuple[str, Callable[[float], bool]]] = {
    "top_p": ("a number above 0 and up to 1", lambda value: 0 < value <= 1),
    "top_k": ("a whole number from 0, or -1", lambda value: 0 <= value < 1 << 31 and value == int(value)),
    "min_p": ("a number from 0 to 1", lambda value: 0 <= value <= 1),
    "repetition_penalty": ("a number above 0 and below 1,000", lambda value: 0 < value < 1000),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """What the files of a model say.

    Args:
        model_type: architecture family.
        context_len: most tokens of prompt and completion together [tokens].
        dtype: of the weights, as the configuration names it, or "auto" where it does not.
        revision: "sha256:<hex>" over names and contents of the files that decide what the model computes.
        weight_bytes: size of all safetensors files [bytes].
        sampling: what generation_config.json says; nothing where it does not exist.
    """

    model_type: str
    context_len: int
    dtype: str
    revision: str
    weight_bytes: int
    sampling: ModelSampling


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerFiles:
    """What is known here of a model whose weights are elsewhere.

    Args:
        revision: over names and contents of the files.
        context_len: of config.json; None where that does not exist [tokens].
        sampling: what generation_config.json says; nothing where it does not exist.
    """

    revision: str
    context_len: int | None
    sampling: ModelSampling


def inspect_tokenizer(path: str | Path) -> TokenizerFiles:
    """Checks a directory with a tokenizer, and perhaps a configuration, and says what is in it.

    Raises:
        InvalidInput: a file is missing, damaged, of an unknown kind or pickled; the message names it.
    """
    directory = Path(path)
    _check_not_pickled(directory)
    _check_tokenizer(directory)
    context_len = None
    if (directory / "config.json").is_file():
        config = read_object(directory / "config.json")
        _model_type(directory, config)
        context_len = _context_len(directory, config)
    return TokenizerFiles(
        revision=_fingerprint(directory),
        context_len=context_len,
        sampling=_sampling(directory / "generation_config.json"),
    )


def _check_tokenizer(directory: Path) -> None:
    if not any(all((directory / name).is_file() for name in names) for names in _TOKENIZERS):
        allowed = "; ".join(" with ".join(names) for names in _TOKENIZERS)
        raise InvalidInput(f"{directory}: no tokenizer; one of these is needed: {allowed}")


def inspect_model(path: str | Path) -> ModelFiles:
    """Checks the directory and says what is in it.

    Raises:
        InvalidInput: a file is missing, damaged, of an unknown kind or pickled; the message names it.
    """
    directory = Path(path)
    if not directory.is_dir():
        raise InvalidInput(f"{directory}: no such directory; a model is a directory with config.json and safetensors")
    _check_not_pickled(directory)
    config = read_object(directory / "config.json")
    model_type = _model_type(directory, config)
    weights = check_weights(directory)
    _check_tokenizer(directory)
    return ModelFiles(
        model_type=model_type,
        context_len=_context_len(directory, config),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "auto"),
        revision=_fingerprint(directory),
        weight_bytes=sum(file.stat().st_size for file in weights),
        sampling=_sampling(directory / "generation_config.json"),
    )


def _sampling(path: Path) -> ModelSampling:
    """The authors' defaults; ones that no engine takes are refused here, not by every job."""
    if not path.is_file():
        return ModelSampling()
    config = read_object(path)
    values: dict[str, Any] = {}
    for name, (allowed, is_allowed) in _SAMPLING_RANGES.items():
        value = config.get(name)
        if value is None:
            continue
        if name == "top_k" and value == -1:  # vLLM's word for all tokens
            value = 0
        if isinstance(value, bool) or not isinstance(value, int | float) or not is_allowed(value):
            raise InvalidInput(f"{path}: {name}: got {value!r}, allowed: {allowed}")
        values[name] = int(value) if name == "top_k" else float(value)
    return ModelSampling(**values)


def _check_not_pickled(directory: Path) -> None:
    for file in sorted(directory.iterdir()):
        if file.suffix.lower() in _PICKLED:
            raise InvalidInput(f"{file}: a pickled file can run code when it is loaded; only safetensors are accepted")


def _model_type(directory: Path, config: dict[str, Any]) -> str:
    from transformers import CONFIG_MAPPING, __version__

    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise InvalidInput(
            f"{directory / 'config.json'}: model_type is {model_type!r}, which is none of the {len(CONFIG_MAPPING)} "
            f"families that transformers {__version__} knows"
        )
    return model_type


def _context_len(directory: Path, config: dict[str, Any]) -> int:
    for section in (config, config.get("text_config")):
        for name in _CONTEXT_FIELDS:
            if isinstance(section, dict) and isinstance(found := section.get(name), int) and found > 0:
                return found
    raise InvalidInput(f"{directory / 'config.json'}: no context length; one of {', '.join(_CONTEXT_FIELDS)} is needed")


def check_weights(directory: Path) -> list[Path]:
    """Every safetensors file that is loaded, checked.

    Raises:
        InvalidInput: one is missing or damaged; the message names it.
    """
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        files = sorted(directory.glob("*.safetensors"))
        if not files:
            raise InvalidInput(f"{directory / 'model.safetensors'}: missing; only safetensors are loaded")
        for file in files:
            read_tensors(file)
        return files
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InvalidInput(f"{index}: has no weight_map")
    names: dict[str, set[str]] = {}
    for tensor, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise InvalidInput(f"{index}: {tensor} is in {file!r}, which is no file name in this directory")
        names.setdefault(file, set()).add(tensor)
    for file, tensors in sorted(names.items()):
        if missing := tensors - read_tensors(directory / file).keys():
            raise InvalidInput(f"{directory / file}: lacks {min(missing)}, which {index.name} says is in it")
    return [directory / file for file in sorted(names)]


def read_tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of the tensors in a file by name, from its header alone.

    Raises:
        InvalidInput: the file is missing, or its header and its length do not agree.
    """
    if not path.is_file():
        raise InvalidInput(f"{path}: missing")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER_BYTES):
            raise InvalidInput(f"{path}: header of {length} bytes does not fit a file of {size} bytes; it is cut off")
        header = _parse_object(path, file.read(length))
    header.pop("__metadata__", None)
    end = max((_check_tensor(path, name, tensor) for name, tensor in header.items()), default=0)
    if 8 + length + end != size:
        raise InvalidInput(f"{path}: {size} bytes long, its header says {8 + length + end}; it is cut off or damaged")
    return {name: (tensor["dtype"], tuple(tensor["shape"])) for name, tensor in header.items()}


def _check_tensor(path: Path, name: str, tensor: Any) -> int:
    """Where the tensor's bytes end, counted from the end of the header."""
    try:
        begin, end = tensor["data_offsets"]
        bits = math.prod(tensor["shape"]) * _BITS[tensor["dtype"]]
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidInput(f"{path}: header entry of {name} is damaged: {tensor!r:.200}") from error
    if (end - begin) * 8 != bits:
        raise InvalidInput(f"{path}: {name} has {end - begin} bytes, shape {tensor['shape']} needs {bits // 8}")
    return end


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InvalidInput: there is no such file, or something else in it.
    """
    if not path.is_file():
        raise InvalidInput(f"{path}: missing")
    return _parse_object(path, path.read_bytes())


def _parse_object(path: Path, data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise InvalidInput(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{path}: must hold a JSON object, got {type(document).__name__}")
    return document


def _fingerprint(directory: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(directory.iterdir()):
        if file.is_file() and file.suffix in _HASHED and not file.name.startswith("."):
            digest.update(f"{file.name}\0{file_sha256(file)}\n".encode())
    return f"sha256:{digest.hexdigest()}"
