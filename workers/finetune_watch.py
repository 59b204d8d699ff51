"""What happens beside the steps of a run: the log, the checks, the checkpoints, an early end.

Owns `log.jsonl` and when a checkpoint is published. Invariants: nothing is published whose loss or weights are not
finite; receipts of one attempt add up to what it trained since it began. Must not import ray or vllm; imported only by
a process that trains.
"""

import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from service.checkpoints import checkpoint_path, checkpoint_steps
from service.devices import Devices
from service.errors import InvalidInput
from service.receipts import Receipt, Usage
from service.training_flops import paper_training_flops, training_flops
from service.work import FinetuneWork
from workers.finetune_checkpoints import drop_old_states, publish
from workers.finetune_data import ReadingOrder, TrainingData

LOG_FILE = "log.jsonl"


class TrainingDiverged(InvalidInput):
    """Loss, gradient or weights are not finite any more; the message says where, and what to change."""

    title = "training diverged"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line of `log.jsonl`.

    Args:
        step: optimizer steps of the run that are done.
        loss: mean over the steps since the entry before [nats a completion token].
        grad_norm: of the last step, before clipping; None where the library does not say.
        tokens: trained since the run began, without padding.
        seconds: since this attempt took its first step.
        epoch: how often the training set has been read.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float | None
    tokens: int
    seconds: float
    epoch: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where an attempt goes on.

    Args:
        step: steps done before.
        checkpoint: directory it goes on from; None at the beginning.
        num_parts: checkpoints that lie in the attempt's own directory already.
        committed_step: of the newest checkpoint, damaged or not: none is made again.
    """

    step: int = 0
    checkpoint: Path | None = None
    num_parts: int = 0
    committed_step: int = 0


def num_processes() -> int:
    """Processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _devices() -> Devices:
    """One for each process that trains along."""
    return Devices(gpus=num_processes()) if torch.cuda.is_available() else Devices(cores=num_processes())


def process_rank() -> int:
    """Number of this process among them."""
    return distributed.get_rank() if num_processes() > 1 else 0


def wait_for_all() -> None:
    """Returns when every process that trains along is here."""
    if num_processes() > 1:
        distributed.barrier()


