"""What a comparison is asked for.

*Arms* draw training data, each with its own models and strategy, at equal cost. *Students* are trained on every arm's
data, with the same number of optimizer steps. Everything is a plain value; names are resolved beside it.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from service.finetunes import TrainingSpec
from service.jobs import AllocationSpec, PromptSpec
from service.models import ModelSpec
from service.sampling import SamplingSpec
from service.selection.spec import Duplicates, Keep


class MatchBy(StrEnum):
    """What is equal between arms.

    `flops` and `flops_paper`: an arm gets what the reference arm usefully spent, measured, in exact or in paper
    accounting; `usd`: as many USD, by its price. `nominal` and `nominal_paper`: it gets the samples
    that would cost as much if every prompt and completion had the stated length, known before anything runs. `number`:
    as many samples a problem, whatever they cost.
    """

    flops = "flops"
    flops_paper = "flops_paper"
    usd = "usd"
    nominal = "nominal"
    nominal_paper = "nominal_paper"
    number = "number"

    @property
    def is_nominal(self) -> bool:
        """Whether it needs lengths to be stated."""
        return self in (MatchBy.nominal, MatchBy.nominal_paper)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """What a sample is taken to be, of every model [tokens]; >= 1."""

    prompt_tokens: int
    completion_tokens: int


class Split(StrEnum):
    """What a problem set is for."""

    train = "train"
    validation = "validation"
    test = "test"
    transfer = "transfer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSpec:
    """One way to spend the budget on data.

    Args:
        keep: which of its samples teach; None is the comparison's rule.
        match: how its budget follows from the reference arm's; None is the comparison's rule.
        rounds: of iterated self-training, which share the budget and the optimizer steps. `models` draw the first,
            the student's best checkpoint of each draws the next. 1 draws once.
        warm_start: a round goes on from the best checkpoint of the one before; else each starts from the student's
            base, as in STaR.
    """

    name: str
    models: tuple[str, ...]
    allocation: AllocationSpec = field(default_factory=AllocationSpec)
    sampling: SamplingSpec | None = None
    keep: Keep | None = None
    match: MatchBy | None = None
    rounds: int = 1
    warm_start: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentSpec:
    """A model that is finetuned on every arm's data."""

    name: str
    base: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionRules:
    """From an arm's samples to its training set, the same for every arm; see `SelectionSpec`."""

    keep: Keep = Keep.correct
    duplicates: Duplicates = Duplicates.exact
    per_problem: int | None = None
    rows: int | None = None
    ngram: int | None = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSpec:
    """Who judges the samples of arms that keep what is judged right; see `service.selection.judging`.

    Args:
        template: of the question about each sample.
        keep: which samples are asked about.
        votes: verdicts a sample.
        prompt: from question to prompt.
    """

    model: str
    template: str
    keep: Keep = Keep.correct
    votes: int = 1
    prompt: PromptSpec = field(default_factory=PromptSpec)
    sampling: SamplingSpec = field(default_factory=SamplingSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSpec:
    """How students are measured: greedy on test and transfer, and by majority vote.

    Args:
        maj_at: sizes of the vote, ascending; as many samples as the largest are drawn. Empty measures none.
        temperature: of the samples that vote.
    """

    maj_at: tuple[int, ...] = (1, 4, 8)
    temperature: float = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonSpec:
    """A resolved comparison document.

    Args:
        problems: name of the problem set of each split; train, validation and test are there.
        reference: name of the arm whose cost the others get; it draws once.
        lengths: of nominal matching; None where nothing is matched so.
        budgets: samples a problem of the reference arm; each is a comparison of its own ("low", "high").
        learning_rates: grid; the best by validation is kept for each student, arm, budget and seed.
        seeds: of training; each is a run of its own, and the unit of the intervals.
        max_problems: use only the first problems of the training set.
        judge: of arms that keep what is judged right; None where none does.
    """

    name: str
    problems: dict[Split, str]
    match: MatchBy
    reference: str
    budgets: tuple[int, ...]
    arms: tuple[ArmSpec, ...]
    students: tuple[StudentSpec, ...]
    training: TrainingSpec
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    selection: SelectionRules = field(default_factory=SelectionRules)
    evaluate: EvaluateSpec = field(default_factory=EvaluateSpec)
    prompt: PromptSpec = field(default_factory=PromptSpec)
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    scorers: tuple[str, ...] = ("math_answer",)
    seed: int = 0
    max_problems: int | None = None
    lengths: Lengths | None = None
    judge: JudgeSpec | None = None

    def keep_of(self, arm: ArmSpec) -> Keep:
        """Which samples of an arm teach."""
        return arm.keep or self.selection.keep


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSpec:
    """A resolved evaluation document: one model on one problem set.

    Args:
        model: a registered model, or a student's checkpoint.
        max_problems: use only the first problems of the set.
    """

    name: str
    model: str
    problems: str
    evaluate: EvaluateSpec = field(default_factory=EvaluateSpec)
    prompt: PromptSpec = field(default_factory=PromptSpec)
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
    scorers: tuple[str, ...] = ("math_answer",)
    seed: int = 0
    max_problems: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedSet:
    """What a problem set's name stood for."""

    name: str
    path: str
    num_problems: int
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonWork:
    """What a comparison's names stood for when it was submitted."""

    models: tuple[ModelSpec, ...]
    sets: dict[Split, ResolvedSet]

    def model(self, name: str) -> ModelSpec:
        """The model of that name."""
        return next(model for model in self.models if model.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationWork:
    """What an evaluation's names stood for when it was submitted."""

    model: ModelSpec
    problems: ResolvedSet
