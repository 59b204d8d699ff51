"""Prices in USD: exact as written, rounded up once a sample, unknown where nobody stated one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.currency import Currency, actual, actual_costs, can_price, stated_amount, to_amount, worst_case
from service.errors import InvalidInput
from service.forward_cost import UNKNOWN_COST, ForwardCost
from service.pricing import Price, Pricing
from tests.workers.generate_attempts import COST, PRICE

TOKENS = st.integers(0, 10_000_000)
RATES = st.integers(0, 10**11).map(lambda millionths: millionths / 1e6)


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        (Price(input_usd=1.0, output_usd=2.0), 10 * 1000 + 5 * 2000),
        (Price(input_usd=1.0, output_usd=2.0, cached_usd=0.1), 6 * 1000 + 4 * 100 + 5 * 2000),
        (Price(input_usd=0.0, output_usd=0.0001), 1),  # half a nano-USD
        (Price(input_usd=0.0, output_usd=0.0), 0),
    ],
)
def test_price_of_a_request_is_exact_and_rounded_up(price: Price, expected: int) -> None:
    assert price.nano_usd(prompt_tokens=10, cached_tokens=4, completion_tokens=5) == expected


def test_price_as_written_is_no_float() -> None:
    price = Price(input_usd=0.07, output_usd=0.0)  # 0.07 * 1000 is 70.00000000000001 as a float

    assert price.nano_usd(prompt_tokens=1, cached_tokens=0, completion_tokens=0) == 70


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"cached_usd": -1.0}, "price.cached_usd.*got -1.0"),
        ({"cached_usd": math.nan}, "price.cached_usd.*got nan"),
        ({"output_usd": math.inf}, "price.output_usd.*allowed: 0 to 100,000"),
        ({"input_usd": 0.0000001}, "price.input_usd.*6 digits"),
        ({"cached_usd": 1.5}, "price.cached_usd: got 1.5; allowed: at most input_usd, 1.0"),
    ],
)
def test_price_that_is_none_is_refused(fields: dict[str, float], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Price(**{"input_usd": 1.0, "output_usd": 1.0, **fields})


@given(input_usd=RATES, output_usd=RATES, prompt=TOKENS, cached=TOKENS, completion=TOKENS)
def test_price_of_many_requests_is_that_of_each_even_where_it_is_largest(
    input_usd: float, output_usd: float, prompt: int, cached: int, completion: int
) -> None:
    price, cached = Price(input_usd=input_usd, output_usd=output_usd), min(cached, prompt)
    one = price.nano_usd(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)

    (found,) = price.nano_usd_array(*(np.array([n]) for n in (prompt, cached, completion)))

    assert found == float(one)


@given(prompt=st.integers(1, 5000), cached=st.integers(0, 5000), completion=st.integers(0, 400))
def test_sample_never_costs_more_usd_than_its_worst_case(prompt: int, cached: int, completion: int) -> None:
    pricing, cached = Pricing(cost=COST, price=PRICE), min(cached, prompt)
    worst = worst_case(Currency.usd, pricing, prompt_tokens=prompt, max_tokens=400)

    cost = actual(Currency.usd, pricing, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)

    assert cost <= worst
    assert cost == int(cost)


def test_ledger_keeps_nano_usd_and_people_read_usd() -> None:
    pricing = Pricing(cost=UNKNOWN_COST, price=Price(input_usd=0.0, output_usd=2.5))

    amount = to_amount(
        Currency.usd, actual(Currency.usd, pricing, prompt_tokens=9, cached_tokens=0, completion_tokens=3)
    )

    assert amount == 7500
    assert stated_amount(Currency.usd, amount) == 7.5e-6


@pytest.mark.parametrize(
    ("pricing", "priced"),
    [
        (Pricing(cost=COST), {"flops", "flops_paper", "tokens", "samples", "gpu_hours"}),
        (Pricing(cost=COST, price=PRICE), {"flops", "flops_paper", "tokens", "samples", "usd", "gpu_hours"}),
        (Pricing(cost=UNKNOWN_COST, price=PRICE, is_elsewhere=True), {"tokens", "samples", "usd"}),
        (Pricing(cost=ForwardCost.of_size(9_000), is_elsewhere=True), {"flops_paper", "tokens", "samples"}),
    ],
)
def test_currencies_of_a_model_are_those_it_can_be_priced_in(pricing: Pricing, priced: set[str]) -> None:
    tokens = {name: np.array([3]) for name in ("prompt_tokens", "cached_tokens", "completion_tokens")}

    assert {currency.value for currency in Currency if can_price(currency, pricing)} == priced
    for currency in set(Currency) - {Currency(name) for name in priced}:
        with pytest.raises(InvalidInput, match=f"{currency}: a sample's cost needs"):
            actual_costs(currency, pricing, **tokens)


def test_amounts_that_nobody_can_tell_are_nan_and_not_zero() -> None:
    three = np.array([3])
    unknown, sized = Pricing(cost=UNKNOWN_COST), Pricing(cost=ForwardCost.of_size(9_000))

    assert np.isnan([*unknown.flops(three, three, three), *unknown.flops_paper(three)]).all()
    assert np.isnan([*unknown.nano_usd(three, three, three), *sized.flops(three, three, three)]).all()
    assert sized.flops_paper(three).tolist() == [2 * 9_000 * 3]
