"""Trains one student in several processes: `workers.finetune` in the workers of a Ray TorchTrainer.

Owns how a trainer host commands processes that it does not share memory with. They meet in the attempt's directory,
which all of them have to see in any case: workers write the log and the checkpoints there, the host reads both and
leaves a file where they are to stop. Invariant: Ray retries nothing; what to do about a failure is for the controller
to say.
"""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import WorkerGroupError

from service.checkpoints import find_checkpoints
from service.errors import IsoflopError
from service.receipts import Receipt
from service.shards import make_directory
from service.work import FinetuneWork
from workers.finetune import finetune
from workers.finetune_watch import LOG_FILE, LogEntry
from workers.trainer import Progress, Train

_POLL_S = 0.5
_STOP_FILE = ".stop"
_RAY_DIRECTORY = ".ray"


def ray_training(num_workers: int, *, use_gpu: bool, cpus_per_worker: float = 1.0) -> Train:
    """A `Train` that runs in `num_workers` processes, one GPU each if there are any."""

    def train(
        work: FinetuneWork,
        out_dir: str | Path,
        *,
        on_log: Callable[[Progress], None],
        on_checkpoint: Callable[[Receipt], None],
        should_stop: Callable[[], bool],
    ) -> None:
        out = Path(out_dir).resolve()
        make_directory(out)
        (out / _STOP_FILE).unlink(missing_ok=True)
        trainer = TorchTrainer(
            _train_worker,
            train_loop_config={"work": work, "out_dir": str(out)},
            scaling_config=ScalingConfig(
                num_workers=num_workers,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": cpus_per_worker, "GPU": 1.0 if use_gpu else 0.0},
            ),
            run_config=RunConfig(
                name="run",
                storage_path=str(out / _RAY_DIRECTORY),
                failure_config=FailureConfig(max_failures=0, max_preemption_failures=0),
            ),
        )
        reader = _Reader(out, on_log, on_checkpoint)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ray-train") as pool:
            fitting = pool.submit(trainer.fit)
            _follow(fitting, reader, out, should_stop)
        shutil.rmtree(out / _RAY_DIRECTORY, ignore_errors=True)
        (out / _STOP_FILE).unlink(missing_ok=True)
        _raise_cause(fitting)

    return train


def _follow(fitting: Future[Any], reader: "_Reader", out: Path, should_stop: Callable[[], bool]) -> None:
    """Passes on what workers write, and the wish to stop, until they have ended."""
    while not fitting.done():
        wait([fitting], _POLL_S)
        reader.read()
        if should_stop():
            (out / _STOP_FILE).touch()
    reader.read()


def _train_worker(config: dict[str, Any]) -> None:
    """One of the processes."""
    stop = Path(config["out_dir"]) / _STOP_FILE
    finetune(config["work"], config["out_dir"], on_log=_ignore, on_checkpoint=_ignore, should_stop=stop.exists)


def _ignore(_: object) -> None:
    """The host reads it from the directory."""


class _Reader:
    """Reports each line and each checkpoint of a directory once."""

    def __init__(
        self, out_dir: Path, on_log: Callable[[Progress], None], on_checkpoint: Callable[[Receipt], None]
    ) -> None:
        self._out_dir = out_dir
        self._on_log = on_log
        self._on_checkpoint = on_checkpoint
        self._last_step = 0
        self._num_parts = 0

    def read(self) -> None:
        """Looks for new ones."""
        path = self._out_dir / LOG_FILE
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        for line in lines:
            # the last line may be in the making
            if line.endswith("\n") and (entry := LogEntry(**json.loads(line))).step > self._last_step:
                self._last_step = entry.step
                self._on_log(entry)
        for receipt in find_checkpoints(self._out_dir, self._num_parts):
            self._num_parts = receipt.part + 1
            self._on_checkpoint(receipt)


def _raise_cause(fitting: Future[Any]) -> None:
    """Raises what a worker raised, if the project knows it, and else what Ray says."""
    try:
        fitting.result()
    except WorkerGroupError as error:
        for failure in error.worker_failures.values():
            # Ray wraps what a worker raised, and has no other way to it
            cause = getattr(failure, "_base_exc", failure)
            if isinstance(cause, IsoflopError):
                raise cause from error
        raise
