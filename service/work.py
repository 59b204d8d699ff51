"""What a task does, as values that cross the seam to the cluster: models, paths and parameters, never rows.

One type for each kind of task. An attempt is one try at a task; its id is unique for ever, and all it writes lies under
a directory of its own.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from service.currency import Currency
from service.finetunes import TrainingSpec
from service.importing.spec import ImportSpec
from service.jobs import PromptSpec
from service.models import ModelSpec
from service.reasoning import ReasoningTags
from service.sampling import SamplingSpec
from service.selection.spec import SelectionSpec

Runs = npt.NDArray[np.int32]
"""Planned samples, shape [n, 3]: problem index, first sample index, number of samples."""


Indices = npt.NDArray[np.int32]
"""Single samples, shape [n, 2]: problem index, sample index."""


class TaskKind(StrEnum):
    """What a task does."""

    prepare = "prepare"
    generate = "generate"
    score = "score"
    select = "select"
    finetune = "finetune"
    import_ = "import"

    @property
    def of_parts(self) -> "TaskKind":
        """What the task's files count as: imported samples are samples, wherever somebody asks for them."""
        return TaskKind.generate if self is TaskKind.import_ else self


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareWork:
    """Render and tokenise every problem for one model into `<out_dir>/part-00000.parquet` (rows `PreparedRow`)."""

    model: ModelSpec
    problems_path: str
    num_problems: int
    prompt: PromptSpec
    sampling: SamplingSpec
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateWork:
    """Draw the planned samples, in the order of `runs`, within the credit.

    Args:
        prepared_path: Parquet of `PreparedRow`.
        currency: what the credit counts.
        seed: the job's seed; a sample's own seed is derived from it, the arm, the problem and the sample index.
        flush_s: finished samples become a part at least this often [s].
        flush_rows: ... and at the latest when this many rows are finished.
        refused: problems that must not enter the engine, for it died on them; each of their samples is an error row.
        arm: name of the job's arm, which nominal seeds are derived from; "" stands for the model's name.
    """

    model: ModelSpec
    prepared_path: str
    sampling: SamplingSpec
    currency: Currency
    runs: Runs
    seed: int
    flush_s: float = 30.0
    flush_rows: int = 20_000
    refused: tuple[int, ...] = ()
    arm: str = ""

    @property
    def seed_name(self) -> str:
        """What the nominal seeds of its samples are derived from, beside the job's."""
        return self.arm or self.model.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportWork:
    """Make samples of completions in files: parts of `SampleRow`, all of them or none.

    Args:
        paths: in the order of `spec.files`.
        prompt: how the prompts were made, where the files have none.
        sampling: as stated; counts only where `spec.sampling` says so.
    """

    spec: ImportSpec
    paths: tuple[str, ...]
    model: ModelSpec
    problems_path: str
    num_problems: int
    prompt: PromptSpec
    sampling: SamplingSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreWork:
    """Grade one committed shard with every scorer of the job into one Parquet of `ScoreRow`.

    Args:
        tags: of a thinking model's reasoning; None is the usual ones.
    """

    model: str
    shard_path: str
    shard_sha256: str
    problems_path: str
    scorers: tuple[str, ...]
    tags: ReasoningTags | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectSource:
    """What one job of a selection made.

    Args:
        manifest_path: the job's last manifest, which names its shards and their scores.
        problems_path: Parquet of `ProblemRow`.
    """

    job_id: str
    manifest_path: str
    problems_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectWork:
    """Make a training set of finished jobs: one Parquet file of `SelectedRow`.

    Args:
        sources: in the order of `spec.sources`.
        held_out: Parquet files of `ProblemRow` that the training set must not contain.
        judges: jobs that judged samples, in the order of `spec.judges`; the problems are the questions they answered.
    """

    spec: SelectionSpec
    sources: tuple[SelectSource, ...]
    held_out: tuple[str, ...]
    judges: tuple[SelectSource, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneWork:
    """Train a student. Part n is its checkpoint n, a directory that holds a complete model.

    Args:
        base: what training starts from.
        dataset_path: Parquet of `SelectedRow`.
        resume_from: checkpoint directory of an earlier attempt to go on from, optimizer and data order included.
    """

    base: ModelSpec
    dataset_path: str
    dataset_sha256: str
    training: TrainingSpec
    resume_from: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSpec:
    """One attempt at a task. `attempt_id` is `<task_id>.<attempt>`; it writes only under `out_dir`."""

    attempt_id: str
    job_id: str
    kind: TaskKind
    work: PrepareWork | GenerateWork | ImportWork | ScoreWork | SelectWork | FinetuneWork
    out_dir: str
