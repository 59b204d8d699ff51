"""Currencies a budget can be stated in, and what one sample costs in each.

Amounts in the ledger are integers, because float residues break the CHECK `spent + reserved <= limit`:
FLOPs are counted in MFLOP (10^6 FLOPs, rounded up once per attempt), USD in nano-USD (rounded up once per sample),
tokens and samples one by one. The truth is token counts; every amount here can be recomputed from a sample's row alone.

Costs are reckoned in *cost units*: FLOPs, tokens, samples, and nano-USD, for a float of USD would not be exact. People
state and read USD: `stated` and `stated_amount` are for what goes out to them.

Device time is *soft*: nobody can say what a sample will take, so it is counted as it passes, in milliseconds times
devices held, and what runs when the limit is reached is finished beyond it. A sample inside an engine holds one
millisecond, so that the credit protocol sees it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from service.errors import InvalidInput
from service.flops import MFLOP, FloatArray, IntArray, to_mflop
from service.pricing import NANO_USD, Pricing


class Currency(StrEnum):
    """What a budget counts. `flops` is exact accounting, `flops_paper` is 2 * P * completion tokens.

    `gpu_hours` is busy time of engines times the GPUs they hold, or the cores where they hold no GPU.
    """

    flops = "flops"
    flops_paper = "flops_paper"
    tokens = "tokens"
    samples = "samples"
    usd = "usd"
    gpu_hours = "gpu_hours"

    @property
    def is_soft(self) -> bool:
        """Whether samples cannot be priced beforehand, so that a limit may be passed by what runs."""
        return self is Currency.gpu_hours


MS_PER_HOUR = 3_600_000
_NEEDS = {
    Currency.flops: "FLOP coefficients, which are unknown",
    Currency.flops_paper: "the number of parameters, which is unknown",
    Currency.usd: "a price, which was never stated",
    Currency.gpu_hours: "an engine here, but its server is elsewhere",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit: hard, but of a soft currency.

    Args:
        currency: unit of `limit`.
        limit: integer amount [MFLOP | nano-USD | tokens | samples | device-ms], >= 1; 0 where nothing is to be spent.
    """

    currency: Currency
    limit: int


def to_amount(currency: Currency, value: float) -> int:
    """`value` [cost units] as a ledger amount, rounded up."""
    if currency in (Currency.flops, Currency.flops_paper):
        return to_mflop(value)
    return int(np.ceil(value))


def from_amount(currency: Currency, amount: int) -> float:
    """A ledger amount in cost units."""
    return float(amount) * MFLOP if currency in (Currency.flops, Currency.flops_paper) else float(amount)


def stated(currency: Currency, value: float) -> float:
    """`value` [cost units] in what people state budgets in: USD instead of nano-USD, hours instead of milliseconds."""
    match currency:
        case Currency.usd:
            return value / NANO_USD
        case Currency.gpu_hours:
            return value / MS_PER_HOUR
        case _:
            return value


def stated_amount(currency: Currency, amount: int) -> float:
    """A ledger amount in what people state budgets in."""
    return stated(currency, from_amount(currency, amount))


def can_price(currency: Currency, pricing: Pricing) -> bool:
    """Whether a sample of the model has a cost in that currency."""
    match currency:
        case Currency.flops:
            return pricing.cost.is_traced
        case Currency.flops_paper:
            return pricing.cost.is_known
        case Currency.usd:
            return pricing.price is not None
        case Currency.gpu_hours:
            return not pricing.is_elsewhere
        case Currency.tokens | Currency.samples:
            return True


def missing_for(currency: Currency, pricing: Pricing) -> str | None:
    """What the model lacks to be priced in that currency, for people; None where it lacks nothing."""
    return None if can_price(currency, pricing) else _NEEDS[currency]


