"""Arms of jobs as they go out."""

from collections.abc import Iterable
from pathlib import Path

from api.context import AppContext
from api.resolve_parts import sampling_document
from api.wire.jobs import ArmOut, ArmPlanOut
from service.currency import in_currency, stated
from service.jobs import Job, JobSpec, PromptSpec, Resolved
from service.models import ModelSpec
from service.receipts import Usage
from service.spec_ids import spec_id
from service.store import Store
from service.store.reads import Part
from service.work import TaskKind


def arm_plans(context: AppContext, spec: JobSpec, resolved: Resolved) -> list[ArmPlanOut]:
    """What each arm of a job that is not submitted yet would be told.

    Raises:
        InvalidInput: a prompt that a model's chat template refuses.
    """
    models = {model.name: model for model in resolved.models}
    texts: dict[str, str] = {}
    found: list[ArmPlanOut] = []
    for arm in spec.all_arms:
        model = models[arm.model]
        sampling = arm.sampling.resolved_for(model.sampling)
        shared = spec.prompts_of(arm.name)
        missing = _missing_for(arm.prompt, model)
        if shared not in texts and missing is None:
            texts[shared] = context.render_prompt(model, arm.prompt, resolved.problems_path, spec.seed)
        found.append(
            ArmPlanOut(
                name=arm.name,
                model=arm.model,
                adapter_on=None if model.adapter is None else model.adapter.base,
                prompt_id=spec_id(arm.prompt),
                sampling_id=spec_id(sampling),
                sampling=sampling_document(sampling),
                first_prompt=texts.get(shared),
                not_shown=missing,
            )
        )
    return found


def _missing_for(prompt: PromptSpec, model: ModelSpec) -> str | None:
    """Why a prompt cannot be shown here, though preparing it elsewhere may well work; None if it can."""
    if not prompt.use_chat_template or not model.path or Path(model.path).is_dir():
        return None
    return f"the chat template of {model.name} is in {model.path}, which the service does not see on this machine"


def usage_by_arm(parts: Iterable[Part]) -> dict[str, Usage]:
    """What the committed samples of each arm used."""
    found: dict[str, Usage] = {}
    for part in parts:
        found[part.arm] = found.get(part.arm, Usage()) + part.usage
    return found


def arm_outs(store: Store, job: Job, resolved: Resolved) -> list[ArmOut]:
    """The arms of a job with several, none otherwise."""
    arms, models = job.spec.all_arms, {model.name: model for model in resolved.models}
    if len(arms) == 1:
        return []
    currency = job.spec.budget.currency
    used = usage_by_arm(store.reads.parts(job.id, TaskKind.generate))
    found: list[ArmOut] = []
    for arm in arms:
        usage = used.get(arm.name, Usage())
        found.append(
            ArmOut(
                name=arm.name,
                model=arm.model,
                prompt_id=spec_id(arm.prompt),
                sampling_id=spec_id(arm.sampling.resolved_for(models[arm.model].sampling)),
                temperature=arm.sampling.temperature,
                samples=usage.samples,
                errors=usage.errors,
                truncated=usage.truncated,
                completion_tokens=usage.completion_tokens,
                flops=usage.flops,
                spent=stated(currency, in_currency(currency, usage)),
            )
        )
    return found
