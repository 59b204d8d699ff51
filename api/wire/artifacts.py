"""Selections and finetunes: their documents as they come in, and what goes out."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from api.wire.base import MAX_INT, InputModel, Line, Name, Whole, refuse_unstorable
from api.wire.submitted import Measured, SubmittedOut


class SourceDocument(InputModel):
    """A job, or some of its arms, that samples are taken from."""

    job: str = Field(max_length=40, description="Id of a job that has ended.")
    share: float | None = Field(
        default=None, gt=0, le=1, allow_inf_nan=False, description="Share of the rows; for all sources or for none."
    )
    arms: list[Annotated[str, Field(max_length=200)]] = Field(
        default_factory=list, max_length=100, description="Arms of the job whose samples are taken; all without names."
    )


class SelectionDocument(InputModel):
    """A training set to be made of finished jobs. Operators apply in the order of the fields."""

    name: Line | None = Field(default=None, description="For people; made from the sources without one.")
    sources: list[SourceDocument] = Field(min_length=1, max_length=64)
    keep: Literal["correct", "verified", "judged", "majority", "all"] = Field(
        default="correct",
        description="`correct` by the answer; `verified`, and by the step check; `judged`, by more than half of what "
        "`judges` say; `majority`, the answer most samples of the problem give, no reference needed; `all`.",
    )
    judges: list[Annotated[str, Field(max_length=40)]] = Field(
        default_factory=list, max_length=16, description="Jobs that answered a selection's questions, with `judged`."
    )
    scorer: str | None = Field(default=None, max_length=100, description="Whose verdict counts; the first of answers.")
    duplicates: Literal["exact", "normalized", "equations", "keep"] = Field(
        default="exact", description="Solutions of one problem that are the same by this rule are kept once."
    )
    held_out: list[Name] | Literal["auto"] = Field(
        default="auto",
        description="Problem sets whose problems must not be trained on; `auto` is every registered set but the "
        "sources' own.",
    )
    ngram: Whole | None = Field(
        default=13, ge=5, le=100, description="Words in a row shared with a held-out question; null compares whole."
    )
    problems: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False, description="Share of the problems.")
    per_problem: Whole | None = Field(default=None, ge=1, le=1_000_000, description="Most rows of one problem.")
    rows: Whole | None = Field(default=None, ge=1, le=10**9, description="Most rows.")
    seed: Whole = Field(default=0, ge=0, le=MAX_INT)
    ask: Annotated[str, Field(max_length=20_000), AfterValidator(refuse_unstorable)] | None = Field(
        default=None,
        description="Makes the rows a problem set for a judge as well, which a job names by this selection's id: a "
        "text with {question} and {completion}, or `default`.",
    )

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        jobs = [source.job for source in self.sources]
        repeated = [source for source in self.sources if jobs.count(source.job) > 1]
        named = [(source.job, arm) for source in repeated for arm in source.arms]
        if not all(source.arms for source in repeated) or len(set(named)) != len(named):
            raise PydanticCustomError("repeated", "a job once, or with other arms each time", {"got": ", ".join(jobs)})
        if 0 < sum(source.share is not None for source in self.sources) < len(self.sources):
            raise PydanticCustomError("shares", "a share for every source or for none", {"got": "a share for some"})
        if len(set(self.judges)) != len(self.judges):
            raise PydanticCustomError("repeated", "judges that differ", {"got": ", ".join(self.judges)})
        if (self.keep == "judged") != bool(self.judges):
            raise PydanticCustomError(
                "judges", "keep 'judged' with judges, or neither", {"got": f"{self.keep!r}, {len(self.judges)} judges"}
            )
        return self


class TrainingDocument(InputModel):
    """Hyperparameters that differ from the preset's."""

    method: Literal["full", "lora", "qlora"] | None = None
    steps: Whole | None = Field(default=None, ge=1, le=10_000_000, description="Optimizer steps.")
    batch_size: Whole | None = Field(default=None, ge=1, le=1_000_000, description="Examples a step.")
    micro_batch_size: Whole | None = Field(default=None, ge=1, le=1_000_000, description="Examples a forward pass.")
    learning_rate: float | None = Field(default=None, gt=0, le=10, allow_inf_nan=False)
    optimizer: str | None = Field(default=None, max_length=100, description="A name of transformers' optimizers.")
    weight_decay: float | None = Field(default=None, ge=0, le=10, allow_inf_nan=False)
    warmup: float | None = Field(default=None, ge=0, lt=1, description="Share of the steps in which the rate rises.")
    decay: Literal["linear", "cosine", "constant"] | None = None
    max_grad_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    num_checkpoints: Whole | None = Field(default=None, ge=1, le=1000)
    max_length: Whole | None = Field(default=None, ge=2, le=10_000_000, description="Tokens of prompt and completion.")
    lora_rank: Whole | None = Field(default=None, ge=1, le=4096)
    lora_alpha: Whole | None = Field(default=None, ge=1, le=65536)
    seed: Whole | None = Field(default=None, ge=0, le=2**31 - 1)


