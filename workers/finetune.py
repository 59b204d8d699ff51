"""Trains a student on a training set: TRL's SFTTrainer, with checkpoints that resume exactly.

Owns one run from its work order to its last checkpoint. Invariants: `training.steps` optimizer steps of exactly
`batch_size` examples; the loss counts completions alone; prompts have the ids that engines are given; an attempt whose
checkpoints are on storage does not train them again; interrupted and resumed gives the same weights as going through.
Must not import ray or vllm; imported only by a process that trains, for it imports torch.

Several processes: every one calls `finetune` with the same work inside an initialised `torch.distributed` group; the
first writes and reports.
"""

import dataclasses
import gc
import math
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from service.checkpoints import CHECKPOINT_FILE, checkpoint_path, checkpoint_step, find_checkpoints
from service.errors import CorruptFile, InvalidInput
from service.finetunes import Method, TrainingSpec
from service.receipts import Receipt
from service.shards import make_directory
from service.work import FinetuneWork
from workers.finetune_checkpoints import check_resumable, find_whole, resume_directory
from workers.finetune_data import ReadingOrder, TrainingData, load_training_data
from workers.finetune_model import adapter_config, load_student, load_tokenizer
from workers.finetune_watch import LogEntry, Start, TrainingWatch, cut_log, num_processes, process_rank, wait_for_all

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WORK_DIRECTORY = ".work"
_LOG_LINES = 1000  # a run logs every step until that would be more lines than this
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_LIBRARIES = ("torch", "transformers", "trl", "peft")


class OutOfMemory(InvalidInput):
    """A micro batch does not fit; the message names the next size to try."""

    title = "out of memory"


def finetune(
    work: FinetuneWork,
    out_dir: str | Path,
    *,
    on_log: Callable[[LogEntry], None],
    on_checkpoint: Callable[[Receipt], None],
    should_stop: Callable[[], bool],
) -> None:
    """Trains until the last step, or until `should_stop`: then the next attempt goes on from the last checkpoint.

    Args:
        out_dir: of the attempt; gets `checkpoint-<step>` directories and `log.jsonl`.
        on_log: called with every line of the log.
        on_checkpoint: called with the receipt of every checkpoint, once it is durable; first with those that an
            earlier process of the same attempt left in `out_dir`.
        should_stop: asked after every step.

    Raises:
        InvalidInput: work that stays wrong however often it is tried; `OutOfMemory` and `TrainingDiverged` are such.
        CorruptFile: the training set or the checkpoint to go on from is not what was committed.
    """
    out = Path(out_dir)
    check_work(work)
    make_directory(out)
    start = _start(work, out, on_checkpoint)
    if start.step >= work.training.steps or should_stop():
        return
    cut_log(out, start.step)
    try:
        _train(work, out, start, on_log, on_checkpoint, should_stop)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(work.training, error) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # what torch raises without a GPU
            raise
        raise _out_of_memory(work.training, error) from error
    finally:
        shutil.rmtree(out / _WORK_DIRECTORY, ignore_errors=True)
        gc.collect()
        torch.cuda.empty_cache()


def check_work(work: FinetuneWork) -> None:
    """Checks what can be wrong before anything is loaded.

    Raises:
        InvalidInput: a number or a name is not allowed; the message says which.
    """
    training = work.training
    if work.base.engine.simulated:
        raise InvalidInput(f"{work.base.name} is a simulated model: it has no weights to train")
    for name in ("steps", "num_checkpoints", "batch_size", "micro_batch_size"):
        if getattr(training, name) < 1:
            raise InvalidInput(f"{name} must be >= 1, got {getattr(training, name)}")
    if training.num_checkpoints > training.steps:
        raise InvalidInput(f"num_checkpoints must be <= steps ({training.steps}), got {training.num_checkpoints}")
    share = training.micro_batch_size * num_processes()
    if training.batch_size % share:
        raise InvalidInput(
            f"batch_size must be a multiple of micro_batch_size x processes ({training.micro_batch_size} x "
            f"{num_processes()}), got {training.batch_size}"
        )
    if not 0.0 <= training.warmup < 1.0:
        raise InvalidInput(f"warmup is a share of the steps and must be in [0, 1), got {training.warmup}")
    if training.decay not in _SCHEDULES:
        raise InvalidInput(f"decay must be one of {', '.join(_SCHEDULES)}, got {training.decay!r}")


def _start(work: FinetuneWork, out: Path, on_checkpoint: Callable[[Receipt], None]) -> Start:
    """Where to go on; leftovers that never became a checkpoint are removed."""
    is_first = process_rank() == 0
    if is_first:
        shutil.rmtree(out / _WORK_DIRECTORY, ignore_errors=True)
        for directory in out.glob("checkpoint-*"):
            if not (directory / CHECKPOINT_FILE).exists():
                shutil.rmtree(directory)
    wait_for_all()
    earlier = find_checkpoints(out)
    for receipt in earlier:
        if is_first:
            on_checkpoint(receipt)
    if earlier:
        checkpoint = checkpoint_path(out, int(earlier[-1].facts["step"]))
        step = check_resumable(work, checkpoint, _identity(work))
        return Start(step=step, checkpoint=checkpoint, num_parts=len(earlier), committed_step=step)
    return Start() if work.resume_from is None else _start_after(work, Path(work.resume_from), out)


