"""Training steps on a GPU: isoflop's trainer against TRL's `SFTTrainer` as people write it, in turns in one process.

    python -m api.local.bench_gpu_training DIRECTORY SHAPE_AS_JSON MODEL_DIR METHOD STEPS PAIRS

Both get the same model, examples, order, hyperparameters, bfloat16 and recomputed activations (the defaults of both).
Time is taken on the clock with the GPU's queue empty, when a step ends. No checkpoint is written: those of isoflop hold
merged weights, those of TRL the adapters alone, so they do not compare.

That both train the same is checked by the losses of all steps. Each example has words of its own, so losses scatter
from step to step with the examples that are in it; the sides have to differ by much less than that. A side that trains
other examples, in another order, or with other labels differs by more.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from math import inf, sqrt
from pathlib import Path
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from api.local.bench_machine import Spread
from api.local.bench_models import describe
from api.local.bench_process import measure_apart
from api.local.random_models import Shape, write_examples
from service.errors import IsoflopError
from service.finetunes import Method, TrainingSpec
from service.flops import ForwardCost
from service.models import ModelSpec
from service.shards import file_sha256
from service.training_flops import training_flops
from service.work import FinetuneWork

if TYPE_CHECKING:
    from datasets import Dataset

PROMPT_TOKENS = 128
COMPLETION_TOKENS = 384
BATCH = 32
MICRO_BATCH = 8
_WARM_UP_STEPS = 2
_LOSS_TOLERANCE = 0.25
"""Most that the sides' losses may differ, in standard deviations of the plain side's steps; other examples: 1.4."""
_LIMIT_S = 1800.0
_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """One run.

    Args:
        step_s: of a step on the clock, the median after the first two.
        load_s: from the call to the end of the first step: weights, examples, adapters.
        losses: of each step [nats a completion token].
        peak_gib: of the GPU's memory that was taken.
    """

    step_s: float
    load_s: float
    losses: tuple[float, ...]
    peak_gib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPair:
    """Both sides, one after the other."""

    ours: StepTimes
    plain: StepTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingComparison:
    """One shape and method.

    Args:
        step_tokens: trained in a step, no padding among them.
        step_flops: of a step as isoflop charges it: recomputed activations are not counted.
        loss_difference: the largest of any pair, as `loss_difference` says.
        ratio: seconds of a step, ours over plain.
    """

    shape: str
    like: str
    method: Method
    steps: int
    step_tokens: int
    step_flops: float
    loss_difference: float
    pairs: tuple[StepPair, ...]
    step_s: Spread
    plain_step_s: Spread
    ratio: Spread

    @classmethod
    def of(
        cls,
        shape: Shape,
        training: TrainingSpec,
        *,
        step_flops: float,
        pairs: Sequence[StepPair],
    ) -> "TrainingComparison":
        """Summary of the pairs."""
        return cls(
            shape=shape.name,
            like=shape.like,
            method=training.method,
            steps=training.steps,
            step_tokens=training.batch_size * (PROMPT_TOKENS + COMPLETION_TOKENS),
            step_flops=step_flops,
            loss_difference=max(loss_difference(pair.ours.losses, pair.plain.losses) for pair in pairs),
            pairs=tuple(pairs),
            step_s=Spread.of([pair.ours.step_s for pair in pairs]),
            plain_step_s=Spread.of([pair.plain.step_s for pair in pairs]),
            ratio=Spread.of([pair.ours.step_s / pair.plain.step_s for pair in pairs]),
        )


def compare_training(
    directory: Path, shape: Shape, model_dir: Path, method: Method, steps: int, num_pairs: int
) -> TrainingComparison:
    """Trains `num_pairs` pairs in a process of its own; who begins alternates.

    Raises:
        ValueError: fewer steps than the first two and one more.
        IsoflopError: a run failed, or the sides did not train the same.
    """
    if steps <= _WARM_UP_STEPS:
        raise ValueError(f"steps must be more than {_WARM_UP_STEPS}, got {steps}")
    arguments = (directory, json.dumps(asdict(shape)), model_dir, method.value, steps, num_pairs)
    found = measure_apart("api.local.bench_gpu_training", *arguments, environment=_ENVIRONMENT, limit_s=_LIMIT_S)
    pairs = [StepPair(ours=_times(pair["ours"]), plain=_times(pair["plain"])) for pair in found["pairs"]]
    for pair in pairs:
        check_losses(pair.ours.losses, pair.plain.losses)
    return TrainingComparison.of(shape, _training(method, steps), step_flops=found["step_flops"], pairs=pairs)


def _times(run: Mapping[str, Any]) -> StepTimes:
    return StepTimes(**{**run, "losses": tuple(run["losses"])})


def _training(method: Method, steps: int) -> TrainingSpec:
    return TrainingSpec(
        method=method,
        steps=steps,
        batch_size=BATCH,
        micro_batch_size=MICRO_BATCH,
        learning_rate=1e-4,
        num_checkpoints=1,
    )


@dataclass(slots=True, kw_only=True)
class _Clock:
    """The time at the end of every step."""

    started: float = field(default_factory=time.perf_counter)
    ticks: list[float] = field(default_factory=list[float])

    def tick(self) -> None:
        """Notes the time once the GPU has nothing left to do."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ticks.append(time.perf_counter())

    def times(self, losses: Sequence[float]) -> StepTimes:
        """What it took."""
        import torch

        steps = [after - before for before, after in pairwise(self.ticks[_WARM_UP_STEPS - 1 :])]
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        return StepTimes(
            step_s=median(steps), load_s=self.ticks[0] - self.started, losses=tuple(losses), peak_gib=peak / 2**30
        )


