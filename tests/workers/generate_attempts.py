"""Builds attempts at generate tasks with defaults that suit most tests of a generator, on either engine."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.currency import Currency
from service.flops import AttentionTerm, ForwardCost
from service.models import ModelSpec
from service.pricing import Price
from service.sampling import SamplingSpec
from service.work import AttemptSpec, GenerateWork, TaskKind

COST = ForwardCost(
    body_flops_per_token=1e6,
    head_flops_per_token=3e5,
    attention=(AttentionTerm(flops_per_token_pair=1e3, window=None),),
    parameters=500_000,
    active_parameters=500_000,
    embedding_parameters=10_000,
)

PRICE = Price(input_usd=0.123457, cached_usd=0.05, output_usd=1.5)


def generate_attempt(
    directory: Path,
    name: str,
    *,
    model: ModelSpec,
    prepared_path: str | Path,
    runs: Sequence[Sequence[int]],
    **work: object,
) -> AttemptSpec:
    """An attempt called `name` that writes to `directory/name`; `work` overrides fields of its work."""
    arguments = {
        "model": model,
        "prepared_path": str(prepared_path),
        "sampling": SamplingSpec(max_tokens=40),
        "currency": Currency.flops,
        "runs": np.array(runs, dtype=np.int32).reshape(-1, 3),
        "seed": 7,
        **work,
    }
    return AttemptSpec(
        attempt_id=name,
        job_id="job",
        kind=TaskKind.generate,
        work=GenerateWork(**arguments),  # type: ignore[arg-type]
        out_dir=str(directory / name),
    )
