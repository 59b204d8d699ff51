"""Models with the shapes of real ones and random weights: speed depends on shapes, and nothing has to be fetched.

Weights are written as a real checkpoint, so registering, hashing and loading take what they take of a real one. Each
token is a word of its own, so texts are as long as those of real models and prompts have a length that is known.
Random weights prefer no token: a completion ends early with a chance of one in the vocabulary a token.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.records import SELECTED_SCHEMA

_SPECIAL = ("<pad>", "</s>", "<unk>")
_SHARD = "4GB"
_WORDS_OF_A_COMPLETION = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a model looks like.

    Args:
        name: of this shape, here.
        like: the public model whose sizes it has.
        config: fields of config.json, `model_type` among them: "llama", for of some other types the library builds a
            tokenizer of its own instead of the one that is written here.
    """

    name: str
    like: str
    config: dict[str, Any]


SHAPES = {
    shape.name: shape
    for shape in (
        Shape(
            name="1b",
            like="Llama 3.2 1B",
            config={
                "model_type": "llama",
                "hidden_size": 2048,
                "intermediate_size": 8192,
                "num_hidden_layers": 16,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 64,
                "vocab_size": 128_256,
                "max_position_embeddings": 4096,
                "tie_word_embeddings": True,
            },
        ),
        Shape(
            name="7b",
            like="Mistral 7B v0.3",
            config={
                "model_type": "llama",
                "hidden_size": 4096,
                "intermediate_size": 14_336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "vocab_size": 32_768,
                "max_position_embeddings": 4096,
                "tie_word_embeddings": False,
            },
        ),
    )
}


def write_model(shape: Shape, directory: Path, *, device: str) -> None:
    """Writes configuration, random bfloat16 weights and a tokenizer.

    Args:
        device: where the weights are drawn: "cuda" takes seconds where "cpu" takes minutes.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    config = AutoConfig.for_model(**shape.config, **ids)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(directory, max_shard_size=_SHARD)
    _write_tokenizer(int(shape.config["vocab_size"]), directory)


def _write_tokenizer(vocab_size: int, directory: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [*_SPECIAL, *(f"w{number}" for number in range(len(_SPECIAL), vocab_size))]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(directory)


def random_text(numbers: random.Random, shape: Shape, num_tokens: int) -> str:
    """As many words of the model's vocabulary, each a token."""
    last = int(shape.config["vocab_size"]) - 1
    return " ".join(f"w{numbers.randint(len(_SPECIAL), last)}" for _ in range(num_tokens))


def write_problems(path: Path, shape: Shape, *, num_problems: int, prompt_tokens: int) -> None:
    """A problem set of random questions, of `prompt_tokens` tokens each as far as the prompt adds none."""
    numbers = random.Random(0)
    rows = [
        {"id": f"p{number}", "question": random_text(numbers, shape, prompt_tokens), "answer": str(number)}
        for number in range(num_problems)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_examples(path: Path, shape: Shape, *, num_rows: int, prompt_tokens: int, completion_tokens: int) -> None:
    """A training set of random examples, each of the same length: nothing is padded, so no side can waste less.

    The completion of an example consists of a few words of its own. So losses differ from example to example, also at
    random weights, and those of a run's steps tell which examples were trained in which step.
    """
    numbers = random.Random(0)

    def few_words(num_tokens: int) -> str:
        words = random_text(numbers, shape, _WORDS_OF_A_COMPLETION).split()
        return " ".join(numbers.choices(words, k=num_tokens))

    rows = [
        {
            "job_id": "job",
            "source": 0,
            "model": "m",
            "arm": "m",
            "prompt_id": "p",
            "sampling_id": "s",
            "is_correct": True,
            "is_verified": None,
            "prompt": random_text(numbers, shape, prompt_tokens) + " ",
            "completion": few_words(completion_tokens - 1),  # and the end of sequence
            "problem_id": f"p{number}",
            "sample_id": f"s{number}",
            "completion_tokens": completion_tokens,
        }
        for number in range(num_rows)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SELECTED_SCHEMA), path)


if __name__ == "__main__":
    import sys

    write_model(SHAPES[sys.argv[1]], Path(sys.argv[2]), device="cuda")
    print("{}")
