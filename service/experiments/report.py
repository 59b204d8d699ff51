"""The report of a comparison as data: what each budget bought, what students made of it, what that cost.

Pure: made of a comparison's document, its results and its jobs' metrics. Words are in `report_words`, files in
`report_files`, and what is read from the store in `report_source`.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from service.experiments.nodes import nominal_ratio
from service.experiments.results import RoundFound, StudentFound
from service.experiments.spec import ArmSpec, ComparisonSpec, ComparisonWork, MatchBy, Split
from service.finetunes import TrainingSpec
from service.models import ModelSpec
from service.report import Comparison
from service.selection.judge_quality import Judged


class Teacher(StrEnum):
    """Whose samples a student learns from, by parameters."""

    itself = "itself"
    larger = "larger"
    smaller = "smaller"
    equal = "equal"
    mixed = "mixed"
    unknown = "unknown"


class Stage(StrEnum):
    """What a node of the graph is for; also how its key begins."""

    draw = "draw"
    ask = "ask"
    judge = "judge"
    select = "select"
    train = "train"
    validate = "validate"
    greedy = "greedy"
    majority = "majority"
    transfer = "transfer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFacts:
    """What a comparison knows of an arm at a budget beside what its job says.

    Args:
        match: how its budget follows from the reference's; None for the reference itself.
        planned_samples: before anything ran, by the stated lengths or by the paper's rule, samples a problem times the
            ratio of parameters; None for several models or an adaptive strategy, of which the rule says nothing.
        samples: samples a problem, drawn.
        granted: its limit, in the ledger's unit of `currency`.
        rows: of its training set; None before it is made.
        repeats: how often a training run sees each row; None before it is made.
        judge_flops: useful FLOPs of having the samples judged, exact accounting, which no budget counts.
        judged: how far the judge can be trusted; None without one, and before the training set is made.
    """

    arm: str
    match: MatchBy | None
    planned_samples: float | None
    samples: float
    granted: float
    spent: float
    currency: str
    useful_flops_paper: float
    useful_usd: float
    rows: int | None
    repeats: float | None
    judge_flops: float = 0.0
    judged: Judged | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetBought:
    """What one budget bought for the arms that have drawn.

    Args:
        num_samples: samples a problem of the reference arm.
        data: jobs of arms that draw once side by side, the reference first.
        facts: one for each arm of `data`.
    """

    num_samples: int
    data: Comparison
    facts: tuple[ArmFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """What all nodes of a stage used; a job that stands for two nodes counts once.

    Args:
        arm: of stages that belong to one; "" for others.
        num_nodes: nodes there are.
        flops: useful and wasted, exact accounting.
        gpu_s: time that engines and trainers worked, times the GPUs they held [GPU-seconds].
        cpu_s: the same of cores, of whatever held no GPU, scorers among it [core-seconds].
    """

    stage: Stage
    arm: str
    num_nodes: int
    samples: int
    flops: float
    wasted_flops: float
    flops_paper: float
    gpu_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LossCurve:
    """The training log of one run, thinned. `model` is the arm's first, which gives the colour."""

    run: str
    student: str
    arm: str
    model: str
    num_samples: int
    points: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUsed:
    """A problem set and how much of it was used."""

    split: Split
    name: str
    num_problems: int
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsed:
    """A registered model of the comparison."""

    name: str
    parameters: int
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a comparison is."""

    phase: str
    nodes: int
    nodes_done: int

    @property
    def is_complete(self) -> bool:
        """Whether every node is measured."""
        return self.nodes_done >= self.nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a report shows.

    Args:
        accounting: of all FLOPs that are not called otherwise.
        checker: what judged the reasoning; None where nothing did.
        judge: model that judges samples; None where no arm asks one.
        seeds: of training.
        seed: of drawing, selecting and evaluating.
        rounds_of: rounds of arms that have several.
        teachers: whose samples a student learns from, in the first round, by student and arm.
        rounds: every round of these arms that is trained.
        document: the comparison, resolved, as YAML.
        versions: of what drew the data, trained and wrote this report.
    """

    id: str
    title: str
    created_at: datetime
    progress: Progress
    match: MatchBy
    reference: str
    arms: tuple[str, ...]
    students: tuple[tuple[str, str], ...]
    budgets: tuple[int, ...]
    seeds: tuple[int, ...]
    seed: int
    learning_rates: tuple[float, ...]
    training: TrainingSpec
    accounting: str
    checker: str | None
    judge: str | None
    ngram: int | None
    adaptive_arms: tuple[str, ...]
    rounds_of: dict[str, int]
    teachers: dict[str, dict[str, Teacher]]
    sets: tuple[SetUsed, ...]
    models: tuple[ModelUsed, ...]
    bought: tuple[BudgetBought, ...]
    found: tuple[StudentFound, ...]
    rounds: tuple[RoundFound, ...]
    costs: tuple[StageCost, ...]
    losses: tuple[LossCurve, ...]
    document: str
    versions: tuple[tuple[str, str], ...]

    def num_problems(self, split: Split) -> int:
        """Problems used of a split; 0 where there is none."""
        return next((used.num_problems for used in self.sets if used.split is split), 0)


