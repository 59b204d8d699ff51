"""Training priced by hand."""

import numpy as np
import pytest

from service.flops import AttentionTerm, ForwardCost
from service.training_flops import paper_training_flops, training_flops

COST = ForwardCost(
    body_flops_per_token=100.0,
    head_flops_per_token=7.0,
    attention=(AttentionTerm(flops_per_token_pair=2.0, window=None),),
    parameters=50,
    active_parameters=50,
    embedding_parameters=5,
)
SEQUENCES = np.array([4, 3])
COMPLETIONS = np.array([2, 1])


def test_full_training_costs_three_forward_passes_over_every_position() -> None:
    # 4 tokens: 10 causal pairs; 3 tokens: 6; the head where there is a loss
    forward = np.array([400 + 20 + 14, 300 + 12 + 7])
    assert training_flops(COST, SEQUENCES, COMPLETIONS).tolist() == (3 * forward).tolist()


def test_adapters_cost_two_forward_passes_and_their_own_products() -> None:
    forward = np.array([434, 319])
    flops = training_flops(COST, SEQUENCES, COMPLETIONS, adapter_parameters=8)
    assert flops.tolist() == (2 * forward + 6 * 8 * SEQUENCES).tolist()


def test_paper_accounting_counts_six_flops_a_parameter_and_token() -> None:
    assert paper_training_flops(COST, SEQUENCES).tolist() == [6 * 50 * 4, 6 * 50 * 3]
    assert paper_training_flops(COST, SEQUENCES, has_adapters=True).tolist() == [4 * 50 * 4, 4 * 50 * 3]


def test_paper_accounting_does_not_overflow_small_integers() -> None:
    big = ForwardCost(
        body_flops_per_token=1.0, head_flops_per_token=1.0, attention=(), parameters=27_000_000_000,
        active_parameters=1, embedding_parameters=0,
    )  # fmt: skip
    assert paper_training_flops(big, np.array([1000], dtype=np.int32)).tolist() == [1.62e14]


def test_negative_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="must be >= 0, got -1"):
        training_flops(COST, np.array([-1]), np.array([0]))
