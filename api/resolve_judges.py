"""Judges in documents: a job whose problems are the rows of a selection, and a selection that keeps what judges found.

All that can be wrong is said here, before anything runs. Must not import workers.
"""

import dataclasses
from typing import Any

from api.resolve_parts import prompt_document, sampling_document, to_prompt, to_sampling
from api.wire.artifacts import SelectionDocument
from api.wire.comparisons import JudgeDocument
from service.artifacts import ArtifactKind
from service.errors import Conflict, InvalidInput, NotFound
from service.experiments.judging import question_set
from service.experiments.spec import JudgeSpec, ResolvedSet
from service.jobs import Job
from service.planner.submit import manifest_path
from service.sampling import SamplingSpec
from service.selection.judging import JUDGE_SCORER, JUDGE_TEMPLATE, check_template
from service.selection.spec import Keep, SelectionSpec
from service.store import Store
from service.store.catalogue import is_selection_id
from service.work import SelectSource, TaskKind


def to_ask(text: str | None) -> str | None:
    """The template that `ask` means.

    Raises:
        InvalidInput: a text that does not show the solution.
    """
    if text is None:
        return None
    template = JUDGE_TEMPLATE if text == "default" else text
    check_template(template)
    return template


def to_judge(document: JudgeDocument) -> JudgeSpec:
    """The judge that a comparison asks for.

    Raises:
        InvalidInput: a question that does not show the solution.
    """
    template = to_ask(document.ask)
    assert template is not None, "a judge is always asked something"
    sampling = SamplingSpec() if document.sampling is None else to_sampling(document.sampling)
    if document.sampling is None or "temperature" not in document.sampling.model_fields_set:
        # one verdict is the model's likeliest, several are opinions
        sampling = dataclasses.replace(sampling, temperature=0.0 if document.votes == 1 else 0.7)
    return JudgeSpec(
        model=document.model,
        template=template,
        keep=Keep(document.keep),
        votes=document.votes,
        prompt=to_prompt(document.prompt),
        sampling=sampling,
    )


def judge_document(judge: JudgeSpec) -> dict[str, Any]:
    """The resolved document of a comparison's judge: submitting it again asks for the same."""
    return {
        "model": judge.model,
        "ask": judge.template,
        "keep": judge.keep.value,
        "votes": judge.votes,
        "prompt": prompt_document(judge.prompt),
        "sampling": sampling_document(judge.sampling),
    }


def questions_of(selection_id: str, store: Store) -> ResolvedSet:
    """The rows of a selection as a problem set.

    Raises:
        NotFound: no such selection.
        Conflict: it is not made.
        InvalidInput: it asks nothing.
    """
    selection = store.artifacts.get(selection_id, ArtifactKind.selection)
    assert isinstance(selection.spec, SelectionSpec)
    if selection.spec.ask is None:
        raise InvalidInput(f"problems: got {selection_id!r}, allowed: a problem set, or a selection with `ask`")
    parts = store.reads.parts(selection_id, TaskKind.select)
    if not parts:
        raise Conflict(f"problems: {selection_id} is {selection.phase}, allowed: a selection that succeeded")
    made = parts[-1]
    return question_set(selection_id, path=made.path, sha256=made.sha256, num_rows=made.rows)


def to_judges(document: SelectionDocument, store: Store, data_dir: str) -> tuple[SelectSource, ...]:
    """The judging jobs of a selection and the questions that they answered.

    Raises:
        NotFound: a judge that is no job.
        Conflict: one has not ended.
        InvalidInput: one judges nothing, or nothing of these sources.
    """
    return tuple(_judge(store.jobs.get(job_id), document, store, data_dir) for job_id in document.judges)


def _judge(job: Job, document: SelectionDocument, store: Store, data_dir: str) -> SelectSource:
    if not job.phase.is_terminal:
        raise Conflict(f"judges: job {job.id} is {job.phase}, allowed: a job that has ended")
    if JUDGE_SCORER not in job.spec.scorers:
        has = ", ".join(job.spec.scorers) or "none"
        raise InvalidInput(f"judges: got {job.id} with scorers {has}, allowed: a job with the scorer {JUDGE_SCORER}")
    try:
        if not is_selection_id(job.spec.problems):
            raise NotFound(job.spec.problems)
        asked = store.artifacts.get(job.spec.problems, ArtifactKind.selection).spec
    except NotFound:
        raise InvalidInput(
            f"judges: got {job.id} on {job.spec.problems}, allowed: a job whose problems are a selection with `ask`"
        ) from None
    assert isinstance(asked, SelectionSpec)
    about, sources = asked.jobs, tuple(dict.fromkeys(source.job for source in document.sources))
    if not set(about) & set(sources):
        raise InvalidInput(
            f"judges: got {job.id}, which judged samples of {', '.join(about)}; allowed: judges of {', '.join(sources)}"
        )
    if not store.reads.count_parts(job.id, TaskKind.generate):
        raise InvalidInput(f"judges: job {job.id} ({job.phase}) has no samples")
    return SelectSource(
        job_id=job.id,
        manifest_path=manifest_path(data_dir, job.id),
        problems_path=store.jobs.resolved(job.id).problems_path,
    )
