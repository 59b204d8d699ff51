"""What turns token counts of one model into amounts: FLOP coefficients and a price, each of which may be unknown.

Owns prices and what follows from either being unknown: FLOPs without coefficients and USD without a price are NaN, and
never 0. Invariant: a price depends on token counts alone and is worked out in integers, so `verify` recomputes every
amount from a row; a request never costs more than its worst case. The smallest unit is a nano-USD; each sample's price
is rounded up to a whole number of them.
"""

import math
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from service.errors import InvalidInput
from service.flops import FloatArray, ForwardCost, IntArray, paper_flops_array, sample_flops_array

NANO_USD = 1_000_000_000
"""Nano-USD in one USD: the unit of the ledger."""
_PICO_PER_MILLIONTH = 1_000_000  # a USD for a million tokens is 10^6 pico-USD for one
_PICO_PER_NANO = 1000
_MOST_USD = 100_000.0  # keeps the price of ten million tokens within 64 bits of pico-USD


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model's tokens cost.

    Args:
        input_usd: of a million prompt tokens [USD].
        output_usd: of a million completion tokens [USD].
        cached_usd: of a million prompt tokens that were found in a cache [USD]; None for no discount.

    Raises:
        InvalidInput: a price is negative, too large, finer than a millionth of a USD, or higher cached than not.
    """

    input_usd: float
    output_usd: float
    cached_usd: float | None = None

    def __post_init__(self) -> None:
        for name in ("input_usd", "output_usd", "cached_usd"):
            value: float | None = getattr(self, name)
            if value is None:
                continue
            if not (0 <= value <= _MOST_USD):
                raise InvalidInput(
                    f"price.{name}: USD for a million tokens, got {value}; allowed: 0 to {_MOST_USD:,.0f}"
                )
            if _millionths(value) % 1:
                raise InvalidInput(
                    f"price.{name}: USD for a million tokens, got {value}; allowed: at most 6 digits after the point"
                )
        if self.cached_usd is not None and self.cached_usd > self.input_usd:
            # what is reserved assumes that nothing is cached
            raise InvalidInput(f"price.cached_usd: got {self.cached_usd}; allowed: at most input_usd, {self.input_usd}")

    @property
    def is_free(self) -> bool:
        """Whether no sample ever costs anything."""
        return self.input_usd == self.output_usd == 0

    def nano_usd(self, *, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> int:
        """Price of one request, rounded up [nano-USD].

        Args:
            prompt_tokens: all of the prompt, cached ones included.
        """
        input_rate, cached_rate, output_rate = self._rates()
        pico = (
            input_rate * (prompt_tokens - cached_tokens) + cached_rate * cached_tokens + output_rate * completion_tokens
        )
        return -(-pico // _PICO_PER_NANO)

    def nano_usd_array(
        self, prompt_tokens: IntArray, cached_tokens: IntArray, completion_tokens: IntArray
    ) -> FloatArray:
        """`nano_usd` of many requests, shape [n]; whole numbers."""
        input_rate, cached_rate, output_rate = self._rates()
        prompt, cached, completion = (
            column.astype(np.int64) for column in (prompt_tokens, cached_tokens, completion_tokens)
        )
        pico = input_rate * (prompt - cached) + cached_rate * cached + output_rate * completion
        return (-(-pico // _PICO_PER_NANO)).astype(np.float64)

    def _rates(self) -> tuple[int, int, int]:
        """Of an input, a cached and an output token [pico-USD]."""
        cached_usd = self.input_usd if self.cached_usd is None else self.cached_usd
        input_rate, cached_rate, output_rate = (
            int(_millionths(usd)) for usd in (self.input_usd, cached_usd, self.output_usd)
        )
        return input_rate, cached_rate, output_rate


def _millionths(usd: float) -> Decimal:
    """As written: 0.1 is a tenth, not the nearest float."""
    return Decimal(str(usd)) * _PICO_PER_MILLIONTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Pricing:
    """Everything that prices the tokens of one model. Amounts that cannot be told are NaN.

    Args:
        cost: FLOP coefficients; `UNKNOWN_COST` or parameters alone where they were not traced.
        price: in USD; None where nobody stated one.
        max_charges: how often a sample may have to be paid for: as often as a server elsewhere may lose it.
        is_elsewhere: whether a server elsewhere draws, so that no device here works for it.
    """

    cost: ForwardCost
    price: Price | None = None
    max_charges: int = 1
    is_elsewhere: bool = False

    def flops(self, prompt_tokens: IntArray, cached_tokens: IntArray, completion_tokens: IntArray) -> FloatArray:
        """FLOPs of many requests, exact accounting, shape [n]."""
        if not self.cost.is_traced:
            return np.full(len(prompt_tokens), math.nan)
        return sample_flops_array(self.cost, prompt_tokens, cached_tokens, completion_tokens)

    def flops_paper(self, completion_tokens: IntArray) -> FloatArray:
        """FLOPs of many requests, paper accounting, shape [n]."""
        if not self.cost.is_known:
            return np.full(len(completion_tokens), math.nan)
        return paper_flops_array(self.cost, completion_tokens)

    def nano_usd(self, prompt_tokens: IntArray, cached_tokens: IntArray, completion_tokens: IntArray) -> FloatArray:
        """Prices of many requests, shape [n] [nano-USD]."""
        if self.price is None:
            return np.full(len(prompt_tokens), math.nan)
        return self.price.nano_usd_array(prompt_tokens, cached_tokens, completion_tokens)
