"""The comparison document as it comes in, and comparisons as they go out."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from api.wire.artifacts import TrainingDocument
from api.wire.base import MAX_INT, NAME_PATTERN, InputModel, Known, Line, Name, Whole, refuse_unstorable
from api.wire.job_document import AllocationDocument
from api.wire.prompt_document import PromptDocument
from api.wire.sampling_document import SamplingDocument
from api.wire.submitted import Measured, ParentOut

Keep = Literal["correct", "verified", "judged", "majority", "all"]


def _refuse_device_time(value: object) -> object:
    if value == "gpu_hours":
        raise PydanticCustomError(
            "device_time",
            "another one: what device time buys differs from machine to machine, so it makes no arms equal; the report "
            "shows it beside FLOPs",
            {"got": value},
        )
    return value


By = Annotated[
    Literal["flops", "flops_paper", "usd", "nominal", "nominal_paper", "number"], BeforeValidator(_refuse_device_time)
]
Label = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=100)]
"""Name of an arm or a student: several of them make the key of a node, which the database keeps in 400 characters."""


MAX_ROUNDS = 100


class ProblemsDocument(InputModel):
    """A problem set for each purpose."""

    train: Name = Field(description="Samples are drawn from it.")
    validation: Name = Field(description="The best checkpoint is picked on it.")
    test: Name = Field(description="Students are measured on it.")
    transfer: Name | None = Field(default=None, description="A second test, unlike the training problems.")


class MatchDocument(InputModel):
    """What is equal between arms."""

    by: By = Field(
        default="flops",
        description="`flops`, `flops_paper` and `usd`: each arm gets what the reference usefully spent, measured; "
        "`nominal` and `nominal_paper`: the samples that cost as much at the stated lengths; `number`: as many "
        "samples a problem.",
    )
    reference: Name = Field(description="An arm, or the model of exactly one arm.")
    samples_per_problem: Whole | list[Whole] = Field(
        description="Samples a problem of the reference arm; several make several budgets, e.g. [1, 10]."
    )
    prompt_tokens: Whole | None = Field(default=None, ge=1, le=10**7, description="Of a sample, for nominal matching.")
    completion_tokens: Whole | None = Field(default=None, ge=1, le=10**7, description="The same.")


class ArmDocument(InputModel):
    """One way to spend the budget on data."""

    name: Label
    models: list[Name] = Field(min_length=1, max_length=16)
    allocation: AllocationDocument = Field(default_factory=AllocationDocument)
    sampling: SamplingDocument | None = Field(default=None, description="In place of the comparison's.")
    keep: Keep | None = Field(default=None, description="In place of `select.keep`.")
    match: By | None = Field(default=None, description="In place of `match.by`.")
    rounds: Whole = Field(
        default=1,
        ge=1,
        le=MAX_ROUNDS,
        description="Of iterated self-training: `models` draw the first, each student's best checkpoint the next. They "
        "share the budget and the optimizer steps.",
    )
    warm_start: bool = Field(
        default=True, description="Train on from the checkpoint of the round before; else from the student's base."
    )


class StudentDocument(InputModel):
    """A model that is trained on every arm's data."""

    name: Label
    base: Name


class RulesDocument(InputModel):
    """From samples to training set, for every arm; see the selection document."""

    keep: Keep = "correct"
    duplicates: Literal["exact", "normalized", "equations", "keep"] = "exact"
    per_problem: Whole | None = Field(default=None, ge=1, le=1_000_000)
    rows: Whole | None = Field(default=None, ge=1, le=10**9)
    ngram: Whole | None = Field(default=13, ge=5, le=100)


class StudentsTraining(InputModel):
    """How students are trained."""

    preset: str = Field(default="lora-24gb", max_length=100)
    training: TrainingDocument = Field(default_factory=TrainingDocument)
    seeds: Whole = Field(default=1, ge=1, le=100, description="Runs that differ in the seed alone.")
    learning_rates: list[float] = Field(default_factory=list, max_length=20, description="Grid; best by validation.")


class JudgeDocument(InputModel):
    """Who judges the samples of arms that keep what is judged right. What it costs is in no arm's budget."""

    model: Name
    ask: Annotated[str, StringConstraints(max_length=20_000), AfterValidator(refuse_unstorable)] = Field(
        default="default", description="The question: a text with {question} and {completion}, or `default`."
    )
    keep: Literal["correct", "verified", "all"] = Field(default="correct", description="Samples to ask about.")
    votes: Whole = Field(default=1, ge=1, le=1000, description="Verdicts a sample.")
    prompt: PromptDocument = Field(default_factory=PromptDocument, description="From the question to the prompt.")
    sampling: SamplingDocument | None = Field(default=None, description="Greedy for one vote, else at 0.7.")


