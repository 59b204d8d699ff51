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
from service.jobs import DRAWING_STAGES, JobSpec, PromptSpec, Resolved
from service.models import ModelSpec
from service.store import Store
from service.store.reads import UsageRow

CHARACTERS_PER_TOKEN = 4.0


def sample_costs(store: Store, spec: JobSpec, resolved: Resolved) -> list[SampleCost]:
    """Cost of one sample for every model of the job, and how many the budget buys."""
    usage = [row for row in store.reads.usage() if row.stage in DRAWING_STAGES and row.outcome != "lost"]
    characters = _mean_prompt_characters(spec.prompt, resolved)
    return [_sample_cost(spec, model, characters, usage) for model in resolved.models]


def _sample_cost(spec: JobSpec, model: ModelSpec, characters: float, usage: list[UsageRow]) -> SampleCost:
    currency = spec.budget.currency
    limit = from_amount(currency, spec.budget.limit)
    cheapest, dearest = cost_bounds(currency, model, spec.sampling.max_tokens)
    prompt_tokens = min(max(1, math.ceil(characters / CHARACTERS_PER_TOKEN)), model.context_len - 1)
    most = min(spec.sampling.max_tokens or model.context_len, model.context_len - prompt_tokens)
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
        worst_case_usd=_worst_usd(model, spec),
    )


def _worst_usd(model: ModelSpec, spec: JobSpec) -> float | None:
    if not can_price(Currency.usd, model.pricing):
        return None
    return stated(Currency.usd, cost_bounds(Currency.usd, model, spec.sampling.max_tokens)[1])


def _number(limit: float, cost: float) -> int | None:
    """How many the budget buys; None for samples that cost nothing, of which it buys any number."""
    return int(limit // cost) if cost else None


def _mean_prompt_characters(prompt: PromptSpec, resolved: Resolved) -> float:
    questions = pq.read_table(resolved.problems_path, columns=["question"])["question"].slice(0, resolved.num_problems)
    mean_question: float = pc.mean(pc.utf8_length(questions)).as_py()
    shots = prompt.few_shot.examples[: prompt.few_shot.num_shots]
    frame = len(prompt.template) - len("{question}")
    worked = sum(frame + len(question) + len(solution) for question, solution in shots)
    return len(prompt.system or "") + worked + frame + mean_question
