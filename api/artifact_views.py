"""Selections and finetunes as they go out, what is stored and what the log says; and what all views share."""

import json
from pathlib import Path
from typing import Any

from api.resolve_artifacts import finetune_document, selection_document
from api.wire.artifacts import CheckpointOut, FinetuneOut, JudgedOut, SelectionOut
from api.wire.submitted import ChildOut, DevicesOut, Measured
from service.artifacts import Artifact, checkpoint_model
from service.checkpoints import read_document
from service.config import Settings
from service.devices import SECONDS_PER_HOUR
from service.errors import CorruptFile
from service.finetunes import FinetuneSpec
from service.jobs import Job
from service.planner.submit import job_dir
from service.selection.judge_quality import Judged
from service.selection.lineage import read_lineage
from service.selection.spec import SelectionSpec
from service.stats import Estimate, NotEstimable
from service.store import Store
from service.store.reads import Part
from service.work import FinetuneWork, TaskKind

_TAIL_BYTES = 4096
"""Of a log, enough for several lines."""


def shared_fields(submitted: Job | Artifact) -> dict[str, Any]:
    """Fields of `SubmittedOut` but the document."""
    return {
        "id": submitted.id,
        "name": submitted.spec.name,
        "phase": submitted.phase,
        "desired": submitted.desired,
        "created_at": submitted.created_at,
        "ended_at": submitted.ended_at,
        "error": submitted.error,
    }


def parent_fields(store: Store, artifact: Artifact) -> dict[str, Any]:
    """Fields of `ParentOut` but the document. Reads no scores: lists and people who wait ask for it often."""
    children = store.reads.child_phases(artifact.id)
    ids = [child_id for _, child_id, _ in children]
    return shared_fields(artifact) | {
        "flops_by_stage": store.reads.flops_by_stage(ids),
        "devices": DevicesOut.of(store.reads.time_by_stage(ids)),
        "children": [ChildOut(key=key, id=child_id, phase=phase) for key, child_id, phase in children],
    }


def measured(estimate: Estimate) -> Measured:
    """An estimate with its interval as it goes out."""
    return Measured(value=estimate.value, low=estimate.low, high=estimate.high)


def selection_out(store: Store, artifact: Artifact) -> SelectionOut:
    """A selection as it goes out."""
    assert isinstance(artifact.spec, SelectionSpec)
    parts = store.reads.parts(artifact.id, TaskKind.select)
    made = parts[-1] if parts else None
    lineage = read_lineage(made.path) if made else None  # from the footer: the file is as large as its texts
    return SelectionOut(
        **shared_fields(artifact),
        document=selection_document(artifact.spec),
        rows=made.rows if made else None,
        rows_after={count.name: float(count.rows) for count in lineage.filters} if lineage else {},
        path=made.path if made else None,
        sha256=made.sha256 if made else None,
        judged=None if lineage is None or lineage.judged is None else _judged_out(lineage.judged),
    )


def _judged_out(judged: Judged) -> JudgedOut:
    return JudgedOut(
        yes=judged.yes,
        no=judged.no,
        undecided=judged.undecided,
        sensitivity=_measured_or_none(judged.sensitivity),
        specificity=_measured_or_none(judged.specificity),
        false_positive_rate=_measured_or_none(judged.apparent),
        false_positive_rate_corrected=_measured_or_none(judged.corrected),
    )


def _measured_or_none(estimate: Estimate | NotEstimable) -> Measured | None:
    return measured(estimate) if isinstance(estimate, Estimate) else None


def finetune_out(store: Store, settings: Settings, artifact: Artifact) -> FinetuneOut:
    """A finetune as it goes out."""
    assert isinstance(artifact.spec, FinetuneSpec)
    assert isinstance(artifact.work, FinetuneWork)
    parts, usage = store.reads.parts(artifact.id, TaskKind.finetune), store.reads.usage(job_id=artifact.id)
    logged = last_log_entry(settings, artifact)
    checkpoints = [_checkpoint(artifact, artifact.work, part) for part in parts]
    steps_done = max([int(logged["step"]) if logged else 0, *(checkpoint.step for checkpoint in checkpoints)])
    return FinetuneOut(
        **shared_fields(artifact),
        document=finetune_document(artifact.spec),
        steps=artifact.spec.training.steps,
        steps_done=steps_done,
        loss=logged["loss"] if logged else None,
        flops=sum(part.usage.flops for part in parts),
        flops_paper=sum(part.usage.flops_paper for part in parts),
        busy_s=sum(row.busy_s for row in usage),
        gpu_hours=sum(row.gpu_s for row in usage) / SECONDS_PER_HOUR,
        cpu_hours=sum(row.cpu_s for row in usage) / SECONDS_PER_HOUR,
        checkpoints=checkpoints,
    )


def finetune_log(settings: Settings, artifact: Artifact) -> list[dict[str, float]]:
    """Logged steps in order. An attempt that went on from a checkpoint replaces what came after it before."""
    entries: list[dict[str, float]] = []
    for path in _logs(settings, artifact):
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                break  # the last line of a process that was killed
            while entries and entries[-1]["step"] >= entry["step"]:
                entries.pop()
            entries.append(entry)
    return entries


def last_log_entry(settings: Settings, artifact: Artifact) -> dict[str, float] | None:
    """The end of `finetune_log`, without reading the rest; None before the first step."""
    for path in reversed(_logs(settings, artifact)):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().splitlines()
        for line in reversed(lines):
            try:
                return json.loads(line)
            except ValueError:
                continue  # cut off, by the process's end or by where the tail begins
    return None


def _logs(settings: Settings, artifact: Artifact) -> list[Path]:
    """The logs of all attempts, oldest first."""
    directory = Path(job_dir(str(settings.data_dir), artifact.id)) / "attempts"
    return sorted(directory.glob("*/log.jsonl"), key=lambda path: int(path.parent.name.rpartition(".")[2]))


def _checkpoint(artifact: Artifact, work: FinetuneWork, part: Part) -> CheckpointOut:
    directory = Path(part.path).parent
    try:
        loss = float(read_document(directory)["facts"]["loss"])
    except CorruptFile:
        loss = None  # one damaged file must not hide the others
    step = int(directory.name.removeprefix("checkpoint-"))
    model = checkpoint_model(work.base, artifact.id, step=step, path=part.path, sha256=part.sha256)
    return CheckpointOut(model=model.name, step=step, loss=loss, path=model.path)