def _start_after(work: FinetuneWork, checkpoint: Path, out: Path) -> Start:
    """At a committed checkpoint of an earlier attempt; if it is damaged, further back on the way to it."""
    committed_step = checkpoint_step(checkpoint)
    try:
        step = check_resumable(work, checkpoint, _identity(work))
    except CorruptFile:
        if committed_step >= work.training.steps:
            raise  # it is what the run was for, and is committed: training it again would not mend it
        whole = find_whole(work, out, checkpoint, _identity(work))
        step = 0 if whole is None else checkpoint_step(whole)
        return Start(step=step, checkpoint=whole, committed_step=committed_step)
    return Start(step=step, checkpoint=checkpoint, committed_step=step)


def _train(
    work: FinetuneWork,
    out: Path,
    start: Start,
    on_log: Callable[[LogEntry], None],
    on_checkpoint: Callable[[Receipt], None],
    should_stop: Callable[[], bool],
) -> None:
    tokenizer = load_tokenizer(work.base)
    data = load_training_data(work, tokenizer)
    order = ReadingOrder.of(work.training, data.num_rows)
    trainer = _trainer(work, out, tokenizer, _dataset(data, order))
    assert trainer.model is not None, "the trainer was given one"
    trained = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)
    watch = TrainingWatch(
        work=work,
        out_dir=out,
        start=start,
        data=data,
        order=order,
        details=_identity(work) | {"versions": {name: version(name) for name in _LIBRARIES}},
        adapter_parameters=None if work.training.method is Method.full else trained,
        on_log=on_log,
        on_checkpoint=on_checkpoint,
        should_stop=should_stop,
    )
    trainer.add_callback(watch)
    resume = None
    if start.checkpoint is not None:
        view = out / _WORK_DIRECTORY / f"resume-{process_rank()}"
        resume = str(resume_directory(start.checkpoint, view))
    trainer.train(resume_from_checkpoint=resume)


def _trainer(work: FinetuneWork, out: Path, tokenizer: "PreTrainedTokenizerBase", dataset: Dataset) -> SFTTrainer:
    arguments = training_arguments(work.training, out / _WORK_DIRECTORY)
    trainer = SFTTrainer(
        model=load_student(work.base, work.training.method),
        args=arguments,
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=adapter_config(work.training),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_arguments(training: TrainingSpec, work_dir: Path) -> SFTConfig:
    """What the library is told.

    Mixed precision and recomputed activations only on a GPU: on a CPU both are slower and save nothing that is short.

    Raises:
        InvalidInput: the library does not know the optimizer.
    """
    has_gpu = torch.cuda.is_available()
    try:
        return SFTConfig(
            output_dir=str(work_dir),
            max_steps=training.steps,
            per_device_train_batch_size=training.micro_batch_size,
            gradient_accumulation_steps=training.batch_size // (training.micro_batch_size * num_processes()),
            learning_rate=training.learning_rate,
            optim=training.optimizer,
            weight_decay=training.weight_decay,
            max_grad_norm=training.max_grad_norm,
            warmup_steps=math.ceil(training.steps * training.warmup),
            lr_scheduler_type=_SCHEDULES[training.decay],
            seed=training.seed,
            use_cpu=not has_gpu,
            bf16=has_gpu,
            gradient_checkpointing=has_gpu,
            dataloader_pin_memory=has_gpu,
            # rows come in the order of the run, with ids and labels; the library only batches them
            train_sampling_strategy="sequential",
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
            completion_only_loss=True,
            logging_steps=math.ceil(training.steps / _LOG_LINES),
            logging_nan_inf_filter=False,  # it would write the last finite loss in place of one that is not
            save_strategy="no",  # the watch says when
            report_to="none",
            disable_tqdm=True,
        )
    except ValueError as error:
        raise InvalidInput(f"optimizer {training.optimizer!r}: {error}") from error


def _dataset(data: TrainingData, order: ReadingOrder) -> Dataset:
    """Every row that is trained, in order: a view of the set, which is held once."""
    rows = Dataset.from_dict(
        {"input_ids": data.token_ids, "labels": [data.labels(row) for row in range(data.num_rows)]}
    )
    return rows.select(order.rows)


def _identity(work: FinetuneWork) -> dict[str, Any]:
    """What has to be the same for a run to be the same."""
    return {
        "base": work.base.name,
        "base_revision": work.base.revision,
        "dataset_sha256": work.dataset_sha256,
        "training": dataclasses.asdict(work.training),
    }


def _out_of_memory(training: TrainingSpec, error: BaseException) -> OutOfMemory:
    size, share = training.micro_batch_size, training.batch_size // num_processes()
    smaller = [number for number in range(1, size) if share % number == 0]
    advice = (
        f"try micro_batch_size {smaller[-1]}: a step still trains {training.batch_size} examples, in more passes"
        if smaller
        else "it cannot be smaller: try a shorter max_length, method lora, or a device with more memory"
    )
    return OutOfMemory(f"out of memory with micro_batch_size {size}; {advice} ({type(error).__name__}: {error})")
