"""A student trained by a real trainer in a real actor, through the death of its process."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.cluster import AttemptState, HostKind, HostSpec, HostState
from service.finetunes import TrainingSpec
from service.models import ModelSpec
from tests.workers.finetune_work import BASE, finetune_attempt, finetune_work, write_dataset
from workers.model_files import inspect_model
from workers.ray_cluster import RayCluster

pytestmark = pytest.mark.ray

STUDENT = Path(__file__).parents[2] / "examples" / "tiny-world" / "models" / "gsm-mini-small"
TRAINING = TrainingSpec(steps=60, batch_size=32, micro_batch_size=32, learning_rate=1e-3, num_checkpoints=3)


def trainer(name: str) -> HostSpec:
    return HostSpec(name=name, kind=HostKind.trainer, num_cpus=0.5)


def student() -> ModelSpec:
    return dataclasses.replace(BASE, name="student", path=str(STUDENT), revision=inspect_model(STUDENT).revision)


def test_student_whose_trainer_was_killed_goes_on_from_its_last_checkpoint_in_another(
    ray_cluster: Callable[..., RayCluster], drive: Callable[..., Any], tmp_path: Path
) -> None:
    pairs = [
        (f"Eva has {a} coins. She finds 3 more. How many coins?\n", f"{a}+3={a + 3}. #### {a + 3}") for a in range(9)
    ]
    work = finetune_work(student(), dataset=write_dataset(tmp_path / "data.parquet", pairs), training=TRAINING)
    driver = drive(ray_cluster())
    ready = driver.start(trainer("first"))
    assert ready.load_s > 0
    first = finetune_attempt(tmp_path, "t.1", work)
    driver.submit("first", first)
    running = driver.until_attempt("first", "t.1", lambda attempt: attempt.receipts)
    os.kill(ready.pid, 9)
    driver.until_state("first", HostState.dead)

    salvaged = driver.cluster.salvage("t.1", first.out_dir, 0)

    # as text: what nobody can tell is NaN, which is not equal to itself
    assert repr(salvaged[: len(running.receipts)]) == repr(running.receipts)
    resumed = dataclasses.replace(work, resume_from=os.path.dirname(salvaged[-1].path))
    driver.start(trainer("second"))
    driver.submit("second", finetune_attempt(tmp_path, "t.2", resumed))
    done = driver.until_over("second", "t.2")
    assert (done.state, done.error, done.admitted, done.finished) == (AttemptState.succeeded, None, 60, 60)
    steps = [int(receipt.facts["step"]) for receipt in (*salvaged, *done.receipts)]
    assert steps == [20, 40, 60]
    lines = [json.loads(line) for line in (tmp_path / "t.2" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(steps[len(salvaged) - 1] + 1, 61))
    assert inspect_model(Path(done.receipts[-1].path).parent).context_len == 192
