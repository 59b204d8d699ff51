"""Arms of jobs as they go out."""

from api.context import AppContext
from api.resolve_parts import sampling_document
from api.wire.jobs import ArmPlanOut
from service.jobs import JobSpec, Resolved
from service.spec_ids import spec_id


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
        if shared not in texts:
            texts[shared] = context.render_prompt(model, arm.prompt, resolved.problems_path, spec.seed)
        found.append(
            ArmPlanOut(
                name=arm.name,
                model=arm.model,
                prompt_id=spec_id(arm.prompt),
                sampling_id=spec_id(sampling),
                sampling=sampling_document(sampling),
                first_prompt=texts[shared],
            )
        )
    return found
