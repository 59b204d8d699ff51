"""Selection and finetune documents become specs and work: names checked, files found, hyperparameters filled in.

All that can be wrong with a document is said here, before anything runs. Must not import workers.
"""

import dataclasses
from typing import Any

from api.resolve_judges import to_ask, to_judges
from api.wire.artifacts import FinetuneDocument, SelectionDocument, TrainingDocument
from service.artifacts import ArtifactKind
from service.errors import Conflict, InvalidInput
from service.finetunes import FinetuneSpec, Method, TrainingSpec, preset
from service.jobs import Job
from service.measures import Measures
from service.planner.submit import manifest_path
from service.selection.spec import Duplicates, Keep, SelectionSource, SelectionSpec
from service.store import Store
from service.work import FinetuneWork, SelectSource, SelectWork, TaskKind


def to_selection(document: SelectionDocument, store: Store, data_dir: str) -> tuple[SelectionSpec, SelectWork]:
    """The training set that the document asks for.

    Raises:
        NotFound: a source or judge that is no job.
        UnknownName: a held-out problem set that does not exist.
        Conflict: a source or judge has not ended.
        InvalidInput: a source has no samples, or was not scored for what `keep` needs; a judge judges none of them.
    """
    jobs = [store.jobs.get(source.job) for source in document.sources]
    for job, source in zip(jobs, document.sources, strict=True):
        _check_source(document, job, store)
        known = [arm.name for arm in job.spec.all_arms]
        if unknown := [name for name in source.arms if name not in known]:
            raise InvalidInput(f"sources.arms: got {unknown[0]!r}, allowed of {job.id}: {', '.join(known)}")
    own = {job.spec.problems for job in jobs}
    if document.held_out == "auto":
        held_out = [item.name for item in store.catalogue.problem_sets() if item.name not in own]
    else:
        held_out = document.held_out
    spec = SelectionSpec(
        name=document.name or f"{document.keep} of {', '.join(dict.fromkeys(job.spec.name for job in jobs))}"[:200],
        sources=tuple(
            SelectionSource(job=source.job, share=source.share, arms=tuple(source.arms)) for source in document.sources
        ),
        keep=Keep(document.keep),
        scorer=document.scorer,
        duplicates=Duplicates(document.duplicates),
        per_problem=document.per_problem,
        problems=document.problems,
        rows=document.rows,
        held_out=tuple(held_out),
        ngram=document.ngram,
        seed=document.seed,
        ask=to_ask(document.ask),
        judges=tuple(document.judges),
    )
    sources = tuple(
        SelectSource(
            job_id=job.id,
            manifest_path=manifest_path(data_dir, job.id),
            problems_path=store.jobs.resolved(job.id).problems_path,
        )
        for job in jobs
    )
    paths = tuple(store.catalogue.problem_set(name).path for name in held_out)
    judges = to_judges(document, store, data_dir)
    return spec, SelectWork(spec=spec, sources=sources, held_out=paths, judges=judges)


def _check_source(document: SelectionDocument, job: Job, store: Store) -> None:
    if not job.phase.is_terminal:
        raise Conflict(f"sources: job {job.id} is {job.phase}, allowed: a job that has ended")
    if not store.reads.count_parts(job.id, TaskKind.generate):
        raise InvalidInput(f"sources: job {job.id} ({job.phase}) has no samples")
    scorers = job.spec.scorers
    measures = Measures.of(scorers)
    if document.scorer is not None and document.scorer not in scorers:
        raise InvalidInput(
            f"scorer: got {document.scorer!r}, allowed: a scorer of every source; {job.id} has "
            f"{', '.join(scorers) or 'none'}"
        )
    if document.keep in ("correct", "majority", "verified") and not measures.has_answers:
        raise InvalidInput(
            f"keep: got {document.keep!r}, which needs a scorer of answers; {job.id} has {', '.join(scorers) or 'none'}"
        )
    if document.keep == "verified" and not measures.has_steps:
        raise InvalidInput(f"keep: got 'verified', which needs the scorer steps; {job.id} has {', '.join(scorers)}")


def to_finetune(document: FinetuneDocument, store: Store) -> tuple[FinetuneSpec, FinetuneWork]:
    """The training run that the document asks for.

    Raises:
        NotFound: no such selection.
        UnknownName: no such model or preset.
        Conflict: the selection is not made.
        InvalidInput: hyperparameters that contradict each other or the base.
    """
    base = store.catalogue.model(document.base)
    dataset = store.artifacts.get(document.dataset, ArtifactKind.selection)
    parts = store.reads.parts(dataset.id, TaskKind.select)
    if not parts:
        raise Conflict(f"dataset: {dataset.id} is {dataset.phase}, allowed: a selection that succeeded")
    training = to_training(document.preset, document.training)
    if training.max_length is not None and training.max_length > base.context_len:
        raise InvalidInput(
            f"training.max_length: got {training.max_length}, allowed: 2 to {base.context_len}, the base's context"
        )
    if base.endpoint is not None:
        raise InvalidInput(
            f"base: got {base.name!r}, whose weights are on a server elsewhere; allowed: one loaded here"
        )
    if base.engine.simulated:
        raise InvalidInput(f"base: got {base.name!r}, a simulated model, which has no weights; allowed: a real one")
    spec = FinetuneSpec(
        name=document.name or f"{document.base} on {dataset.spec.name}"[:200],
        base=document.base,
        dataset=dataset.id,
        training=training,
    )
    return spec, FinetuneWork(
        base=base, dataset_path=parts[-1].path, dataset_sha256=parts[-1].sha256, training=training
    )


def to_training(name: str, document: TrainingDocument) -> TrainingSpec:
    """A preset's hyperparameters with those of the document in their place.

    Raises:
        UnknownName: no such preset.
        InvalidInput: hyperparameters that contradict each other.
    """
    changes = {field: value for field, value in document.model_dump().items() if value is not None}
    if "method" in changes:
        changes["method"] = Method(changes["method"])
    training = dataclasses.replace(preset(name), **changes)
    if training.batch_size % training.micro_batch_size:
        raise InvalidInput(
            f"training.micro_batch_size: got {training.micro_batch_size}, allowed: a divisor of batch_size "
            f"({training.batch_size})"
        )
    if training.num_checkpoints > training.steps:
        raise InvalidInput(
            f"training.num_checkpoints: got {training.num_checkpoints}, allowed: 1 to steps ({training.steps})"
        )
    return training


def selection_document(spec: SelectionSpec) -> dict[str, Any]:
    """The resolved document of a selection: submitting it again asks for the same."""
    return {
        "name": spec.name,
        "sources": [
            {"job": source.job}
            | ({} if source.share is None else {"share": source.share})
            | ({"arms": list(source.arms)} if source.arms else {})
            for source in spec.sources
        ],
        "keep": spec.keep.value,
        "scorer": spec.scorer,
        "duplicates": spec.duplicates.value,
        "held_out": list(spec.held_out),
        "ngram": spec.ngram,
        "problems": spec.problems,
        "per_problem": spec.per_problem,
        "rows": spec.rows,
        "seed": spec.seed,
        "ask": spec.ask,
        "judges": list(spec.judges),
    }


def finetune_document(spec: FinetuneSpec) -> dict[str, Any]:
    """The resolved document of a finetune: every hyperparameter, whatever preset it came from."""
    training = dataclasses.asdict(spec.training) | {"method": spec.training.method.value}
    return {"name": spec.name, "base": spec.base, "dataset": spec.dataset, "training": training}
