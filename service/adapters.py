"""Adapters that people bring: which directories are some, and which registered model each is for.

An adapter is a set of small changes to the weights of a base, as PEFT saves it. It becomes a model of its own by being
merged into that base; how is for `workers.adapter_merge`. Reads its configuration and no weights. Must not import torch
or peft.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from service.errors import InvalidInput, UnknownName
from service.models import AdapterSource, ModelSpec

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_MODEL_WEIGHTS = "model*.safetensors*"


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds an adapter and no model; some trainers put the base's config.json beside it."""
    return (directory / ADAPTER_CONFIG).is_file() and not any(directory.glob(_MODEL_WEIGHTS))


def named_base(directory: Path) -> str | None:
    """What the adapter's configuration calls its base: a path where it was trained, or a name of a hub.

    Raises:
        InvalidInput: the configuration cannot be read, or its word can be no name and no path.
    """
    path = directory / ADAPTER_CONFIG
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{path}: must hold a JSON object, got {type(document).__name__}")
    named = cast("dict[str, Any]", document).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        return None
    try:
        Path(named).resolve()
    except ValueError as error:  # a null character, half of a surrogate pair
        raise InvalidInput(
            f"{path}: base_model_name_or_path: got {named!r:.100}, allowed: a path or a name; {error}"
        ) from error
    return named


def find_base(models: Sequence[ModelSpec], *, wanted: str | None, named: str | None) -> ModelSpec:
    """The registered model that an adapter is merged into.

    Args:
        wanted: its name here; None to go by what the adapter says.
        named: what the adapter calls it.

    Raises:
        UnknownName: no model is called `wanted`.
        InvalidInput: it has no weights here, or the adapter's word fits none or several.
    """
    allowed = [model.name for model in models if _lacks(model) is None and not model.is_student]
    if wanted is not None:
        found = [model for model in models if model.name == wanted]
        if not found:
            raise UnknownName(kind="model", got=wanted, allowed=allowed)
        return _usable(found[0], allowed)
    found = [] if named is None else [model for model in models if _is_called(model, named)]
    usable = [model for model in found if _lacks(model) is None]
    if len(usable) > 1:
        raise InvalidInput(
            f"base: got nothing, and {ADAPTER_CONFIG} names {named!r}, which here are "
            f"{_listed([model.name for model in usable])}; allowed: one of them"
        )
    if not usable and found:
        return _usable(found[0], allowed)
    if not usable:
        said = f"names {named!r}, which is no registered model's name or path" if named else "names no base"
        raise InvalidInput(f"base: got nothing, and {ADAPTER_CONFIG} {said}; allowed: {_listed(allowed)}")
    return usable[0]


def adapter_model(base: ModelSpec, name: str, *, path: str, revision: str, source: AdapterSource) -> ModelSpec:
    """A merged adapter as a model that jobs can name: engines of its base serve it, and its tokens cost what theirs do.

    Args:
        path: directory of what was merged.
        revision: of that directory.
        source: the adapter alone.
    """
    return dataclasses.replace(
        base, name=name, path=path, revision=revision, base=base.pool, price=None, adapter=source
    )


def _usable(model: ModelSpec, allowed: Sequence[str]) -> ModelSpec:
    if (lacks := _lacks(model)) is not None:
        raise InvalidInput(f"base: got {model.name!r}, {lacks}; allowed: {_listed(allowed)}")
    return model


def _lacks(model: ModelSpec) -> str | None:
    """Why nothing can be merged into a model; None where it can."""
    if model.endpoint is not None:
        return "whose weights are at a server"
    if model.engine.simulated:
        return "which is simulated and loads no weights"
    return None


def _is_called(model: ModelSpec, named: str) -> bool:
    """Whether that is the model's name, its path, or the name that the hub's cache keeps it under."""
    path = Path(model.path)
    if named == model.name or f"models--{named.replace('/', '--')}" in path.parts:
        return True
    return Path(named).is_absolute() and Path(named).resolve() == path.resolve()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none yet: register the base first"
