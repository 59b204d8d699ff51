"""The evaluation document as it comes in, and evaluations as they go out."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.wire.base import MAX_INT, InputModel, Line, Name, Whole
from api.wire.comparisons import ChildOut, EvaluateDocument, Measured
from api.wire.job_document import PromptDocument, SamplingDocument


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


class EvaluationOut(BaseModel):
    """An evaluation with what it has found so far."""

    id: str
    name: str
    phase: str
    desired: str
    created_at: datetime
    ended_at: datetime | None
    error: str | None
    document: dict[str, Any]
    flops_by_stage: dict[str, float]
    children: list[ChildOut]
    results: list[ModelResult] | None = Field(description="So far; null in lists.")


class EvaluationList(BaseModel):
    """Evaluations, newest first."""

    items: list[EvaluationOut]
    next_cursor: str | None