def worst_case(currency: Currency, pricing: Pricing, *, prompt_tokens: int, max_tokens: int) -> float:
    """Most that one sample can cost [cost units]: nothing cached, every allowed token sampled, each try charged.

    Raises:
        InvalidInput: as `actual_costs`.
    """
    prompt, most = np.array([prompt_tokens], dtype=np.int64), np.array([max_tokens], dtype=np.int64)
    return float(worst_cases(currency, pricing, prompt_tokens=prompt, max_tokens=most)[0])


def actual(
    currency: Currency, pricing: Pricing, *, prompt_tokens: int, cached_tokens: int, completion_tokens: int
) -> float:
    """What one finished sample cost [cost units]. Never more than `worst_case`.

    Raises:
        InvalidInput: as `actual_costs`.
    """
    prompt, cached, completion = (
        np.array([n], dtype=np.int64) for n in (prompt_tokens, cached_tokens, completion_tokens)
    )
    costs = actual_costs(currency, pricing, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)
    return float(costs[0])


def worst_cases(currency: Currency, pricing: Pricing, *, prompt_tokens: IntArray, max_tokens: IntArray) -> FloatArray:
    """`worst_case` of many samples, shape [n]."""
    if currency.is_soft:
        return np.ones(len(prompt_tokens))
    # a budget in samples counts rows, and a lost try makes none
    charges = 1 if currency is Currency.samples else pricing.max_charges
    return charges * actual_costs(
        currency,
        pricing,
        prompt_tokens=prompt_tokens,
        cached_tokens=np.zeros_like(prompt_tokens),
        completion_tokens=max_tokens,
    )


def actual_costs(
    currency: Currency,
    pricing: Pricing,
    *,
    prompt_tokens: IntArray,
    cached_tokens: IntArray,
    completion_tokens: IntArray,
) -> FloatArray:
    """`actual` of many samples, shape [n]; 0 in a soft currency, whose cost is no sample's.

    Raises:
        InvalidInput: the model cannot be priced in that currency, see `can_price`.
    """
    if (missing := missing_for(currency, pricing)) is not None:
        raise InvalidInput(f"{currency}: a sample's cost needs {missing}")
    match currency:
        case Currency.flops:
            return pricing.flops(prompt_tokens, cached_tokens, completion_tokens)
        case Currency.flops_paper:
            return pricing.flops_paper(completion_tokens)
        case Currency.usd:
            return pricing.nano_usd(prompt_tokens, cached_tokens, completion_tokens)
        case Currency.tokens:
            return (prompt_tokens + completion_tokens).astype(np.float64)
        case Currency.samples:
            return np.ones(len(prompt_tokens))
        case Currency.gpu_hours:
            return np.zeros(len(prompt_tokens))


class Amounts(Protocol):
    """What was used, in every currency; sums over samples. NaN where some of it cannot be told."""

    @property
    def samples(self) -> int:
        """Rows, errors included."""
        ...

    @property
    def errors(self) -> int:
        """Rows that stand for an error and cost nothing."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens, cached ones included."""
        ...

    @property
    def completion_tokens(self) -> int:
        """Sampled tokens."""
        ...

    @property
    def flops(self) -> float:
        """FLOPs, exact accounting."""
        ...

    @property
    def flops_paper(self) -> float:
        """FLOPs, paper accounting."""
        ...

    @property
    def gpu_s(self) -> float:
        """Busy time times GPUs held [GPU-seconds]."""
        ...

    @property
    def cpu_s(self) -> float:
        """Busy time times cores held, of what held no GPU [core-seconds]."""
        ...

    @property
    def nano_usd(self) -> float:
        """Price of the tokens, each sample's rounded up [nano-USD]."""
        ...


def in_currency(currency: Currency, used: Amounts) -> float:
    """What was used in cost units of one currency."""
    match currency:
        case Currency.usd:
            return used.nano_usd
        case Currency.gpu_hours:
            return 1000.0 * (used.gpu_s + used.cpu_s)
        case Currency.flops:
            return used.flops
        case Currency.flops_paper:
            return used.flops_paper
        case Currency.tokens:
            return float(used.prompt_tokens + used.completion_tokens)
        case Currency.samples:
            return float(used.samples - used.errors)
