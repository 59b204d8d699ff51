"""The closed forms against explicit loops over tokens, and the rules a price keeps."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.flops import (
    MFLOP,
    AttentionTerm,
    ForwardCost,
    decode_flops,
    ideal_flops,
    paper_flops,
    prefill_flops,
    sample_flops,
    sample_flops_array,
    to_mflop,
    worst_case_flops,
)


def make_cost(
    *,
    body: float = 1000.0,
    head: float = 300.0,
    attention: tuple[tuple[float, int | None] | tuple[float, int | None, float | None], ...] = ((7.0, None), (5.0, 4)),
    parameters: int = 700,
) -> ForwardCost:
    return ForwardCost(
        body_flops_per_token=body,
        head_flops_per_token=head,
        attention=tuple(
            AttentionTerm(
                flops_per_token_pair=flops, window=window, sampled_flops_per_token_pair=next(iter(rest), None)
            )
            for flops, window, *rest in attention
        ),
        parameters=parameters,
        active_parameters=parameters,
        embedding_parameters=100,
    )


coefficients = st.integers(0, 10**6).map(float)
costs = st.builds(
    make_cost,
    body=coefficients,
    head=coefficients,
    attention=st.lists(
        st.tuples(coefficients, st.none() | st.integers(1, 40), st.none() | coefficients), max_size=3
    ).map(tuple),
    parameters=st.integers(0, 10**9),
)
requests = st.integers(0, 60).flatmap(
    lambda prompt: st.tuples(st.just(prompt), st.integers(0, prompt), st.integers(0, 60))
)


def attended(position: int, window: int | None) -> int:
    """Keys seen by the token at `position` (from 0), counted one by one as a causal mask would allow them."""
    return sum(1 for key in range(position + 1) if window is None or key > position - window)


def loop_flops(cost: ForwardCost, positions: range, *, is_sampled: bool = False) -> float:
    total = 0.0
    for position in positions:
        total += cost.body_flops_per_token
        for term in cost.attention:
            sampled = term.sampled_flops_per_token_pair
            rate = sampled if is_sampled and sampled is not None else term.flops_per_token_pair
            total += rate * attended(position, term.window)
    return total


@given(cost=costs, request=requests)
def test_sample_flops_any_request_equals_token_loop(cost: ForwardCost, request: tuple[int, int, int]) -> None:
    prompt, cached, completion = request
    expected = loop_flops(cost, range(cached, prompt))
    for token in range(completion):
        expected += cost.head_flops_per_token
        if token < completion - 1:
            expected += loop_flops(cost, range(prompt + token, prompt + token + 1), is_sampled=True)
    got = sample_flops(cost, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)
    assert got == expected


@given(cost=costs, request=requests)
def test_prefill_flops_any_prompt_equals_token_loop(cost: ForwardCost, request: tuple[int, int, int]) -> None:
    prompt, cached, _ = request
    got = prefill_flops(cost, prompt_tokens=prompt, cached_tokens=cached)
    assert got == loop_flops(cost, range(cached, prompt))


@given(cost=costs, context_len=st.integers(0, 100))
def test_decode_flops_any_context_equals_token_loop(cost: ForwardCost, context_len: int) -> None:
    expected = loop_flops(cost, range(context_len, context_len + 1), is_sampled=True) + cost.head_flops_per_token
    assert decode_flops(cost, context_len) == expected


@given(cost=costs, request=requests)
def test_sample_flops_after_prefill_equals_prefill_head_and_decode_steps(
    cost: ForwardCost, request: tuple[int, int, int]
) -> None:
    prompt, cached, completion = request
    expected = prefill_flops(cost, prompt_tokens=prompt, cached_tokens=cached)
    if completion:
        expected += cost.head_flops_per_token
        expected += sum(decode_flops(cost, prompt + step) for step in range(completion - 1))
    got = sample_flops(cost, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)
    assert got == expected


@given(cost=costs, prompt=st.integers(0, 40), completion=st.integers(0, 40), num_samples=st.integers(1, 12))
def test_ideal_flops_any_problem_equals_token_loop(
    cost: ForwardCost, prompt: int, completion: int, num_samples: int
) -> None:
    expected = loop_flops(cost, range(prompt))
    for _ in range(num_samples):
        expected += loop_flops(cost, range(prompt, prompt + max(completion - 1, 0)), is_sampled=True)
        expected += cost.head_flops_per_token * completion
    got = ideal_flops(cost, prompt_tokens=prompt, completion_tokens=completion, num_samples=num_samples)
    assert got == expected


@given(cost=costs, prompt=st.integers(0, 40), completion=st.integers(0, 40))
def test_ideal_flops_one_sample_equals_uncached_request(cost: ForwardCost, prompt: int, completion: int) -> None:
    ideal = ideal_flops(cost, prompt_tokens=prompt, completion_tokens=completion, num_samples=1)
    assert ideal == sample_flops(cost, prompt_tokens=prompt, cached_tokens=0, completion_tokens=completion)


wild_coefficients = st.floats(0, 1e15)
wild_costs = st.builds(
    make_cost,
    body=wild_coefficients,
    head=wild_coefficients,
    attention=st.lists(
        st.tuples(wild_coefficients, st.none() | st.integers(1, 5000), st.none() | wild_coefficients), max_size=3
    ).map(tuple),
)
long_requests = st.integers(0, 200_000).flatmap(
    lambda prompt: st.tuples(st.just(prompt), st.integers(0, prompt), st.integers(0, 200_000))
)


@given(cost=wild_costs, rows=st.lists(long_requests, max_size=8))
def test_sample_flops_array_any_rows_equals_scalar_bit_for_bit(
    cost: ForwardCost, rows: list[tuple[int, int, int]]
) -> None:
    columns = np.array(rows, dtype=np.int32).reshape(-1, 3).T
    got = sample_flops_array(cost, columns[0], columns[1], columns[2])
    expected = [sample_flops(cost, prompt_tokens=p, cached_tokens=c, completion_tokens=m) for p, c, m in rows]
    assert got.dtype == np.float64
    assert got.tolist() == expected


@given(cost=wild_costs, request=long_requests, extra=st.integers(0, 1000))
def test_sample_flops_never_exceeds_worst_case(cost: ForwardCost, request: tuple[int, int, int], extra: int) -> None:
    prompt, cached, completion = request
    got = sample_flops(cost, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)
    worst = worst_case_flops(cost, prompt_tokens=prompt, max_tokens=completion + extra)
    assert got <= worst
    assert to_mflop(got) <= to_mflop(worst)


@given(cost=wild_costs, request=long_requests, extra=st.integers(0, 1000))
def test_sample_flops_more_tokens_never_costs_less(
    cost: ForwardCost, request: tuple[int, int, int], extra: int
) -> None:
    prompt, cached, completion = request
    base = sample_flops(cost, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)
    longer = sample_flops(cost, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion + extra)
    less_cached = sample_flops(
        cost, prompt_tokens=prompt, cached_tokens=max(cached - extra, 0), completion_tokens=completion
    )
    longer_prompt = sample_flops(cost, prompt_tokens=prompt + extra, cached_tokens=cached, completion_tokens=completion)
    assert base <= min(longer, less_cached, longer_prompt)


def test_sample_flops_no_completion_costs_the_prefill_alone() -> None:
    cost = make_cost()
    got = sample_flops(cost, prompt_tokens=9, cached_tokens=2, completion_tokens=0)
    assert got == prefill_flops(cost, prompt_tokens=9, cached_tokens=2)


def test_sample_flops_long_window_prices_hand_computed_case() -> None:
    cost = make_cost(body=10.0, head=3.0, attention=((1.0, None), (100.0, 2)))
    # Positions 1, 2, 3 go through the body: full attention sees 2 + 3 + 4 keys, the window 2 + 2 + 2.
    got = sample_flops(cost, prompt_tokens=3, cached_tokens=1, completion_tokens=2)
    assert got == 3 * 10.0 + 1.0 * 9 + 100.0 * 6 + 2 * 3.0


def test_paper_flops_counts_total_parameters_and_completion_only() -> None:
    assert paper_flops(make_cost(parameters=700), 11) == 2 * 700 * 11


@given(flops=st.floats(0, 1e24))
def test_to_mflop_any_amount_is_the_exact_ceiling(flops: float) -> None:
    assert to_mflop(flops) == math.ceil(Fraction(flops) / MFLOP)


@pytest.mark.parametrize(
    ("flops", "expected"),
    [(0.0, 0), (1.0, 1), (1e6, 1), (1e6 + 0.5, 2), (3e6, 3), (9007199254740992.0 * 4e6, 9007199254740992 * 4)],
)
def test_to_mflop_at_borders_rounds_up(flops: float, expected: int) -> None:
    assert to_mflop(flops) == expected


@pytest.mark.parametrize("flops", [-1.0, math.inf, math.nan])
def test_to_mflop_impossible_amount_is_refused(flops: float) -> None:
    with pytest.raises(ValueError, match="flops must be finite"):
        to_mflop(flops)


@pytest.mark.parametrize(
    ("prompt", "cached", "completion", "message"),
    [
        (-1, 0, 1, "prompt_tokens must be >= 0"),
        (4, -1, 1, "cached_tokens must be >= 0"),
        (4, 0, -1, "completion_tokens must be >= 0"),
        (4, 5, 1, "got 5 cached of 4"),
    ],
)
def test_sample_flops_impossible_counts_are_refused(prompt: int, cached: int, completion: int, message: str) -> None:
    cost = make_cost()
    with pytest.raises(ValueError, match=message):
        sample_flops(cost, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)
    with pytest.raises(ValueError, match=message):
        sample_flops_array(cost, np.array([9, prompt]), np.array([0, cached]), np.array([1, completion]))


def test_sample_flops_array_float_column_is_refused() -> None:
    with pytest.raises(ValueError, match="integer array"):
        sample_flops_array(make_cost(), np.array([1.0]), np.array([0]), np.array([1]))  # type: ignore[arg-type]


def test_sample_flops_array_unequal_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        sample_flops_array(make_cost(), np.array([1, 2]), np.array([0]), np.array([1, 1]))


def test_decode_flops_negative_context_is_refused() -> None:
    with pytest.raises(ValueError, match="context_len"):
        decode_flops(make_cost(), -1)


def test_paper_flops_negative_completion_is_refused() -> None:
    with pytest.raises(ValueError, match="completion_tokens"):
        paper_flops(make_cost(), -1)


def test_ideal_flops_no_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="num_samples"):
        ideal_flops(make_cost(), prompt_tokens=1, completion_tokens=1, num_samples=0)


@pytest.mark.parametrize("window", [0, -3])
def test_attention_term_window_under_one_is_refused(window: int) -> None:
    with pytest.raises(ValueError, match="window"):
        AttentionTerm(flops_per_token_pair=1.0, window=window)


def test_forward_cost_infinite_coefficient_is_refused() -> None:
    with pytest.raises(ValueError, match="body_flops_per_token"):
        make_cost(body=math.inf)


@given(cost=wild_costs)
def test_forward_cost_json_round_trip_is_exact(cost: ForwardCost) -> None:
    assert ForwardCost.from_json(cost.to_json()) == cost


def test_forward_cost_json_names_sampled_queries_only_where_they_cost_something_else() -> None:
    document = make_cost(attention=((7.0, None), (5.0, 4, 6.0))).to_json()
    assert document["attention"] == [
        {"flops_per_token_pair": 7.0, "window": None},
        {"flops_per_token_pair": 5.0, "window": 4, "sampled_flops_per_token_pair": 6.0},
    ]


def test_sample_flops_latent_attention_prices_hand_computed_case() -> None:
    cost = make_cost(body=10.0, head=3.0, attention=((1.0, None, 100.0),))
    # The prompt's positions 1 and 2 see 2 + 3 keys, the first sampled token 4 latents; the second ends the sample.
    got = sample_flops(cost, prompt_tokens=3, cached_tokens=1, completion_tokens=2)
    assert got == 3 * 10.0 + 1.0 * 5 + 100.0 * 4 + 2 * 3.0


def test_forward_cost_from_json_missing_key_names_it() -> None:
    document = make_cost().to_json()
    del document["parameters"]
    with pytest.raises(ValueError, match=r"expected exactly .*parameters"):
        ForwardCost.from_json(document)
