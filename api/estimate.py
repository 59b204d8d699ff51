"""What a job would cost, before anything is prepared: bounds that hold for any prompt, and a nominal sample.

The nominal sample is an estimate and says what it rests on: the prompts' mean text at four characters a token, and
the mean completion that the model has drawn here before (or `max_tokens` where it has drawn nothing).
"""

import math

import pyarrow.compute as pc
import pyarrow.parquet as pq

from api.resolve import cost_bounds
from api.wire.jobs import PriceOut, SampleCost
from service.currency import Currency, actual, can_price, from_amount, stated
from service.jobs import DRAWING_STAGES, Arm, JobSpec, PromptSpec, Resolved
from service.models import ModelSpec
from service.store import Store
from service.store.reads import UsageRow

CHARACTERS_PER_TOKEN = 4.0


def sample_costs(store: Store, spec: JobSpec, resolved: Resolved) -> list[SampleCost]:
    """Cost of one sample for every arm of the job, and how many the whole budget buys of each alone.

    None in a soft currency, which has no price of a sample.
    """
    if spec.budget.currency.is_soft:
        return []
    usage = [row for row in store.reads.usage() if row.stage in DRAWING_STAGES and row.outcome != "lost"]
    question = _mean_question_characters(resolved)
    models = {model.name: model for model in resolved.models}
    return [_sample_cost(spec, arm, models[arm.model], question, usage) for arm in spec.all_arms]


def _sample_cost(spec: JobSpec, arm: Arm, model: ModelSpec, question: float, usage: list[UsageRow]) -> SampleCost:
    characters, max_tokens = question + _characters_around(arm.prompt), arm.sampling.max_tokens
    currency = spec.budget.currency
    limit = from_amount(currency, spec.budget.limit)
    cheapest, dearest = cost_bounds(currency, model, max_tokens)
    prompt_tokens = min(max(1, math.ceil(characters / CHARACTERS_PER_TOKEN)), model.context_len - 1)
    most = min(max_tokens or model.context_len, model.context_len - prompt_tokens)
    mine = [row for row in usage if row.model == model.name]
    num_samples = sum(row.samples - row.errors for row in mine)
    if num_samples:
        mean = sum(row.completion_tokens for row in mine) / num_samples
        completion_tokens = min(most, max(1, round(mean)))
        basis = f"mean of {num_samples:,} samples of {model.name} drawn here before"
    else:
        completion_tokens, basis = most, f"the most allowed; {model.name} has drawn nothing here yet"
    nominal = actual(
        currency, model.pricing, prompt_tokens=prompt_tokens, cached_tokens=0, completion_tokens=completion_tokens
    )
    return SampleCost(
        arm=arm.name,
        model=model.name,
        worst_case_from=stated(currency, cheapest),
        worst_case_to=stated(currency, dearest),
        nominal=stated(currency, nominal),
        nominal_prompt_tokens=prompt_tokens,
        nominal_completion_tokens=completion_tokens,
        nominal_basis=basis,
        samples_at_worst_case=_number(limit, dearest),
        samples_at_nominal=_number(limit, nominal),
        price=PriceOut.of(model.price),
        worst_case_usd=_worst_usd(model, max_tokens),
    )


def _worst_usd(model: ModelSpec, max_tokens: int | None) -> float | None:
    if not can_price(Currency.usd, model.pricing):
        return None
    return stated(Currency.usd, cost_bounds(Currency.usd, model, max_tokens)[1])


def _number(limit: float, cost: float) -> int | None:
    """How many the budget buys; None for samples that cost nothing, of which it buys any number."""
    return int(limit // cost) if cost else None


def _mean_question_characters(resolved: Resolved) -> float:
    questions = pq.read_table(resolved.problems_path, columns=["question"])["question"].slice(0, resolved.num_problems)
    mean: float = pc.mean(pc.utf8_length(questions)).as_py()
    return mean


def _characters_around(prompt: PromptSpec) -> float:
    """What a prompt adds to its question."""
    shots = prompt.few_shot.examples[: prompt.few_shot.num_shots]
    frame = len(prompt.template) - len("{question}")
    worked = sum(frame + len(asked) + len(solution) for asked, solution in shots)
    return len(prompt.system or "") + worked + frame