class FinetuneDocument(InputModel):
    """A student to be trained."""

    name: Line | None = Field(default=None, description="For people; made from base and dataset without one.")
    base: Name = Field(description="A registered model, or a checkpoint, to start from.")
    dataset: str = Field(max_length=40, description="Id of a selection that succeeded.")
    preset: str = Field(
        default="lora-24gb", max_length=100, description="`paper-low`, `paper-high`, `lora-24gb` or `tiny`."
    )
    training: TrainingDocument = Field(default_factory=TrainingDocument)


class JudgedOut(BaseModel):
    """What judges said of the samples of all sources, and how far they can be trusted."""

    yes: int = Field(description="Samples found right by more than half of the votes.")
    no: int
    undecided: int = Field(description="Asked about, with a tie or without a vote that could be read.")
    sensitivity: Measured | None = Field(
        description="Of right answers with a false step, the share judged wrong; null where there was none to judge."
    )
    specificity: Measured | None = Field(description="Of right answers whose steps hold, the share judged right.")
    false_positive_rate: Measured | None = Field(description="Of right answers, the share judged wrong.")
    false_positive_rate_corrected: Measured | None = Field(
        description="The same, corrected for the judge's errors (Rogan and Gladen 1978)."
    )


class SelectionOut(SubmittedOut):
    """A training set."""

    rows: int | None = Field(description="Rows of the training set; null before it is made.")
    rows_after: dict[str, float] = Field(description="Rows that each filter left, in order.")
    path: str | None = Field(description="Parquet file of the training set.")
    sha256: str | None
    judged: JudgedOut | None = Field(description="Null without judges, and before it is made.")


class CheckpointOut(BaseModel):
    """A student at some step; a model that jobs can name."""

    model: str
    step: int
    loss: float | None = Field(description="Mean since the checkpoint before; null where its file is damaged.")
    path: str


class FinetuneOut(SubmittedOut):
    """A training run."""

    steps: int = Field(description="Optimizer steps wanted.")
    steps_done: int = Field(description="As of the last line of its log.")
    loss: float | None = Field(description="Of the last logged step.")
    flops: float = Field(description="Training FLOPs of the committed checkpoints, exact accounting.")
    flops_paper: float = Field(description="6 x parameters x tokens of the same.")
    busy_s: float = Field(description="Seconds of training, what had to be done again included.")
    gpu_hours: float
    cpu_hours: float = Field(description="Of cores, where no GPU was held.")
    checkpoints: list[CheckpointOut]


class LogOut(BaseModel):
    """The training log so far, one entry a logged step, over all attempts; a step that was done again counts once."""

    items: list[dict[str, float]]


class SelectionList(BaseModel):
    """Selections, newest first."""

    items: list[SelectionOut]
    next_cursor: str | None


class FinetuneList(BaseModel):
    """Finetunes, newest first."""

    items: list[FinetuneOut]
    next_cursor: str | None
