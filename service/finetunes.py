"""What a training run is asked for, and the presets.

One run trains one student once: a learning-rate grid or several seeds are several runs. Every arm of a comparison
takes the same number of optimizer steps, so that training compute matches; a smaller training set repeats more.
"""

from dataclasses import dataclass
from enum import StrEnum

from service.errors import UnknownName


class Method(StrEnum):
    """What is trained: every weight, low-rank adapters, or adapters on a base held in 4 bits (CUDA only)."""

    full = "full"
    lora = "lora"
    qlora = "qlora"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSpec:
    """Hyperparameters of one run, complete.

    Args:
        steps: optimizer steps.
        batch_size: examples a step, over all processes.
        micro_batch_size: examples of one forward pass; the rest of a batch is accumulated.
        warmup: share of the steps in which the rate rises.
        decay: "linear", "cosine" or "constant".
        num_checkpoints: equally spaced, the last at the end; >= 1.
        max_length: longest prompt and completion trained on [tokens]; None is the model's context.
        lora_rank: of the adapters; unused with `full`.
    """

    method: Method = Method.full
    steps: int = 600
    batch_size: int = 32
    micro_batch_size: int = 8
    learning_rate: float = 5e-7
    optimizer: str = "adamw_torch"
    weight_decay: float = 0.0
    warmup: float = 0.0
    decay: str = "linear"
    max_grad_norm: float = 1.0
    num_checkpoints: int = 10
    max_length: int | None = None
    lora_rank: int = 16
    lora_alpha: int = 32
    seed: int = 0


PRESETS: dict[str, TrainingSpec] = {
    # arXiv 2408.16737, appendix: full finetuning, best of ten checkpoints, rate picked from {1e-7, 5e-7, 1e-6}
    "paper-low": TrainingSpec(steps=600),
    "paper-high": TrainingSpec(steps=6000),
    "lora-24gb": TrainingSpec(method=Method.qlora, steps=600, micro_batch_size=4, learning_rate=1e-4, warmup=0.03),
    # the tiny world: 200 steps of 32 examples, as many as a data set of 2,000 problems needs to repeat
    "tiny": TrainingSpec(
        steps=200, micro_batch_size=32, learning_rate=6e-4, warmup=0.05, num_checkpoints=4, max_length=192
    ),
}


def preset(name: str) -> TrainingSpec:
    """The preset of that name.

    Raises:
        UnknownName: there is none.
    """
    if name not in PRESETS:
        raise UnknownName(kind="preset", got=name, allowed=PRESETS)
    return PRESETS[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSpec:
    """A resolved finetune document.

    Args:
        base: name of the model that training starts from.
        dataset: id of the selection that is trained on.
    """

    name: str
    base: str
    dataset: str
    training: TrainingSpec
