"""What everything that was submitted shares on its way out: who it is, where it stands, what it was asked to be."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from api.wire.base import Known


class SubmittedOut(BaseModel):
    """What a job, selection, finetune, evaluation and comparison share on their way out."""

    id: str
    name: str
    phase: str = Field(
        description="queued, preparing, running, pausing, paused, cancelling, succeeded, finished_with_errors, failed, "
        "cancelled."
    )
    desired: str = Field(description="run, pause or cancel.")
    created_at: datetime
    ended_at: datetime | None
    error: str | None
    document: dict[str, Any] = Field(description="The resolved document; submitting it again asks for the same.")


class ChildOut(BaseModel):
    """What an evaluation or comparison has submitted."""

    key: str
    id: str
    phase: str


class ParentOut(SubmittedOut):
    """What evaluations and comparisons share."""

    flops_by_stage: dict[str, Known] = Field(description="Of all its children, useful and wasted; shared ones too.")
    children: list[ChildOut]


class Measured(BaseModel):
    """A number over problems and seeds with its 95 % interval."""

    value: float
    low: float
    high: float
