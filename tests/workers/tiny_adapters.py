"""A base of two layers and adapters on it or on any other model, as PEFT saves them."""

import dataclasses
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from service.models import ModelSpec
from tests.workers.finetune_work import BASE
from workers.model_files import inspect_model

TOKENIZER = Path(__file__).parents[2] / "examples" / "tiny-world" / "models" / "gsm-mini-small"
ALL_LINEAR = "all-linear"


def write_base(directory: Path, *, dtype: torch.dtype = torch.float32, **config: Any) -> ModelSpec:
    """A model with the tiny world's tokenizer; `config` overrides its size."""
    torch.manual_seed(1)
    sizes: dict[str, Any] = {
        "vocab_size": 114,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 192,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    LlamaForCausalLM(LlamaConfig(**sizes | config)).to(dtype=dtype).save_pretrained(directory)  # type: ignore[arg-type]
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(TOKENIZER / name, directory / name)
    return dataclasses.replace(BASE, path=str(directory), revision=inspect_model(directory).revision)


def write_adapter(directory: Path, base: str | Path, *, scale: float = 0.05, seed: int = 2, **fields: Any) -> Path:
    """An adapter whose every weight is random, so that it changes what its base says; `fields` are of LoraConfig."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ALL_LINEAR, "task_type": "CAUSAL_LM"} | fields)
    adapted: Any = get_peft_model(model, config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad:
                noise = scale * torch.randn_like(weight)
                weight.copy_(noise if "lora_A" in name or "lora_B" in name else weight + noise)
    adapted.save_pretrained(directory, save_embedding_layers=False)
    return rewrite_config(directory, base_model_name_or_path=str(base))


@torch.no_grad()
def greedy_texts(
    base: str | Path, prompts: Iterable[str], *, max_tokens: int, adapter: Path | None = None
) -> dict[str, str]:
    """Completions by prompt of transformers' own greedy search, with peft's adapter beside its base."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    tokenizer: Any = AutoTokenizer.from_pretrained(base, padding_side="left")
    asked = list(prompts)
    inputs = tokenizer(asked, padding=True, return_tensors="pt", return_token_type_ids=False)
    drawn = model.eval().generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
    completions = tokenizer.batch_decode(drawn[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return dict(zip(asked, completions, strict=True))


def rewrite_config(adapter: Path, **fields: Any) -> Path:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return adapter
