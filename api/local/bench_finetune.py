"""`isoflop bench finetune`: what a step of a finetune costs, against the same run of TRL's trainer as people write it.

    python -m api.local.bench_finetune DIRECTORY NUM_PAIRS STEPS

trains one student again and again in one process, on both sides in turns, and prints what it took as JSON. Both get
the same weights, examples, order, hyperparameters and as many checkpoints. Invariant: both end with the same weights,
bit for bit, so neither side does less than the other.

Time is taken when a step ends, by both sides' callbacks at the same place of the library's loop. Processor time is
compared: on a machine with other work the clock says more about that.
"""

import dataclasses
import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from api.local.bench_machine import Machine, Spread, this_machine
from api.local.bench_models import THREADS, describe
from api.local.bench_process import measure_apart
from api.local.tiny_world import model_dir, problem_file
from service.checkpoints import checkpoint_path
from service.finetunes import TrainingSpec, preset
from service.receipts import Receipt
from service.records import SELECTED_SCHEMA
from service.shards import file_sha256
from service.work import FinetuneWork

if TYPE_CHECKING:
    from datasets import Dataset

MODEL = "gsm-mini-small"
_DATASET = "examples.parquet"
_ENVIRONMENT = {
    "OMP_NUM_THREADS": str(THREADS),
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",  # both sides on the processor, whose time is compared; `bench gpu` has the other
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One run, from the end of its first step.

    Args:
        step_cpu_s: processor time of a step, the median: logging is in it, checkpoints are not.
        cpu_s: processor time until the last checkpoint is complete.
        seconds: the same on the clock.
    """

    step_cpu_s: float
    cpu_s: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPair:
    """Both sides, one after the other."""

    ours: TrainingRun
    plain: TrainingRun


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneResult:
    """Pairs, and ratios within them.

    Args:
        step_ratio: processor time of a median step, ours over plain.
        run_ratio: of a whole run, checkpoints included.
        clock_ratio: the same in seconds on the clock.
    """

    machine: Machine
    model: str
    steps: int
    checkpoints: int
    pairs: tuple[TrainingPair, ...]
    step_ratio: Spread
    run_ratio: Spread
    clock_ratio: Spread

    @classmethod
    def of(cls, machine: Machine, training: TrainingSpec, pairs: Sequence[TrainingPair]) -> "FinetuneResult":
        """Summary of the pairs."""
        return cls(
            machine=machine,
            model=MODEL,
            steps=training.steps,
            checkpoints=training.num_checkpoints,
            pairs=tuple(pairs),
            step_ratio=Spread.of([pair.ours.step_cpu_s / pair.plain.step_cpu_s for pair in pairs]),
            run_ratio=Spread.of([pair.ours.cpu_s / pair.plain.cpu_s for pair in pairs]),
            clock_ratio=Spread.of([pair.ours.seconds / pair.plain.seconds for pair in pairs]),
        )


def bench_finetune(directory: Path, *, num_pairs: int, steps: int) -> FinetuneResult:
    """Trains `num_pairs` pairs of `steps` steps each; who begins alternates.

    Raises:
        ValueError: fewer steps than twice the checkpoints, or no pair.
        IsoflopError: a run failed, or the sides did not end with the same weights.
    """
    training = _training(steps)
    if steps < 2 * training.num_checkpoints or num_pairs < 1:
        raise ValueError(
            f"steps must be at least {2 * training.num_checkpoints} and pairs 1, got {steps} and {num_pairs}"
        )
    machine = this_machine()
    found = measure_apart("api.local.bench_finetune", directory, num_pairs, steps, environment=_ENVIRONMENT)
    pairs = [TrainingPair(**{side: TrainingRun(**run) for side, run in pair.items()}) for pair in found["pairs"]]
    return FinetuneResult.of(machine, training, pairs)


def _training(steps: int) -> TrainingSpec:
    return dataclasses.replace(preset("tiny"), steps=steps)


@dataclass(slots=True, kw_only=True)
class _Clock:
    """Both times at the end of every step, and at the end of the run."""

    ticks: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])

    def tick(self) -> None:
        """Notes the time."""
        self.ticks.append(_now())

    def run(self) -> TrainingRun:
        """What it took."""
        cpu_s = [cpu for cpu, _ in self.ticks]
        (first_cpu_s, started), (last_cpu_s, ended) = self.ticks[0], self.ticks[-1]
        steps = [after - before for before, after in pairwise(cpu_s[:-1])]
        return TrainingRun(step_cpu_s=median(steps), cpu_s=last_cpu_s - first_cpu_s, seconds=ended - started)


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _measure(directory: Path, num_pairs: int, training: TrainingSpec) -> list[TrainingPair]:
    dataset = directory / _DATASET
    _write_examples(dataset)
    base = describe(MODEL, model_dir(MODEL))
    work = FinetuneWork(base=base, dataset_path=str(dataset), dataset_sha256=file_sha256(dataset), training=training)
    examples = _in_order(work)
    pairs: list[TrainingPair] = []
    for number in range(-1, num_pairs):  # the first one warms up both
        ours, plain = directory / f"ours-{number}.1", directory / f"plain-{number}"
        sides = [("ours", partial(_train, work, ours)), ("plain", partial(_train_plainly, work, examples, plain))]
        found = {side: run() for side, run in (sides if number % 2 else reversed(sides))}
        _check_same(ours, plain, training.steps)
        shutil.rmtree(ours)
        shutil.rmtree(plain)
        pairs.append(TrainingPair(**found))
    return pairs[1:]


def _train(work: FinetuneWork, out_dir: Path) -> TrainingRun:
    from workers.finetune import finetune

    clock = _Clock()
    committed_at: list[tuple[float, float]] = []

    def should_stop() -> bool:
        clock.tick()
        return False

    def on_checkpoint(_: Receipt) -> None:
        committed_at.append(_now())

    finetune(work, out_dir, on_log=lambda _: None, on_checkpoint=on_checkpoint, should_stop=should_stop)
    del clock.ticks[0]  # asked before the first step too
    clock.ticks.append(committed_at[-1])
    return clock.run()


def _train_plainly(work: FinetuneWork, examples: "Dataset", out_dir: Path) -> TrainingRun:
    """The script that people write: texts in, the library's own tokenising, logging and checkpoints."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    clock = _Clock()

    class Ticks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.tick()

    training = work.training
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(work.base.path, dtype=torch.float32),
        args=SFTConfig(
            output_dir=str(out_dir),
            max_steps=training.steps,
            per_device_train_batch_size=training.micro_batch_size,
            gradient_accumulation_steps=training.batch_size // training.micro_batch_size,
            learning_rate=training.learning_rate,
            optim=training.optimizer,
            weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm,
            warmup_steps=math.ceil(training.steps * training.warmup),
            lr_scheduler_type=training.decay,
            seed=training.seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            train_sampling_strategy="sequential",  # the examples are in the order of the run
            max_length=training.max_length,
            save_steps=training.steps // training.num_checkpoints,
            report_to="none",
        ),
        train_dataset=examples,
        processing_class=AutoTokenizer.from_pretrained(work.base.path),
    )
    trainer.add_callback(Ticks())
    trainer.train()
    clock.tick()
    return clock.run()


