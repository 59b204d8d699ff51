"""The arms of a job document: all combinations of its models, prompts and samplings, or those that it lists.

Invariant: arms that differ in their models alone are models, as they are without this module; all others are spelt out,
each with its whole prompt and sampling. Must not import workers.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.chat_templates import check_chat_template
from api.resolve_parts import check_sampling, prompt_document, sampling_document, to_prompt, to_sampling
from api.wire.arms_document import MAX_ARMS
from api.wire.job_document import JobDocument
from service.endpoints import told_of
from service.errors import InvalidInput
from service.jobs import Arm, PromptSpec
from service.models import ModelSpec
from service.sampling import SamplingSpec

MAX_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedArms:
    """Fields of a `JobSpec` that say what it draws with."""

    models: tuple[str, ...]
    prompt: PromptSpec
    sampling: SamplingSpec
    arms: tuple[Arm, ...]


def to_arms(document: JobDocument) -> ResolvedArms:
    """What the document draws with.

    Raises:
        InvalidInput: too many arms, or names that are too long.
    """
    arms = _listed(document) if document.arms else _combined(document)
    if len(arms) > MAX_ARMS:
        several = {} if document.arms else _dimensions(document)
        parts = " times ".join(f"{len(part)} {name}" for name, part in several.items() if len(part) > 1)
        raise InvalidInput(
            f"arms: got {len(arms)}{', ' if parts else ''}{parts}; allowed: at most {MAX_ARMS}, so make several jobs "
            "of it"
        )
    if longest := [arm.name for arm in arms if len(arm.name) > MAX_NAME]:
        raise InvalidInput(f"arms: got the name {longest[0]!r}, allowed: names of at most {MAX_NAME} characters")
    models = tuple(dict.fromkeys(arm.model for arm in arms))
    first = arms[0]
    are_models = all((arm.name, arm.prompt, arm.sampling) == (arm.model, first.prompt, first.sampling) for arm in arms)
    if are_models:
        return ResolvedArms(models=models, prompt=first.prompt, sampling=first.sampling, arms=())
    return ResolvedArms(models=models, prompt=PromptSpec(), sampling=SamplingSpec(), arms=arms)


def _listed(document: JobDocument) -> tuple[Arm, ...]:
    prompt, sampling = to_prompt(document.prompt), to_sampling(document.sampling)
    return tuple(
        Arm(
            name=arm.name,
            model=arm.model,
            prompt=prompt if arm.prompt is None else to_prompt(arm.prompt),
            sampling=sampling if arm.sampling is None else to_sampling(arm.sampling),
        )
        for arm in document.arms
    )


def _dimensions(document: JobDocument) -> dict[str, Sequence[str]]:
    temperatures = [f"t={value:g}" for value in document.sampling.temperatures]
    return {
        "models": document.models or [],
        "prompts": [prompt.name for prompt in document.prompts] or ["prompt"],
        "samplings": [sampling.name for sampling in document.samplings] or temperatures or ["sampling"],
    }


def _combined(document: JobDocument) -> tuple[Arm, ...]:
    """Every model with every prompt and every sampling; a name says what several of are."""
    prompts = [to_prompt(prompt) for prompt in document.prompts or [document.prompt]]
    samplings = [to_sampling(sampling) for sampling in document.samplings]
    if not samplings:
        single = document.sampling
        temperatures = single.temperatures or [single.temperature]
        samplings = [to_sampling(single.model_copy(update={"temperature": value})) for value in temperatures]
    names = _dimensions(document)
    found: list[Arm] = []
    for at in itertools.product(*(range(len(part)) for part in names.values())):
        parts = [part[index] for part, index in zip(names.values(), at, strict=True)]
        several = [part for part, among in zip(parts, names.values(), strict=True) if len(among) > 1]
        model = parts[0]
        found.append(
            Arm(name=" ".join(several) or model, model=model, prompt=prompts[at[1]], sampling=samplings[at[2]])
        )
    return tuple(found)


def _fields(document: JobDocument, place: int) -> tuple[str, str]:
    """Where the document says the prompt and the sampling of the arm at a place."""
    if document.arms:
        arm = document.arms[place]
        return (
            "prompt" if arm.prompt is None else f"arms.{place}.prompt",
            "sampling" if arm.sampling is None else f"arms.{place}.sampling",
        )
    _, prompts, samplings = map(len, _dimensions(document).values())
    return (
        f"prompts.{place // samplings % prompts}" if document.prompts else "prompt",
        f"samplings.{place % samplings}" if document.samplings else "sampling",
    )


def check_arms(document: JobDocument, arms: Sequence[Arm], models: Sequence[ModelSpec]) -> None:
    """Refuses arms that cannot draw, or that would draw the same samples.

    Args:
        arms: those of the document, in its order.

    Raises:
        InvalidInput: naming the field, or the arms.
    """
    by_name = {model.name: model for model in models}
    known: dict[tuple[str, str], str] = {}
    for place, arm in enumerate(arms):
        model = by_name[arm.model]
        prompt_field, sampling_field = _fields(document, place)
        check_sampling(sampling_field, arm.sampling, [model])
        check_chat_template(prompt_field, arm.prompt, [model])
        # as the engine is told: what one document leaves to the model, another may say, and what a server is not told
        sampling = arm.sampling.resolved_for(model.sampling)
        if model.endpoint is not None:
            sampling = told_of(model.endpoint, sampling)
        told = (arm.model, repr((arm.prompt, sampling)))
        if told in known:
            raise InvalidInput(
                f"arms: got {known[told]!r} and {arm.name!r}, which draw the same: {arm.model} with one prompt and "
                "one sampling; allowed: arms that differ"
            )
        known[told] = arm.name


def arms_document(models: Sequence[str], arms: Sequence[Arm]) -> dict[str, Any]:
    """The arms of a job that spells them out, in the form of a job file."""
    return {
        "models": list(models),
        "arms": [
            {
                "name": arm.name,
                "model": arm.model,
                "prompt": prompt_document(arm.prompt),
                "sampling": sampling_document(arm.sampling),
            }
            for arm in arms
        ],
    }
