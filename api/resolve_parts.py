"""Parts that documents share, from document to domain and back: prompt, sampling, allocation, evaluation.

Names of strategies and scorers are checked here. Must not import workers.
"""

import json
from collections.abc import Iterable
from typing import Any

from api.wire.comparisons import EvaluateDocument
from api.wire.job_document import AllocationDocument
from api.wire.prompt_document import PromptDocument
from api.wire.sampling_document import SamplingDocument, StructureDocument
from service.allocation import STRATEGIES, strategy_for
from service.endpoints import unsupported_fields
from service.errors import InvalidInput, UnknownName
from service.experiments.spec import EvaluateSpec, ResolvedSet
from service.jobs import AllocationSpec, FewShot, JobSpec, PromptSpec
from service.measures import Measures
from service.models import ModelSpec
from service.problems import ProblemSet
from service.reasoning import ReasoningTags
from service.sampling import FIELDS, SamplingSpec, Structure
from service.scoring import scorer_named

PLAIN_TEMPLATE = PromptSpec().template
MAX_VOTES = 256
"""Samples that vote: an exact expectation over all subsets takes time and memory by the square of it."""
_FIELDS = {
    "uniform": ("collect", "equal"),
    "until_correct": ("target_correct", "k", "max_samples", "collect"),
    "adastar": ("max_samples", "collect", "history"),
}
"""What a strategy reads of its document; `counts` says which verdicts it goes by, if it goes by any."""


def to_prompt(document: PromptDocument) -> PromptSpec:
    """How a problem becomes a prompt."""
    examples = tuple((example.question, example.solution) for example in document.few_shot.examples)
    num_shots = document.few_shot.num_shots
    return PromptSpec(
        template=PLAIN_TEMPLATE if document.template == "plain" else document.template,
        system=document.system,
        few_shot=FewShot(
            examples=examples,
            num_shots=len(examples) if num_shots is None else num_shots,
            choice=document.few_shot.choice,
        ),
        use_chat_template=document.use_chat_template,
        template_kwargs=dict(document.template_kwargs),
        reasoning_tags=None
        if document.reasoning_tags is None
        else ReasoningTags(open=document.reasoning_tags.open, close=document.reasoning_tags.close),
        add_bos=document.add_bos,
    )


def prompt_document(prompt: PromptSpec) -> dict[str, Any]:
    """The inverse of `to_prompt`."""
    few_shot, tags = prompt.few_shot, prompt.reasoning_tags
    return {
        "template": "plain" if prompt.template == PLAIN_TEMPLATE else prompt.template,
        "system": prompt.system,
        "few_shot": {
            "examples": [{"question": asked, "solution": solved} for asked, solved in few_shot.examples],
            "num_shots": few_shot.num_shots,
            "choice": few_shot.choice,
        },
        "use_chat_template": prompt.use_chat_template,
        "template_kwargs": dict(prompt.template_kwargs),
        "reasoning_tags": None if tags is None else {"open": tags.open, "close": tags.close},
        "add_bos": prompt.add_bos,
    }


def to_sampling(document: SamplingDocument) -> SamplingSpec:
    """How completions are drawn."""
    return SamplingSpec(
        temperature=document.temperature,
        top_p=document.top_p,
        top_k=document.top_k,
        min_p=document.min_p,
        repetition_penalty=document.repetition_penalty,
        max_tokens=None if document.max_tokens == "auto" else document.max_tokens,
        stop=tuple(document.stop),
        structure=None if document.structure is None else _to_structure(document.structure),
    )


def _to_structure(document: StructureDocument) -> Structure:
    schema = document.json_schema
    return Structure(
        json_schema=None if schema is None else json.dumps(schema, sort_keys=True, separators=(",", ":")),
        regex=document.regex,
        choice=tuple(document.choice or ()),
    )


def _structure_document(structure: Structure) -> dict[str, Any]:
    if structure.json_schema is not None:
        return {"json_schema": json.loads(structure.json_schema)}
    return {"choice": list(structure.choice)} if structure.choice else {"regex": structure.regex}


def sampling_document(sampling: SamplingSpec) -> dict[str, Any]:
    """The inverse of `to_sampling`."""
    return {
        "temperature": sampling.temperature,
        **{name: getattr(sampling, name) for name in FIELDS},
        "max_tokens": "auto" if sampling.max_tokens is None else sampling.max_tokens,
        "stop": list(sampling.stop),
        "structure": None if sampling.structure is None else _structure_document(sampling.structure),
    }


def _to_votes(sizes: list[int]) -> tuple[int, ...]:
    """Sizes of majority votes, ascending, each once.

    Raises:
        InvalidInput: a size that is out of range.
    """
    if any(not 1 <= size <= MAX_VOTES for size in sizes):
        raise InvalidInput(f"evaluate.maj_at: got {sizes}, allowed: numbers >= 1, at most {MAX_VOTES}")
    return tuple(sorted(set(sizes)))


