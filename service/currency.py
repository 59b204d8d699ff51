"""Currencies a budget can be stated in, and what one sample costs in each.

Amounts in the ledger are integers, because float residues break the CHECK `spent + reserved <= limit`:
FLOPs are counted in MFLOP (10^6 FLOPs, rounded up once per attempt), tokens and samples one by one.
The truth is token counts; every amount here can be recomputed from a sample's row alone.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np

from service.flops import (
    MFLOP,
    FloatArray,
    ForwardCost,
    IntArray,
    paper_flops,
    paper_flops_array,
    sample_flops,
    sample_flops_array,
    to_mflop,
    worst_case_flops,
)


class Currency(StrEnum):
    """What a budget counts. `flops` is exact accounting, `flops_paper` is 2 * P * completion tokens."""

    flops = "flops"
    flops_paper = "flops_paper"
    tokens = "tokens"
    samples = "samples"


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A hard limit.

    Args:
        currency: unit of `limit`.
        limit: integer amount [MFLOP | tokens | samples], >= 1; 0 where nothing is to be spent.
    """

    currency: Currency
    limit: int


def to_amount(currency: Currency, value: float) -> int:
    """`value` in natural units [FLOPs | tokens | samples] as a ledger amount, rounded up."""
    if currency in (Currency.flops, Currency.flops_paper):
        return to_mflop(value)
    return int(np.ceil(value))


def from_amount(currency: Currency, amount: int) -> float:
    """A ledger amount in natural units [FLOPs | tokens | samples]."""
    return float(amount) * MFLOP if currency in (Currency.flops, Currency.flops_paper) else float(amount)


def worst_case(currency: Currency, cost: ForwardCost, *, prompt_tokens: int, max_tokens: int) -> float:
    """Most that one sample can cost in natural units: nothing cached, every allowed token sampled."""
    match currency:
        case Currency.flops:
            return worst_case_flops(cost, prompt_tokens=prompt_tokens, max_tokens=max_tokens)
        case Currency.flops_paper:
            return paper_flops(cost, max_tokens)
        case Currency.tokens:
            return float(prompt_tokens + max_tokens)
        case Currency.samples:
            return 1.0


def actual(
    currency: Currency, cost: ForwardCost, *, prompt_tokens: int, cached_tokens: int, completion_tokens: int
) -> float:
    """What one finished sample cost in natural units. Never more than `worst_case`."""
    match currency:
        case Currency.flops:
            return sample_flops(
                cost, prompt_tokens=prompt_tokens, cached_tokens=cached_tokens, completion_tokens=completion_tokens
            )
        case Currency.flops_paper:
            return paper_flops(cost, completion_tokens)
        case Currency.tokens:
            return float(prompt_tokens + completion_tokens)
        case Currency.samples:
            return 1.0


def worst_cases(currency: Currency, cost: ForwardCost, *, prompt_tokens: IntArray, max_tokens: IntArray) -> FloatArray:
    """`worst_case` of many samples, shape [n]."""
    return actual_costs(
        currency,
        cost,
        prompt_tokens=prompt_tokens,
        cached_tokens=np.zeros_like(prompt_tokens),
        completion_tokens=max_tokens,
    )


def actual_costs(
    currency: Currency,
    cost: ForwardCost,
    *,
    prompt_tokens: IntArray,
    cached_tokens: IntArray,
    completion_tokens: IntArray,
) -> FloatArray:
    """`actual` of many samples, shape [n]."""
    match currency:
        case Currency.flops:
            return sample_flops_array(cost, prompt_tokens, cached_tokens, completion_tokens)
        case Currency.flops_paper:
            return paper_flops_array(cost, completion_tokens)
        case Currency.tokens:
            return (prompt_tokens + completion_tokens).astype(np.float64)
        case Currency.samples:
            return np.ones(len(prompt_tokens))


class Amounts(Protocol):
    """What was used, in every currency; sums over samples."""

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


def in_currency(currency: Currency, used: Amounts) -> float:
    """What was used in natural units of one currency."""
    match currency:
        case Currency.flops:
            return used.flops
        case Currency.flops_paper:
            return used.flops_paper
        case Currency.tokens:
            return float(used.prompt_tokens + used.completion_tokens)
        case Currency.samples:
            return float(used.samples - used.errors)