def teacher(base: ModelSpec, models: tuple[ModelSpec, ...]) -> Teacher:
    """Whose samples they are for a student made of `base`."""
    if all(model.name == base.name for model in models):
        return Teacher.itself
    if not all(model.cost.is_known for model in models):
        return Teacher.unknown
    sizes = [model.cost.parameters for model in models]
    if all(size > base.cost.parameters for size in sizes):
        return Teacher.larger
    if all(size < base.cost.parameters for size in sizes):
        return Teacher.smaller
    return Teacher.equal if set(sizes) == {base.cost.parameters} else Teacher.mixed


def teachers(spec: ComparisonSpec, work: ComparisonWork) -> dict[str, dict[str, Teacher]]:
    """`teacher` of every student and arm."""
    models = {arm.name: tuple(map(work.model, arm.models)) for arm in spec.arms}
    return {
        student.name: {arm: teacher(work.model(student.base), found) for arm, found in models.items()}
        for student in spec.students
    }


def planned_samples(spec: ComparisonSpec, work: ComparisonWork, arm: ArmSpec, num_samples: int) -> float | None:
    """Samples a problem that equal compute buys by the paper's rule: the reference's times the ratio of parameters.

    The rule takes lengths to be equal and prompts to be free (arXiv 2408.16737, section 3); nominal matching says it
    itself. Where USD are matched it is the ratio of output prices.
    """
    reference = next(item for item in spec.arms if item.name == spec.reference)
    both = (arm, reference)
    if any(len(item.models) != 1 or not item.allocation.is_even for item in both):
        return None
    by = arm.match or spec.match
    if arm.name == reference.name or by is MatchBy.number:
        return float(num_samples)
    if by.is_nominal:
        return num_samples * nominal_ratio(spec, work, arm, by)
    own, theirs = (_rate(work.model(item.models[0]), by) for item in both)
    return num_samples * theirs / own if own and theirs else None


def _rate(model: ModelSpec, by: MatchBy) -> float:
    """What a completion token costs by the paper's rules, up to a factor; 0 where nobody knows."""
    if by is MatchBy.usd:
        return 0.0 if model.price is None else model.price.output_usd
    return float(model.cost.parameters)


def repeats(training: TrainingSpec, rows: int | None) -> float | None:
    """How often a run of a fixed number of steps sees each row of its training set."""
    return training.steps * training.batch_size / rows if rows else None


def sets_used(spec: ComparisonSpec, work: ComparisonWork) -> tuple[SetUsed, ...]:
    """The problem sets in the order of splits; of the training set, the part that is used."""
    return tuple(
        SetUsed(
            split=split,
            name=item.name,
            num_problems=min(item.num_problems, spec.max_problems or item.num_problems)
            if split is Split.train
            else item.num_problems,
            fingerprint=item.fingerprint,
        )
        for split in Split
        if (item := work.sets.get(split)) is not None
    )
