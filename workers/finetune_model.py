"""The student: its tokenizer, its weights in memory, its adapters.

Owns how a `ModelSpec` becomes something that can be trained, and how adapters become a model again. Invariants: no
code of a model directory is run, nothing is fetched; every weight that is trained is float32, for at the learning
rates of finetuning a bfloat16 weight would round most updates away. Must not import ray or vllm; imported only by a
process that trains.
"""

import copy
import importlib.util
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from service.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from service.errors import InvalidInput
from service.finetunes import Method, TrainingSpec
from service.models import ModelSpec
from workers.model_files import read_tensors

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

    Raises:
        InvalidInput: the adapter has weights that the base has no place for, or lacks some.
        ValueError, RuntimeError, LookupError, TypeError: peft cannot make sense of the adapter, or it is not finite.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of keys that do not match, which are looked at here, and of ties
        merged = _adapted(base, _load(base, dtype="auto"), adapter).merge_and_unload(safe_merge=True)
    merged.save_pretrained(out_dir)


def _adapted(base: ModelSpec, model: "PreTrainedModel", adapter: Path) -> Any:
    """The model with every weight of the adapter beside its layers, and none that the adapter lacks."""
    file = adapter / ADAPTER_WEIGHTS
    head = model.get_output_embeddings()
    is_tied = head is not None and head.weight is model.get_input_embeddings().weight
    _check_shapes(base, model, adapter)
    adapted = PeftModel(model, _read_config(adapter))
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    if is_tied and any(isinstance(end, LoraLayer | ModulesToSaveWrapper) for end in ends):
        raise InvalidInput(
            f"{adapter / ADAPTER_CONFIG}: changes the embedding or the output head, which are one matrix in "
            f"{base.name}; allowed: other layers"
        )
    # on the CPU, where the base is: engines may hold all of a GPU
    loaded = adapted.load_adapter(str(adapter), "default", torch_device="cpu")
    if loaded.unexpected_keys:
        raise InvalidInput(f"{file}: has {loaded.unexpected_keys[0]}, which {base.name} has no place for")
    if loaded.missing_keys:
        raise InvalidInput(f"{file}: lacks {loaded.missing_keys[0]}, which {ADAPTER_CONFIG} asks for in {base.name}")
    return adapted


def _check_shapes(base: ModelSpec, model: "PreTrainedModel", adapter: Path) -> None:
    """Raises InvalidInput unless weights of the adapter have the shapes that its configuration gives them.

    Beside a model without memory: a wrong rank would take any amount of it.
    """
    with torch.device("meta"):
        empty: Any = type(model)(copy.deepcopy(model.config))
        adapted = PeftModel(empty, _read_config(adapter), low_cpu_mem_usage=True)
    shapes = {name.replace(".default", ""): tuple(weight.shape) for name, weight in adapted.named_parameters()}
    file = adapter / ADAPTER_WEIGHTS
    for name, (_, shape) in read_tensors(file).items():
        if shapes.get(name, shape) != shape:
            raise InvalidInput(f"{file}: {name} has shape {list(shape)}, with {base.name} it is {list(shapes[name])}")


def _read_config(adapter: Path) -> LoraConfig:
    config: Any = LoraConfig.from_pretrained(str(adapter), inference_mode=True)
    config.init_lora_weights = False  # every weight is read; some ways to begin decompose large matrices first
    return config


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
        raise InvalidInput(f"model {base.name}: weights cannot be loaded from {base.path}: {error}") from error


def _check_quantisation() -> None:
    lacks = [] if torch.cuda.is_available() else ["an NVIDIA GPU"]
    lacks += [] if importlib.util.find_spec("bitsandbytes") else ["the package bitsandbytes"]
    if lacks:
        raise InvalidInput(
            f"method qlora holds the base in 4 bits, which needs {' and '.join(lacks)} here; allowed: full, lora"
        )
