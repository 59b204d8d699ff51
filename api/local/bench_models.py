"""Models as benchmarks describe them that look at weights and not at budgets."""

from pathlib import Path

from service.flops import ForwardCost
from service.models import EngineOptions, ModelSpec
from workers.model_files import inspect_model

COST = ForwardCost(
    body_flops_per_token=2e6,
    head_flops_per_token=2e5,
    attention=(),
    parameters=1_000_000,
    active_parameters=1_000_000,
    embedding_parameters=0,
)
"""Of no model in particular: nothing that is measured here depends on it."""
THREADS = 1
"""OpenMP threads: what is compared shares cores with nothing of its own."""


def describe(name: str, path: Path, engine: EngineOptions | None = None) -> ModelSpec:
    """What the service would register, but for the cost.

    Raises:
        InvalidInput: the directory holds no model; the message says why.
    """
    files = inspect_model(path)
    return ModelSpec(
        name=name,
        path=str(path),
        revision=files.revision,
        context_len=files.context_len,
        cost=COST,
        engine=engine or EngineOptions(),
    )
