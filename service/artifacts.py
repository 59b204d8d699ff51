"""What is made of jobs: training sets (selections), students (finetunes), evaluations, comparisons of all these.

Artifacts share the jobs' table, phases, events and usage, and have neither a budget nor an allocation. A selection or
finetune is one task; an evaluation or comparison is a graph of jobs, selections and finetunes. A spec is immutable, and
what its names stood for is resolved when it is submitted, so that the same artifact can be made again.
"""

import dataclasses
import os
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from service.experiments.spec import ComparisonSpec, ComparisonWork, EvaluationSpec, EvaluationWork
from service.finetunes import FinetuneSpec
from service.jobs import Desired, Phase
from service.models import ModelSpec
from service.selection.spec import SelectionSpec
from service.work import FinetuneWork, SelectWork

ArtifactSpec = SelectionSpec | FinetuneSpec | EvaluationSpec | ComparisonSpec
ArtifactWork = SelectWork | FinetuneWork | EvaluationWork | ComparisonWork


class ArtifactKind(StrEnum):
    """What an artifact is; the kind of a row in the jobs' table that is no generation job."""

    selection = "selection"
    finetune = "finetune"
    evaluation = "evaluation"
    comparison = "comparison"

    @property
    def has_children(self) -> bool:
        """Whether it is a graph of others, and no task of its own."""
        return self in (ArtifactKind.evaluation, ArtifactKind.comparison)

    @classmethod
    def of(cls, spec: ArtifactSpec) -> "ArtifactKind":
        """The kind that a document asks for."""
        return next(kind for kind, (spec_type, _) in TYPES.items() if isinstance(spec, spec_type))


TYPES: dict[ArtifactKind, tuple[type[ArtifactSpec], type[ArtifactWork]]] = {
    ArtifactKind.selection: (SelectionSpec, SelectWork),
    ArtifactKind.finetune: (FinetuneSpec, FinetuneWork),
    ArtifactKind.evaluation: (EvaluationSpec, EvaluationWork),
    ArtifactKind.comparison: (ComparisonSpec, ComparisonWork),
}
"""Types of an artifact's document and of what its names stood for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A stored artifact."""

    id: str
    kind: ArtifactKind
    spec: ArtifactSpec
    work: ArtifactWork
    desired: Desired
    phase: Phase
    created_at: datetime
    ended_at: datetime | None = None
    error: str | None = None


def checkpoint_model(base: ModelSpec, finetune_id: str, *, step: int, path: str, sha256: str) -> ModelSpec:
    """A student's checkpoint as a model that jobs can name.

    Args:
        path: its `checkpoint.json`, beside which the model lies.
        sha256: of that file, which has the hashes of all others.
    """
    return dataclasses.replace(
        base,
        name=f"{finetune_id}/step-{step}",
        path=os.path.dirname(path),
        revision=f"sha256:{sha256}",
        base=base.pool,
        adapter=None,
    )
