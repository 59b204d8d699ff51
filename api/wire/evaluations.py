"""The evaluation document as it comes in, and evaluations as they go out."""

from pydantic import BaseModel, Field

from api.wire.base import MAX_INT, InputModel, Line, Name, Whole
from api.wire.comparisons import EvaluateDocument
from api.wire.prompt_document import PromptDocument
from api.wire.sampling_document import SamplingDocument
from api.wire.submitted import Measured, ParentOut


class EvaluationDocument(InputModel):
    """How good is a model on a problem set: greedy, and by majority vote."""

    name: Line | None = Field(default=None, description="For people; made from model and problems without one.")
    model: Name = Field(description="A registered model, or a student's checkpoint.")
    problems: Name
    evaluate: EvaluateDocument = Field(default_factory=EvaluateDocument)
    prompt: PromptDocument = Field(default_factory=PromptDocument)
    sampling: SamplingDocument = Field(
        default_factory=SamplingDocument, description="Of it only `max_tokens` and `stop` count."
    )
    scorers: list[str] = Field(default_factory=lambda: ["math_answer"], max_length=8)
    seed: Whole = Field(default=0, ge=0, le=MAX_INT)
    max_problems: Whole | None = Field(default=None, ge=1, le=MAX_INT)


class ModelResult(BaseModel):
    """What is found of a model by one measure."""

    measure: str = Field(description="greedy or maj@k.")
    num_problems: int
    accuracy: Measured
    false_positive_rate: float | None = Field(description="Of right answers, the share whose steps do not hold.")


class EvaluationOut(ParentOut):
    """An evaluation."""


class EvaluationResultsOut(BaseModel):
    """What an evaluation has found so far."""

    measures: list[ModelResult] = Field(description="Those whose job has ended, in order: greedy, then maj@k.")


class EvaluationList(BaseModel):
    """Evaluations, newest first."""

    items: list[EvaluationOut]
    next_cursor: str | None
