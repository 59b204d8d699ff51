"""Builds finetune work with defaults that suit most tests, on a model that need not exist."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.finetunes import TrainingSpec
from service.models import ModelSpec
from service.records import SELECTED_SCHEMA
from service.shards import file_sha256
from service.work import AttemptSpec, FinetuneWork, TaskKind
from tests.workers.generate_attempts import COST

BASE = ModelSpec(name="base", path="nowhere", revision="sha256:0", context_len=192, cost=COST)
TRAINING = TrainingSpec(steps=4, batch_size=4, micro_batch_size=2, learning_rate=1e-3, num_checkpoints=2)


def finetune_work(base: ModelSpec = BASE, *, dataset: Path | None = None, **changes: Any) -> FinetuneWork:
    """Work on `dataset`; `changes` override fields of the work, `training` among them."""
    arguments: dict[str, Any] = {
        "base": base,
        "dataset_path": str(dataset or "nowhere"),
        "dataset_sha256": "0" if dataset is None else file_sha256(dataset),
        "training": TRAINING,
        **changes,
    }
    return FinetuneWork(**arguments)


def finetune_attempt(directory: Path, name: str, work: FinetuneWork | None = None) -> AttemptSpec:
    """An attempt called `name` that writes to `directory/name`."""
    return AttemptSpec(
        attempt_id=name,
        job_id="job",
        kind=TaskKind.finetune,
        work=work or finetune_work(),
        out_dir=str(directory / name),
    )


def write_dataset(path: Path, pairs: Sequence[tuple[str, str]]) -> Path:
    """A training set of prompts and completions."""
    rows = [
        {
            "prompt": prompt,
            "completion": completion,
            "problem_id": f"p{number}",
            "sample_id": f"s{number}",
            "job_id": "job",
            "source": 0,
            "model": "m",
            "arm": "m",
            "prompt_id": "p",
            "sampling_id": "s",
            "is_correct": True,
            "is_verified": None,
            "completion_tokens": 1,
        }
        for number, (prompt, completion) in enumerate(pairs)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SELECTED_SCHEMA), path)
    return path