def _measure(
    directory: Path, shape: Shape, model_dir: Path, training: TrainingSpec, num_pairs: int
) -> tuple[float, list[StepPair]]:
    dataset = directory / "examples.parquet"
    num_rows = training.steps * training.batch_size
    write_examples(dataset, shape, num_rows=num_rows, prompt_tokens=PROMPT_TOKENS, completion_tokens=COMPLETION_TOKENS)
    base = describe(shape.name, model_dir)
    work = FinetuneWork(base=base, dataset_path=str(dataset), dataset_sha256=file_sha256(dataset), training=training)
    examples = _in_order(work)
    pairs: list[StepPair] = []
    adapter_parameters: list[int | None] = []
    for number in range(num_pairs):
        sides = [
            ("ours", partial(_train, work, directory / f"ours-{number}")),
            ("plain", partial(_train_plainly, work, examples, directory / f"plain-{number}", adapter_parameters)),
        ]
        found = {side: _alone(run) for side, run in (sides if number % 2 else reversed(sides))}
        pairs.append(StepPair(**found))
    return _step_flops(base, training, adapter_parameters[0]), pairs


def _alone(run: Any) -> StepTimes:
    """Runs one side; what it held of the GPU is free afterwards."""
    import gc

    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        return run()
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def _train(work: FinetuneWork, out_dir: Path) -> StepTimes:
    """Our side: told to stop at the last step but one's end, so that no checkpoint is written."""
    from workers.finetune import finetune

    steps, losses = work.training.steps, list[float]()
    clock = _Clock()
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        if asked > 0:  # the first time is before the first step
            clock.tick()
        asked += 1
        return asked > steps

    longer = dataclasses.replace(work, training=dataclasses.replace(work.training, steps=steps + 1))
    finetune(
        longer,
        out_dir,
        on_log=lambda entry: losses.append(entry.loss),
        on_checkpoint=lambda _: None,
        should_stop=should_stop,
    )
    return clock.times(losses)


