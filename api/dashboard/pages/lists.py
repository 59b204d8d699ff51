"""Pages that are mostly one table: workers, models, problem sets, usage."""

from dataclasses import dataclass
from datetime import datetime

from api.dashboard.pages.frame import Link, Shell
from service import wording
from service.figures import Figure
from service.pricing import Price


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLine:
    """Generator engines of one model. `etag` goes back with a scale order: two operators cannot undo each other.

    Args:
        replicas: engines wanted while there is work; 0 drains the pool.
        minimum: engines kept without work.
        idle_s: how long an engine without work stays [s].
        failures: engines that failed to load since one last did.
        waiting_since: since when it has work but no place for an engine.
        turn_since: since when its oldest engine is ready.
        num_turns: engines of it that left so far because others waited for the place.
    """

    model: str
    replicas: int
    ready: int
    starting: int
    minimum: int
    idle_s: float
    failures: int
    waiting_since: datetime | None
    turn_since: datetime | None
    num_turns: int
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLine:
    """One host process. `state` is a key of `wording.HOST_WORDS`."""

    name: str
    kind: str
    model: str
    state: str
    is_stopping: bool
    node: str
    pid: int | None
    load_s: float | None
    created_at: datetime
    idle_since: datetime | None
    ended_at: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersPage:
    """Who works, and is anybody stuck?

    Args:
        cluster: the cluster in words.
    """

    shell: Shell
    headline: str
    cluster: str
    pools: tuple[PoolLine, ...]
    hosts: tuple[HostLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentLine:
    """The checkpoints of one finetune: each a model, `<finetune>/step-<n>`."""

    run: Link
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLine:
    """One model of the catalogue that people registered. `colour` is its colour in every figure.

    Args:
        adapted: the model that it is an adapter on; None for one that came whole.
        students: finetunes that started from it, from one of its checkpoints or from an adapter on it, newest first.
    """

    name: str
    colour: str
    source: str
    adapted: str | None
    revision: str
    parameters: int | None
    context_len: int
    flops_per_token: float
    price: Price | None
    dtype: str
    students: tuple[StudentLine, ...]

    @property
    def num_checkpoints(self) -> int:
        """Of all its students."""
        return sum(len(student.steps) for student in self.students)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsPage:
    """Which models can generate, and what does a token of each cost?

    Args:
        reference_len: the context length `flops_per_token` is quoted for [tokens].
    """

    shell: Shell
    headline: str
    reference_len: int
    models: tuple[ModelLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSetLine:
    """One registered problem set."""

    name: str
    num_problems: int
    num_levels: int | None
    has_structure: bool
    fingerprint: str
    source: str
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemsPage:
    """Which problems are there?"""

    shell: Shell
    headline: str
    problem_sets: tuple[ProblemSetLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLine:
    """The ledger summed over one job, selection or finetune, model and stage.

    Args:
        owner: whose work it was.
        stage: a key of `wording.STAGE_WORDS`.
    """

    owner: Link
    model: str
    stage: str
    useful_flops: float
    wasted_flops: float
    usd: float
    prompt_tokens: int
    completion_tokens: int
    gpu_s: float
    cpu_s: float

    @property
    def device_time(self) -> str:
        """Of GPUs, or of cores that held none: `1.25 GPU-hours`."""
        return wording.device_hours(self.gpu_s, self.cpu_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsagePage:
    """Who used what?

    Args:
        period: of the table, in words, e.g. "since the start".
        figure_period: of the figure.
        csv_path: where the same rows come as CSV.
    """

    shell: Shell
    headline: str
    period: str
    figure_period: str
    csv_path: str
    lines: tuple[UsageLine, ...]
    figures: tuple[Figure, ...]