def _write_examples(path: Path) -> None:
    """The tiny world's training problems with their own solutions."""
    rows = [json.loads(line) for line in problem_file("train").read_text().splitlines()]
    drawn_with = {"model": "m", "arm": "m", "prompt_id": "p", "sampling_id": "s"}
    shared = {"job_id": "job", "source": 0, **drawn_with, "is_correct": True, "is_verified": True}
    examples = [
        shared
        | {
            "prompt": row["question"] + "\n",
            "completion": row["solution"],
            "problem_id": row["id"],
            "sample_id": row["id"],
            "completion_tokens": len(row["solution"]),
        }
        for row in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(examples, schema=SELECTED_SCHEMA), path)


def _in_order(work: FinetuneWork) -> "Dataset":
    """Prompts and completions as our side reads them; it begins every sequence as engines do, the library does not."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    from workers.finetune_data import ReadingOrder

    bos = AutoTokenizer.from_pretrained(work.base.path).bos_token
    table = pq.read_table(work.dataset_path, columns=["prompt", "completion"])
    rows = table.take(pa.array(ReadingOrder.of(work.training, table.num_rows).rows)).to_pylist()
    return Dataset.from_list([{**row, "prompt": bos + row["prompt"]} for row in rows])


def _check_same(ours: Path, plain: Path, steps: int) -> None:
    import torch
    from safetensors.torch import load_file

    weights = [load_file(checkpoint_path(side, steps) / "model.safetensors") for side in (ours, plain)]
    if weights[0].keys() != weights[1].keys() or not all(
        torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items()
    ):
        raise RuntimeError("the sides did not end with the same weights, so they did not train the same")


if __name__ == "__main__":
    measured = _measure(Path(sys.argv[1]), int(sys.argv[2]), _training(int(sys.argv[3])))
    print(json.dumps({"pairs": [asdict(pair) for pair in measured]}))
