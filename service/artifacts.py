"""What is made of samples: training sets (selections) and students (finetunes).

An artifact is a job of one task. It shares the jobs' table, phases, events and usage, and has neither a budget nor an
allocation: what it costs is known before it starts, and is recorded under its own stage. A spec is immutable, and its
work is resolved when it is submitted, so that the same artifact can be made again.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from service.cluster import FinetuneWork, SelectWork, TaskKind
from service.finetunes import FinetuneSpec
from service.jobs import Desired, Phase
from service.selection.spec import SelectionSpec

ArtifactSpec = SelectionSpec | FinetuneSpec
ArtifactWork = SelectWork | FinetuneWork


class ArtifactKind(StrEnum):
    """What an artifact is; the kind of a row in the jobs' table that is no generation job."""

    selection = "selection"
    finetune = "finetune"

    @property
    def task_kind(self) -> TaskKind:
        """The kind of its one task."""
        return TaskKind.select if self is ArtifactKind.selection else TaskKind.finetune

    @property
    def spec_type(self) -> type[SelectionSpec] | type[FinetuneSpec]:
        """Type of its document."""
        return SelectionSpec if self is ArtifactKind.selection else FinetuneSpec

    @property
    def work_type(self) -> type[SelectWork] | type[FinetuneWork]:
        """Type of what its document stood for."""
        return SelectWork if self is ArtifactKind.selection else FinetuneWork


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


def checkpoint_name(artifact_id: str, step: int) -> str:
    """Name in the catalogue of a student's checkpoint."""
    return f"{artifact_id}/step-{step}"