def _train_plainly(
    work: FinetuneWork, examples: "Dataset", out_dir: Path, adapter_parameters: list[int | None]
) -> StepTimes:
    """The script that people write."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    clock = _Clock()
    losses: list[float] = []

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.tick()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            losses.extend([logs["loss"]] if "loss" in logs else [])

    training, has_gpu = work.training, torch.cuda.is_available()
    quantised = {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    }
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            work.base.path,
            dtype=torch.float32 if training.method is Method.full or not has_gpu else torch.bfloat16,
            **(quantised if training.method is Method.qlora else {}),
        ),
        args=SFTConfig(
            output_dir=str(out_dir),
            max_steps=training.steps,
            per_device_train_batch_size=training.micro_batch_size,
            gradient_accumulation_steps=training.batch_size // training.micro_batch_size,
            learning_rate=training.learning_rate,
            optim=training.optimizer,
            weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm,
            lr_scheduler_type=training.decay,
            seed=training.seed,
            use_cpu=not has_gpu,
            bf16=has_gpu,
            gradient_checkpointing=has_gpu,
            train_sampling_strategy="sequential",  # the examples are in the order of the run
            max_length=None,
            logging_steps=1,  # as ours: the losses are compared
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=examples,
        processing_class=AutoTokenizer.from_pretrained(work.base.path),
        peft_config=None
        if training.method is Method.full
        else LoraConfig(
            r=training.lora_rank, lora_alpha=training.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    trained = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)  # type: ignore[union-attr]
    adapter_parameters.append(None if training.method is Method.full else trained)
    trainer.add_callback(Watch())
    trainer.train()
    return clock.times(losses)


def _in_order(work: FinetuneWork) -> "Dataset":
    """Prompts and completions as our side reads them."""
    from datasets import Dataset

    from workers.finetune_data import ReadingOrder

    table = pq.read_table(work.dataset_path, columns=["prompt", "completion"])
    return Dataset.from_list(table.take(pa.array(ReadingOrder.of(work.training, table.num_rows).rows)).to_pylist())


def loss_difference(ours: Sequence[float], plain: Sequence[float]) -> float:
    """How far the sides' losses lie apart: root mean square over the steps, over what the plain side's scatter.

    Raises:
        ValueError: not as many steps on both sides, or fewer than two.
    """
    apart = sqrt(fmean((one - other) ** 2 for one, other in zip(ours, plain, strict=True)))
    scatter = stdev(plain)
    return apart / scatter if scatter > 0 else inf


def check_losses(ours: Sequence[float], plain: Sequence[float]) -> None:
    """Raises IsoflopError unless both sides trained the same examples in the same order."""
    if not (difference := loss_difference(ours, plain)) <= _LOSS_TOLERANCE:
        raise IsoflopError(
            f"the sides did not train the same: their losses differ by {difference:.2f} standard deviations of a "
            f"step's, allowed: {_LOSS_TOLERANCE}; ours {_shown(ours)}, plain {_shown(plain)}"
        )


def _shown(losses: Sequence[float]) -> str:
    return " ".join(f"{loss:.4f}" for loss in losses)


def _step_flops(base: ModelSpec, training: TrainingSpec, adapter_parameters: int | None) -> float:
    """FLOPs of a step as a finetune is charged for them."""
    import numpy as np

    from workers.flop_trace import trace_forward_cost

    cost: ForwardCost = trace_forward_cost(Path(base.path))
    sequences = np.full(training.batch_size, PROMPT_TOKENS + COMPLETION_TOKENS, dtype=np.int64)
    completions = np.full(training.batch_size, COMPLETION_TOKENS, dtype=np.int64)
    return float(training_flops(cost, sequences, completions, adapter_parameters=adapter_parameters).sum())


if __name__ == "__main__":
    flops, measured = _measure(
        Path(sys.argv[1]),
        Shape(**json.loads(sys.argv[2])),
        Path(sys.argv[3]),
        _training(Method(sys.argv[4]), int(sys.argv[5])),
        int(sys.argv[6]),
    )
    print(json.dumps({"step_flops": flops, "pairs": [asdict(pair) for pair in measured]}))
