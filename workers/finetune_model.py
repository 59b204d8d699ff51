"""The student: its tokenizer, its weights in memory, its adapters.

Owns how a `ModelSpec` becomes something that can be trained, and how adapters become a model again. Invariants: no
code of a model directory is run, nothing is fetched; every weight that is trained is float32, for at the learning
rates of finetuning a bfloat16 weight would round most updates away. Must not import ray or vllm; imported only by a
process that trains.
"""

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from service.errors import InvalidInput
from service.finetunes import Method, TrainingSpec
from service.models import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(base: ModelSpec) -> "PreTrainedTokenizerBase":
    """The student's own tokenizer.

    Raises:
        InvalidInput: none can be loaded from its directory.
    """
    try:
        return AutoTokenizer.from_pretrained(base.path, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"model {base.name}: no tokenizer can be loaded from {base.path}: {error}") from error


def load_student(base: ModelSpec, method: Method) -> "PreTrainedModel":
    """The student's weights, on the CPU unless they are quantised; without adapters.

    Raises:
        InvalidInput: no weights that can be trained, or nothing here that can hold them in 4 bits.
    """
    arguments: dict[str, Any] = {"dtype": torch.float32}
    if method is Method.qlora:
        _check_quantisation()
        arguments = {
            "dtype": torch.bfloat16,
            "quantization_config": BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.bfloat16,
            ),
        }
    elif method is Method.lora and torch.cuda.is_available():
        arguments = {"dtype": torch.bfloat16}  # frozen, so rounding loses nothing; adapters are float32
    return _load(base, **arguments)


def adapter_config(training: TrainingSpec) -> LoraConfig | None:
    """Adapters on every linear layer but the output head; None if every weight is trained."""
    if training.method is Method.full:
        return None
    return LoraConfig(
        r=training.lora_rank, lora_alpha=training.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def write_merged(base: ModelSpec, adapter: Path, out_dir: Path) -> None:
    """Writes the base with the adapters added to its weights, in the base's precision.

    The base is read anew instead of merging in place: taking adapters out of merged weights leaves rounding errors
    behind, and the run goes on; and a base held in 4 bits is merged at full precision. The random numbers that new
    adapters draw are given back: a run that goes on must not differ from one that is resumed here.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        merged: Any = PeftModel.from_pretrained(_load(base, dtype="auto"), str(adapter), is_trainable=False)
    merged.merge_and_unload().save_pretrained(out_dir)


def served_dtype(base: ModelSpec) -> torch.dtype:
    """The precision that the base's configuration asks engines for."""
    config = json.loads((Path(base.path) / "config.json").read_bytes())
    for section in (config, config.get("text_config") or {}):
        name = section.get("dtype") or section.get("torch_dtype")
        if isinstance(found := getattr(torch, str(name), None), torch.dtype):
            return found
    return torch.float32


def _load(base: ModelSpec, **arguments: Any) -> "PreTrainedModel":
    try:
        return AutoModelForCausalLM.from_pretrained(
            base.path, trust_remote_code=False, local_files_only=True, use_safetensors=True, **arguments
        )
    except (OSError, ValueError) as error:
        raise InvalidInput(f"model {base.name} cannot be trained: {base.path}: {error}") from error


def _check_quantisation() -> None:
    lacks = [] if torch.cuda.is_available() else ["an NVIDIA GPU"]
    lacks += [] if importlib.util.find_spec("bitsandbytes") else ["the package bitsandbytes"]
    if lacks:
        raise InvalidInput(
            f"method qlora holds the base in 4 bits, which needs {' and '.join(lacks)} here; allowed: full, lora"
        )
