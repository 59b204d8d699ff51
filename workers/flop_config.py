"""The configs that a model's cost can be traced from, and the plain model that each stands for.

Owns what is read of a config.json and what is refused by name before anything is built: composite models, encoders,
layers with another attention. Invariant: only local JSON is read, no code of a model directory is run, and what is left
out for the trace (quantization, rope scaling) changes no matrix product. Must not import ray or vllm.
"""

import copy
import difflib
import json
from pathlib import Path
from typing import Any, cast

import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from service.errors import InvalidInput

# What transformers and torch raise on a config whose fields contradict each other or that cannot run on fake tensors.
MODEL_ERRORS = (
    StrictDataclassError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    ImportError,
    ArithmeticError,
)
_COUNTS = (
    "num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size",
    "vocab_size", "max_position_embeddings", "n_layer", "n_layers", "n_embd", "n_head", "n_heads", "n_positions",
)  # fmt: skip
"""Fields that no model has fewer than one of, by the names that families use."""

_DENSE_LAYER_TYPES = frozenset({"full_attention", "sliding_attention"})


def load_config(config_path_or_dir: Path) -> PretrainedConfig:
    """The config, read from local JSON alone: no hub, no code from the model directory.

    Raises:
        InvalidInput: if the file is missing or no config of a causal language model this version of transformers knows.
    """
    path = config_path_or_dir / "config.json" if config_path_or_dir.is_dir() else config_path_or_dir
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"cannot read model config {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"model config {path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"model config {path} must be a JSON object, got {type(document).__name__}")
    fields = cast("dict[str, Any]", document)
    model_type = fields.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise InvalidInput(_unknown_model_type(path, model_type))
    for name in _COUNTS:
        if isinstance(count := fields.get(name), int) and count < 1:
            raise InvalidInput(f"model config {path}: {name}: got {count}, allowed: at least 1")
    fields.pop("auto_map", None)  # it names Python files of the model directory
    try:
        return CONFIG_MAPPING[model_type].from_dict(fields)
    except MODEL_ERRORS as error:
        raise InvalidInput(f"model config {path} is not a valid {model_type} config: {error}") from error


def plain_config(config: PretrainedConfig) -> PretrainedConfig:
    """A copy that builds the plain bf16 model; refuses what is not one decoder-only text model."""
    model_type = config.model_type
    if config.sub_configs:
        parts = ", ".join(sorted(config.sub_configs))
        raise InvalidInput(f"model type {model_type!r} is composite ({parts}); only plain text models can be traced")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or config.is_encoder_decoder:
        raise InvalidInput(f"model type {model_type!r} is not a decoder-only causal language model")
    if model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False):
        raise InvalidInput(
            f"model type {model_type!r} is an encoder, which completes no prompt; allowed: decoder-only causal "
            "language models, such as llama, qwen2 or gpt2"
        )
    other_types = set(getattr(config, "layer_types", None) or ()) - _DENSE_LAYER_TYPES
    if other_types or getattr(config, "attention_chunk_size", None) is not None:
        got = ", ".join(sorted(other_types)) or "chunked_attention"
        raise InvalidInput(
            f"model type {model_type!r} has layers of type {got}; allowed: {', '.join(sorted(_DENSE_LAYER_TYPES))}"
        )
    config = copy.deepcopy(config)
    if hasattr(config, "quantization_config"):
        # Quantised weights run through kernels without a formula; the products they stand for are the plain ones.
        delattr(config, "quantization_config")
    # The default, grouped products: the expert loops of some callers' configs need the routing itself, not its shape.
    config._experts_implementation = None
    _plain_rope(getattr(config, "rope_parameters", None))
    return config


def _plain_rope(rope_parameters: object) -> None:
    """Drops rope scaling in place: it reads token positions, which fake tensors lack, and changes no product."""
    if not isinstance(rope_parameters, dict):
        return
    parameters = cast("dict[str, Any]", rope_parameters)
    if "rope_type" in parameters:
        parameters["rope_type"] = "default"
    for value in parameters.values():  # one dict per layer type in some families
        _plain_rope(value)


def _unknown_model_type(path: Path, model_type: object) -> str:
    known = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    close = difflib.get_close_matches(str(model_type), known, n=5, cutoff=0.5) or ["llama", "mistral", "qwen2"]
    return (
        f"model config {path}: model_type {model_type!r} is unknown; transformers {transformers.__version__} knows "
        f"{len(known)} causal language models, e.g. {', '.join(close)}"
    )
