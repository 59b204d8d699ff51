"""One student: its curves from the log, its checkpoints, what it costs."""

from collections.abc import Sequence
from datetime import datetime

import yaml

from api.artifact_views import finetune_log, finetune_out
from api.context import AppContext
from api.dashboard import pages
from api.dashboard.views.jobs import POLL_S, event_lines, shell_of
from api.dashboard.views.links import link_to
from api.dashboard.views.training import actions_of, finetune_lines, names_of
from api.resolve_artifacts import finetune_document
from api.wire.artifacts import FinetuneOut
from service import figures, wording
from service.artifacts import Artifact, ArtifactKind
from service.finetunes import FinetuneSpec, Method, TrainingSpec
from service.jobs import Phase
from service.store import Store

JOBS_SEARCHED = 500
JOBS_SHOWN = 6
_ADAPTERS_ONLY = ("lora_rank", "lora_alpha")


def finetune_page(context: AppContext, finetune_id: str, now: datetime) -> pages.FinetunePage:
    """One training run.

    Raises:
        NotFound: no such finetune.
        CorruptFile: a committed checkpoint cannot be read.
    """
    store = context.store
    artifact = store.artifacts.get(finetune_id, ArtifactKind.finetune)
    spec = artifact.spec
    assert isinstance(spec, FinetuneSpec)
    names = names_of(store)
    (line,) = finetune_lines(context, [artifact], names)
    log = finetune_log(context.settings, artifact)
    found = finetune_out(store, context.settings, artifact)
    eta_s = eta(log, line.steps) if artifact.phase is Phase.running else None
    points = [
        figures.LossPoint(
            step=int(each["step"]), loss=each["loss"], learning_rate=each["learning_rate"], epoch=each["epoch"]
        )
        for each in log
    ]
    return pages.FinetunePage(
        shell=shell_of(context, "training", now),
        run=line,
        headline=pages.finetune_headline(line, eta_s),
        error=artifact.error,
        actions=actions_of(artifact),
        facts=_facts(artifact, found, log, eta_s),
        figures=(
            figures.loss_figure(points, colour=line.colour, checkpoints=[each.step for each in found.checkpoints]),
            figures.learning_rate_figure(points, colour=line.colour),
        ),
        checkpoints=_checkpoints(store, found),
        settings=_settings(spec.training),
        events=event_lines(store, finetune_id),
        document=yaml.safe_dump(finetune_document(spec), sort_keys=False, allow_unicode=True),
        poll_s=None if artifact.phase.is_terminal else POLL_S,
    )


def eta(log: Sequence[dict[str, float]], steps: int) -> float | None:
    """Seconds until the last step at the pace of the running attempt; None before its second logged step."""
    starts = [i for i in range(1, len(log)) if log[i]["seconds"] < log[i - 1]["seconds"]]
    attempt = log[starts[-1] if starts else 0 :]
    if len(attempt) < 2:
        return None
    passed = attempt[-1]["seconds"] - attempt[0]["seconds"]
    return (steps - attempt[-1]["step"]) * passed / (attempt[-1]["step"] - attempt[0]["step"])


def _facts(
    artifact: Artifact, found: FinetuneOut, log: Sequence[dict[str, float]], eta_s: float | None
) -> tuple[tuple[str, str, str, str], ...]:
    last = log[-1] if log else None
    took_s = None if artifact.ended_at is None else (artifact.ended_at - artifact.created_at).total_seconds()
    span = ("took", took_s) if took_s is not None else ("time left", eta_s)
    return (
        ("loss", "loss", "–" if found.loss is None else f"{found.loss:.4g}", "of the last logged step, nats a token"),
        ("flops", "training FLOPs", wording.flops(found.flops), f"exact; {wording.flops(found.flops_paper)} paper"),
        ("tokens", "tokens trained", "–" if last is None else wording.count(last["tokens"]), "without padding"),
        ("passes", "passes over the data", "–" if last is None else f"{last['epoch']:.2f}", ""),
        (
            "time",
            span[0],
            "–" if span[1] is None else wording.duration(span[1]),
            f"{wording.device_hours(found.gpu_hours * 3600, found.cpu_hours * 3600)} of training",
        ),
    )


def _checkpoints(store: Store, found: FinetuneOut) -> tuple[pages.CheckpointLine, ...]:
    jobs_by_model: dict[str, list[pages.Link]] = {each.model: [] for each in found.checkpoints}
    for _, job in store.jobs.list(limit=JOBS_SEARCHED) if found.checkpoints else []:
        for model in job.spec.models:
            if model in jobs_by_model:
                jobs_by_model[model].append(link_to(job.id, job.spec.name, note=job.phase.value))
    return tuple(
        pages.CheckpointLine(
            model=each.model,
            step=each.step,
            loss=each.loss,
            jobs=tuple(jobs_by_model[each.model][:JOBS_SHOWN]),
            path=each.path,
        )
        for each in found.checkpoints
    )


def _settings(training: TrainingSpec) -> tuple[tuple[str, str], ...]:
    """Hyperparameters that count for the method."""
    names = [
        name
        for name in TrainingSpec.__dataclass_fields__
        if training.method is not Method.full or name not in _ADAPTERS_ONLY
    ]
    values = {name: getattr(training, name) for name in names}
    return tuple(
        (name, "the base's context" if value is None else f"{value:g}" if isinstance(value, float) else str(value))
        for name, value in values.items()
    )
