"""Checks the directory of an adapter before it is merged, and fingerprints it.

Owns which forms of adapter are taken: those whose merged weights compute what the adapter computes beside its base,
each held to that by a test. Invariant: nothing pickled is read, and a field that the installed peft would pass over in
silence is refused by name. Reads headers, and its two files once for the fingerprint. Must not import ray or vllm.
"""

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any, cast

from service.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from service.errors import InvalidInput
from service.shards import file_sha256
from workers.model_files import read_object, read_tensors

_PICKLED_WEIGHTS = "adapter_model.bin"
_TASKS = (None, "CAUSAL_LM")
_OTHER_FORMS = (
    "alora_invocation_tokens", "arrow_config", "use_qalora", "use_bdlora", "kasa_config", "velora_config",
    "monteclora_config", "layer_replication", "megatron_config",
)  # fmt: skip
"""Fields of an adapter that depends on its input, changes what its base is, or was not tried."""

_INITS = ("gaussian", "eva", "orthogonal", "mica")
"""Ways to begin a training, beside true and false, that leave the base as it was. Others (pissa, olora, corda, loftq,
lora_ga, what a newer peft brings) change its weights too, and the adapter then belongs to a base that is nowhere."""

_PATTERNS = ("target_modules", "exclude_modules", "rank_pattern", "alpha_pattern")
"""Fields whose text, or whose keys, peft reads as regular expressions."""


def inspect_adapter(directory: Path) -> str:
    """Checks an adapter and returns its revision: "sha256:<hex>" over its configuration and weights.

    Raises:
        InvalidInput: a file is missing, damaged or pickled, or it is an adapter that cannot be merged; the message
            names the file and what is allowed.
    """
    if (directory / _PICKLED_WEIGHTS).exists():
        raise InvalidInput(
            f"{directory / _PICKLED_WEIGHTS}: a pickled file can run code when it is loaded; only safetensors are "
            "accepted"
        )
    config = read_object(directory / ADAPTER_CONFIG)
    _check_form(directory / ADAPTER_CONFIG, config)
    if not read_tensors(directory / ADAPTER_WEIGHTS):
        raise InvalidInput(f"{directory / ADAPTER_WEIGHTS}: holds no tensor")
    return adapter_revision(directory)


def adapter_revision(directory: Path) -> str:
    """The fingerprint of the two files that make an adapter; where they lie and what is beside them does not matter."""
    hashes = [f"{name}\0{file_sha256(directory / name)}\n" for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
    return f"sha256:{hashlib.sha256(''.join(hashes).encode()).hexdigest()}"


def _check_form(path: Path, config: dict[str, Any]) -> None:
    if (kind := config.get("peft_type")) != "LORA":
        raise InvalidInput(f"{path}: peft_type: got {kind!r}, allowed: 'LORA'")
    if (task := config.get("task_type")) not in _TASKS:
        raise InvalidInput(f"{path}: task_type: got {task!r}, allowed: 'CAUSAL_LM'")
    if others := [name for name in _OTHER_FORMS if config.get(name)]:
        raise InvalidInput(
            f"{path}: {others[0]}: got {config[others[0]]!r:.100}, allowed: null; with it an adapter is more than a "
            "change of its base's weights"
        )
    _check_init(path, config.get("init_lora_weights"))
    for name in _PATTERNS:
        _check_patterns(path, name, config.get(name))
    if unknown := sorted(name for name, value in config.items() if value and name not in _known_fields()):
        from peft import __version__

        raise InvalidInput(
            f"{path}: {unknown[0]}: got {config[unknown[0]]!r:.100}, a field that peft {__version__} does not know; "
            "allowed: null"
        )


def _check_init(path: Path, begun: object) -> None:
    if begun is None or isinstance(begun, bool) or (isinstance(begun, str) and begun.lower() in _INITS):
        return
    raise InvalidInput(
        f"{path}: init_lora_weights: got {begun!r:.100}, allowed: null, true, false, {', '.join(_INITS)}, with which "
        "training leaves the base as it was; or an adapter that was converted to the base as it was "
        "(path_initial_model_for_weight_conversion of PEFT)"
    )


def _check_patterns(path: Path, name: str, value: object) -> None:
    patterns = (
        [value] if isinstance(value, str) else list(cast("dict[str, Any]", value)) if isinstance(value, dict) else []
    )
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise InvalidInput(
                f"{path}: {name}: got {pattern!r:.100}, allowed: a regular expression; {error}"
            ) from error


def _known_fields() -> set[str]:
    from peft import LoraConfig  # imports torch

    return {field.name for field in dataclasses.fields(LoraConfig)}
