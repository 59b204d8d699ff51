"""One student in two processes, against the same student in one."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from service.errors import InvalidInput
from service.finetunes import TrainingSpec
from service.receipts import Receipt
from tests.workers.finetune_work import BASE, finetune_work, write_dataset
from workers.model_files import inspect_model
from workers.ray_cluster import RayCluster
from workers.trainer import Progress, Train

pytestmark = [
    pytest.mark.ray,
    # Ray Data, which Ray Train imports, sets options that it has itself deprecated
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]

STUDENT = Path(__file__).parents[2] / "examples" / "tiny-world" / "models" / "gsm-mini-small"
TRAINING = TrainingSpec(
    steps=4, batch_size=8, micro_batch_size=4, learning_rate=1e-2, optimizer="sgd", decay="constant", num_checkpoints=2
)


def trained(train: Train, work: Any, out_dir: Path) -> tuple[list[int], list[Receipt]]:
    lines: list[Progress] = []
    receipts: list[Receipt] = []
    train(work, out_dir, on_log=lines.append, on_checkpoint=receipts.append, should_stop=lambda: False)
    return [line.step for line in lines], receipts


def test_two_processes_train_the_same_batches_as_one(ray_cluster: Callable[..., RayCluster], tmp_path: Path) -> None:
    from workers.finetune import finetune
    from workers.ray_train import ray_training

    ray_cluster()
    base = dataclasses.replace(BASE, path=str(STUDENT), revision=inspect_model(STUDENT).revision)
    pairs = [
        (f"Eva has {a} coins. She finds 3 more. How many coins?\n", f"{a}+3={a + 3}. #### {a + 3}") for a in range(9)
    ]
    work = finetune_work(base, dataset=write_dataset(tmp_path / "data.parquet", pairs), training=TRAINING)
    train = ray_training(2, use_gpu=False, cpus_per_worker=0.5)

    alone_steps, alone = trained(finetune, work, tmp_path / "one.1")
    steps, receipts = trained(train, work, tmp_path / "two.1")

    assert steps == alone_steps == [1, 2, 3, 4]
    for mine, other in zip(receipts, alone, strict=True):
        assert (mine.part, mine.rows, mine.usage.flops, mine.facts["step"]) == (
            other.part,
            other.rows,
            other.usage.flops,
            other.facts["step"],
        )
        assert mine.facts["loss"] == pytest.approx(other.facts["loss"], rel=1e-4)
        weights, expected = (
            load_file(Path(os.path.dirname(part.path)) / "model.safetensors") for part in (mine, other)
        )
        torch.testing.assert_close(weights, expected, rtol=1e-4, atol=1e-6)
    assert sorted(path.name for path in (tmp_path / "two.1").iterdir()) == ["checkpoint-2", "checkpoint-4", "log.jsonl"]
    odd = dataclasses.replace(work, training=dataclasses.replace(TRAINING, micro_batch_size=8))
    with pytest.raises(InvalidInput, match=r"multiple of micro_batch_size x processes \(8 x 2\), got 8"):
        trained(train, odd, tmp_path / "odd.1")