class EvaluateDocument(InputModel):
    """How students are measured, beside one greedy completion a problem."""

    maj_at: list[Whole] = Field(default_factory=lambda: [1, 4, 8], max_length=20, description="Sizes of the vote.")
    temperature: float = Field(default=0.7, gt=0, le=2, allow_inf_nan=False)


class ComparisonDocument(InputModel):
    """Which data makes the better student at equal compute."""

    name: Line
    problems: ProblemsDocument
    match: MatchDocument
    arms: list[ArmDocument] = Field(min_length=1, max_length=16)
    students: list[StudentDocument] = Field(default_factory=list, max_length=16)
    select: RulesDocument = Field(default_factory=RulesDocument)
    finetune: StudentsTraining = Field(default_factory=StudentsTraining)
    evaluate: EvaluateDocument = Field(default_factory=EvaluateDocument)
    prompt: PromptDocument = Field(default_factory=PromptDocument)
    sampling: SamplingDocument = Field(default_factory=SamplingDocument)
    scorers: list[str] = Field(default_factory=lambda: ["math_answer"], max_length=8)
    seed: Whole = Field(default=0, ge=0, le=MAX_INT - MAX_ROUNDS, description="A round's is so much larger.")
    max_problems: Whole | None = Field(default=None, ge=1, le=MAX_INT)
    judge: JudgeDocument | None = Field(default=None, description="Needed where an arm or `select` keeps `judged`.")

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for what in ("arms", "students"):
            names = [item.name for item in getattr(self, what)]
            if len(set(names)) != len(names):
                raise PydanticCustomError("repeated", "{what} with names that differ", {"what": what, "got": names})
        if any("@" in arm.name or "/" in arm.name for arm in self.arms):
            raise PydanticCustomError("name", "names of arms without / and @", {"got": [a.name for a in self.arms]})
        return self


class ArmResult(BaseModel):
    """What an arm's budget bought; of an arm with rounds, the first."""

    arm: str
    samples_per_problem: int = Field(description="Of the reference arm: which budget.")
    job: str
    samples: int
    correct: int
    useful_flops: Known = Field(description="Exact accounting; null where a model's FLOPs are unknown.")
    rows: int | None = Field(description="Of its training set; null before it is made.")
    judge_flops: Known = Field(description="Useful FLOPs of having its samples judged; not in its budget.")


class StudentResult(BaseModel):
    """One student trained on one arm's data, over its seeds."""

    student: str
    arm: str
    samples_per_problem: int
    measure: str = Field(description="greedy, maj@k, transfer.")
    num_seeds: int
    num_problems: int
    accuracy: Measured
    by_seed: list[float]
    base: float | None = Field(description="Accuracy of the student before training.")
    difference: Measured | None = Field(description="To the reference arm's, paired by problem and seed.")
    is_difference: bool | None = Field(description="Whether that interval excludes zero.")
    p_value: float | None = Field(description="Exact McNemar test where each side has one seed; else null.")
    false_positive_rate: float | None = Field(description="Of right answers, the share whose steps do not hold.")


class RoundResult(BaseModel):
    """One round of an arm's self-training of one student. Amounts are means over seeds."""

    student: str
    arm: str
    samples_per_problem: int
    round: int
    samples: float
    correct: float
    rows: float = Field(description="Of the round's training set.")
    draw_flops: Known = Field(description="Useful FLOPs of drawing; the first round's serve all students.")
    train_flops: Known = Field(description="Useful FLOPs of training.")
    accuracy: Measured | None = Field(description="Greedy on the test set after the round.")


class ComparisonOut(ParentOut):
    """A comparison."""

    nodes: int = Field(description="Jobs, selections and finetunes it takes in all.")
    nodes_done: int


class ResultsOut(BaseModel):
    """What a comparison has found so far."""

    arms: list[ArmResult]
    students: list[StudentResult]
    rounds: list[RoundResult] = Field(description="Of arms that have several.")


class ComparisonDryRun(BaseModel):
    """What a comparison would be. Nothing is stored."""

    is_dry_run: bool = True
    document: dict[str, Any]
    nodes: int = Field(description="Jobs, selections and finetunes it takes, those that exist already included.")


class ComparisonList(BaseModel):
    """Comparisons, newest first."""

    items: list[ComparisonOut]
    next_cursor: str | None