def to_evaluate(document: EvaluateDocument) -> EvaluateSpec:
    """How a model is measured.

    Raises:
        InvalidInput: sizes of votes that make no sense.
    """
    return EvaluateSpec(maj_at=_to_votes(document.maj_at), temperature=document.temperature)


def evaluate_document(evaluate: EvaluateSpec) -> dict[str, Any]:
    """The inverse of `to_evaluate`."""
    return {"maj_at": list(evaluate.maj_at), "temperature": evaluate.temperature}


def to_resolved_set(problems: ProblemSet) -> ResolvedSet:
    """What the name of a problem set stands for now."""
    return ResolvedSet(
        name=problems.name,
        path=problems.path,
        num_problems=problems.num_problems,
        fingerprint=problems.fingerprint,
    )


def check_sampling(field: str, sampling: SamplingSpec, models: Iterable[ModelSpec]) -> None:
    """Refuses completions that leave no room for a prompt, and what a server elsewhere cannot be told.

    Args:
        field: where the sampling stands in its document.

    Raises:
        InvalidInput: `max_tokens` is as long as the context of a model, or longer; or a field that a model's server has
            no word for.
    """
    max_tokens = sampling.max_tokens
    for model in models:
        endpoint = model.endpoint
        if endpoint is not None and (lacks := unsupported_fields(endpoint, sampling.resolved_for(model.sampling))):
            raise InvalidInput(
                f"{field}: got {', '.join(lacks)} with {model.name}, whose server speaks plain OpenAI and cannot be "
                "told; allowed: what changes nothing, or a model registered with dialect vllm or drops_unsupported"
            )
        if max_tokens is not None and max_tokens >= model.context_len:
            raise InvalidInput(
                f"{field}.max_tokens: got {max_tokens}, allowed: 1 to {model.context_len - 1}, for {model.name} has a "
                f"context of {model.context_len} tokens and a prompt needs at least one; or 'auto'"
            )


def to_allocation(document: AllocationDocument) -> AllocationSpec:
    """Which strategy spends the budget.

    Raises:
        UnknownName: no such strategy.
        InvalidInput: fields that the strategy would pass over in silence.
    """
    if document.strategy not in STRATEGIES:
        raise UnknownName(kind="strategy", got=document.strategy, allowed=STRATEGIES)
    read = _FIELDS[document.strategy]
    given = [name for name in ("target_correct", "k", "max_samples", "collect", "history") if getattr(document, name)]
    # which verdicts count matters only to what goes by verdicts
    reads_verdicts = document.strategy != "uniform" or document.collect is not None
    given += ["equal"] if document.equal != "samples" else []
    given += ["counts"] if document.counts != "answer" and not reads_verdicts else []
    if unread := [name for name in given if name not in read]:
        raise InvalidInput(
            f"allocation: got {', '.join(unread)} with strategy {document.strategy!r}, allowed with it: "
            f"{', '.join(read)}"
        )
    return AllocationSpec(
        strategy=document.strategy,
        target_correct=document.target_correct or document.k or 1,
        max_samples=document.max_samples,
        counts=document.counts,
        collect=document.collect,
        history=tuple(document.history),
        equal=document.equal,
    )


def allocation_document(allocation: AllocationSpec) -> dict[str, Any]:
    """The inverse of `to_allocation`."""
    read = _FIELDS[allocation.strategy]
    fields = {name: getattr(allocation, name) for name in read if name != "k"}
    if allocation.strategy != "uniform" or allocation.collect is not None:
        fields["counts"] = allocation.counts
    if allocation.collect is None:
        del fields["collect"]
    if allocation.equal == "samples":
        fields.pop("equal", None)
    if "history" in fields:
        fields["history"] = list(allocation.history)
    return {"strategy": allocation.strategy, **fields}


def check_scorers(spec: JobSpec, num_problems: int) -> None:
    """Refuses scorers that do not exist, or that leave a job's strategy without the verdicts it goes by.

    Raises:
        UnknownName: no such scorer.
        InvalidInput: the strategy needs a scorer that is not there, or does not take its fields.
    """
    scorers, allocation = spec.scorers, spec.allocation
    for scorer in scorers:
        scorer_named(scorer)
    measures = Measures.of(scorers)
    strategy_for(spec, num_problems)  # refuses fields that it does not take
    goes_by_verdicts = not allocation.is_even  # in its own job or, as adastar, in the next round's
    if goes_by_verdicts and not measures.has_answers:
        raise InvalidInput(
            f"scorers: got {', '.join(scorers) or 'none'}, allowed with strategy {allocation.strategy!r}"
            f"{'' if allocation.collect is None else ' and collect'}: at least one that judges answers, e.g. "
            "math_answer"
        )
    if goes_by_verdicts and allocation.counts == "verified" and not measures.has_steps:
        raise InvalidInput("allocation.counts: got 'verified', which needs 'steps' among the scorers; or use 'answer'")