class TrainingWatch(TrainerCallback):
    """Watches one attempt.

    Args:
        details: what every `checkpoint.json` of the run says besides its receipt.
        adapter_parameters: trained parameters of adapters; None if every weight is trained.
    """

    def __init__(
        self,
        *,
        work: FinetuneWork,
        out_dir: Path,
        start: Start,
        data: TrainingData,
        order: ReadingOrder,
        details: dict[str, Any],
        adapter_parameters: int | None,
        on_log: Callable[[LogEntry], None],
        on_checkpoint: Callable[[Receipt], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._work = work
        self._out_dir = out_dir
        self._data = data
        self._order = order
        self._details = details
        self._adapter_parameters = adapter_parameters
        self._on_log = on_log
        self._on_checkpoint = on_checkpoint
        self._should_stop = should_stop
        self._steps = checkpoint_steps(work.training.steps, work.training.num_checkpoints)
        self._num_parts = start.num_parts
        self._due = {step for step in self._steps if step > start.committed_step}
        self._last_step = start.step
        self._logged_step = start.step
        self._entry: LogEntry | None = None
        self._loss_sum = 0.0
        self._tokens = self._count(0, start.step)
        self._started_at = self._marked_at = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Starts the clock."""
        self._started_at = self._marked_at = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Asks for a log line and a checkpoint where they are due, and for the end where it is wanted."""
        if state.global_step in self._due:
            control.should_log = control.should_save = True
        if self._is_to_stop():
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Writes the line.

        Raises:
            TrainingDiverged: loss or gradient is not finite.
        """
        if not logs or "loss" not in logs:
            return  # the library's own summary at the end
        state.log_history.clear()  # the log has it; the library would write it all again with every checkpoint
        step, loss, grad_norm = state.global_step, logs["loss"], logs.get("grad_norm")
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss} at step {step}", logs["learning_rate"])
        if grad_norm is not None and not math.isfinite(grad_norm):
            raise self._diverged(f"the gradient's norm is {grad_norm} at step {step}", logs["learning_rate"])
        self._loss_sum += loss * (step - self._logged_step)
        self._tokens += self._count(self._logged_step, step)
        self._logged_step = step
        self._entry = LogEntry(
            step=step,
            loss=loss,
            learning_rate=logs["learning_rate"],
            grad_norm=grad_norm,
            tokens=self._tokens,
            seconds=round(time.monotonic() - self._started_at, 4),
            epoch=self._order.epoch(step),
        )
        if state.is_world_process_zero:
            append_log(self._out_dir, self._entry)
            self._on_log(self._entry)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Publishes what the library has just saved.

        Raises:
            TrainingDiverged: a trained weight is not finite.
        """
        assert self._entry is not None, "a line is logged before every checkpoint"
        step = state.global_step
        trained = (weight for weight in kwargs["model"].parameters() if weight.requires_grad)
        if not all(bool(torch.isfinite(weight).all()) for weight in trained):
            raise self._diverged(f"a weight is not finite after step {step}", self._entry.learning_rate)
        receipt = self._receipt(step)
        wait_for_all()
        if state.is_world_process_zero:
            saved = Path(str(args.output_dir)) / f"checkpoint-{step}"
            details = self._details | {"log": dataclasses.asdict(self._entry)}
            written = publish(saved, checkpoint_path(self._out_dir, step), self._work.base, receipt, details)
            self._on_checkpoint(written)
            drop_old_states(self._out_dir)
        wait_for_all()
        self._num_parts += 1
        self._last_step, self._loss_sum = step, 0.0

    def _receipt(self, step: int) -> Receipt:
        """What was trained since the last checkpoint; path and hash come when it is written."""
        rows = self._order.between(self._last_step, step)
        sequences = self._data.sequence_tokens[rows]
        prompts = self._data.prompt_tokens[rows]
        cost, adapters = self._work.base.cost, self._adapter_parameters
        flops = training_flops(cost, sequences, sequences - prompts, adapter_parameters=adapters)
        flops_paper = paper_training_flops(cost, sequences, has_adapters=adapters is not None)
        now = time.monotonic()
        busy_s, self._marked_at = now - self._marked_at, now
        return Receipt(
            part=self._num_parts,
            path="",
            sha256="",
            rows=len(rows),
            usage=Usage.of_time(busy_s, _devices())
            + Usage(
                prompt_tokens=int(prompts.sum()),
                completion_tokens=int((sequences - prompts).sum()),
                flops=float(flops.sum()),
                flops_paper=float(flops_paper.sum()),
                nano_usd=math.nan,  # prices are for tokens that a model reads and writes
            ),
            facts={
                "step": float(step),
                "loss": self._loss_sum / (step - self._last_step),
                "checkpoint": float(self._steps.index(step) + 1),
                "epoch": self._order.epoch(step),
                "padding_tokens": float(self._order.padding(self._data.sequence_tokens, self._last_step, step)),
                "rows_too_long": float(self._data.num_too_long),
                "rows_unreadable": float(self._data.num_unreadable),
            },
        )

    def _count(self, first_step: int, last_step: int) -> int:
        return int(self._data.sequence_tokens[self._order.between(first_step, last_step)].sum())

    def _is_to_stop(self) -> bool:
        """Whether anybody was told to stop: all have to end at the same step."""
        if num_processes() == 1:
            return self._should_stop()
        wish = torch.tensor(int(self._should_stop()), device="cuda" if torch.cuda.is_available() else "cpu")
        distributed.all_reduce(wish, distributed.ReduceOp.MAX)
        return bool(wish.item())

    def _diverged(self, what: str, learning_rate: float) -> TrainingDiverged:
        kept = f"step {self._last_step}" if self._last_step else "none"
        return TrainingDiverged(
            f"{what}: training has diverged; last good checkpoint: {kept}; try a learning_rate under "
            f"{learning_rate:.3g}, a longer warmup or a smaller max_grad_norm"
        )


def append_log(out_dir: Path, entry: LogEntry) -> None:
    """Adds a line, so that a reader sees it at once."""
    with (out_dir / LOG_FILE).open("a") as file:
        file.write(json.dumps(dataclasses.asdict(entry)) + "\n")


def cut_log(out_dir: Path, step: int) -> None:
    """Removes lines of steps after `step`, which will be done again, and a line that was not finished."""
    path = out_dir / LOG_FILE
    if not path.exists():
        return
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    path.write_text("".join(line for line in lines if json.loads(line)["step"] <= step))
