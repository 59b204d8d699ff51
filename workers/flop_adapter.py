"""What low-rank adapters add to the forward pass of their base.

Owns how the directory of an adapter becomes the model an engine would run with it beside the base: two products more
for each adapted layer, r x (inputs + outputs) multiply-adds per token. Adapters that are merged into their base cost
nothing and are traced as the base. Invariant: every adapted layer is found in the base, and where the adapter's weights
are there they are those that were counted; an adapter that computes anything else is refused by name. Reads no tensor.
Must not import ray or vllm.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel

from service.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from service.adapters import is_adapter as is_adapter_directory
from service.errors import InvalidInput
from workers.flop_latent import ABSORBED_MODEL_TYPES
from workers.model_files import read_tensors

_SHAPE_FIELDS = (
    "r", "target_modules", "exclude_modules", "rank_pattern", "layers_to_transform", "layers_pattern",
    "fan_in_fan_out", "lora_bias",
)  # fmt: skip
"""Fields that decide which products are added; the others scale, initialise or train."""

_OTHER_FORMS = (
    "use_dora", "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "kasa_config",
    "layer_replication", "target_parameters",
)  # fmt: skip
"""Fields that make an adapter compute something else than two products per layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An adapter as its files describe it.

    Args:
        directory: where it was read.
        base: the model directory that it names; None where it names none that is here.
        fields: those of its configuration that decide its shape.
    """

    directory: Path
    base: Path | None
    fields: dict[str, Any]


def is_adapter(path: Path) -> bool:
    """Whether `path` is the directory of an adapter, or its configuration."""
    return path.name == ADAPTER_CONFIG or is_adapter_directory(path)


def read_adapter(path: Path) -> Adapter:
    """Reads an adapter's configuration.

    Raises:
        InvalidInput: it cannot be read, or is no low-rank adapter of the plain form.
    """
    file = path if path.name == ADAPTER_CONFIG else path / ADAPTER_CONFIG
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"cannot read adapter config {file}: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"adapter config {file} must be a JSON object, got {type(document).__name__}")
    fields = cast("dict[str, Any]", document)
    if fields.get("peft_type") != "LORA":
        raise InvalidInput(f"adapter config {file}: peft_type: got {fields.get('peft_type')!r}, allowed: 'LORA'")
    if others := [name for name in _OTHER_FORMS if fields.get(name)]:
        raise InvalidInput(f"adapter config {file}: {others[0]} is set; allowed: two low-rank products per layer")
    named = fields.get("base_model_name_or_path")
    base = Path(named) if isinstance(named, str) and Path(named).is_dir() else None
    shape = {name: fields[name] for name in _SHAPE_FIELDS if fields.get(name) is not None}
    return Adapter(directory=file.parent, base=base, fields=shape)


def add_adapter(model: PreTrainedModel, adapter: Adapter, tensors: FakeTensorMode) -> None:
    """Puts the adapter beside the layers of `model`, in place, its weights as `tensors` makes them.

    Outside of `tensors`, for peft moves new weights to their layer, which fake ones do not allow.

    Raises:
        InvalidInput: a layer that it names is not in the model, its weights are others, or it adapts the expansion of
            latents, which an engine folds into the query.
        ValueError: fields that peft refuses.
    """
    from peft import LoraConfig, inject_adapter_in_model  # slow to import, and few models have one

    inject_adapter_in_model(LoraConfig(**adapter.fields), model, low_cpu_mem_usage=True)
    with tensors:
        _materialise(model)
    if any(type(module).__name__ == "ParamWrapper" for module in model.modules()):
        raise InvalidInput(f"{adapter.directory}: adapts experts, whose products with it are of another form")
    adapted = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    targets = adapter.fields.get("target_modules")
    for target in targets if isinstance(targets, list) else ():
        if not any(name == target or name.endswith(f".{target}") for name in adapted):
            raise InvalidInput(f"{adapter.directory}: target_modules: {target!r} is no layer that can be adapted here")
    if model.config.model_type in ABSORBED_MODEL_TYPES and any(name.endswith("kv_b_proj") for name in adapted):
        raise InvalidInput(f"{adapter.directory}: adapts kv_b_proj, which engines fold into the query when they decode")
    _check_weights(model, adapter.directory / ADAPTER_WEIGHTS)


def _materialise(model: PreTrainedModel) -> None:
    """Gives the new weights, made without a device, that of the others."""
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if weight.is_meta:
                new = torch.empty(weight.shape, dtype=model.dtype)
                setattr(module, name, torch.nn.Parameter(new, requires_grad=False))


def _check_weights(model: PreTrainedModel, file: Path) -> None:
    if not file.is_file():
        return
    stored = sorted(shape for name, (_, shape) in read_tensors(file).items() if "lora_" in name)
    added = sorted(tuple(weight.shape) for name, weight in model.named_parameters() if "lora_" in name)
    if stored != added:
        raise InvalidInput(
            f"{file}: holds {len(stored)} low-rank tensors, its config adds {len(added)} of other shapes"
        )
