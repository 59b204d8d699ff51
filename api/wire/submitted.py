"""What everything that was submitted shares on its way out: who it is, where it stands, what it was asked to be."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from api.wire.base import Known
from service.devices import SECONDS_PER_HOUR, DeviceTime


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


class DeviceHoursOut(BaseModel):
    """Time that devices worked. GPU time and core time are never added to each other."""

    gpu_hours: float = Field(description="Busy time times GPUs held.")
    cpu_hours: float = Field(description="Busy time times cores held, of what held no GPU.")


class DevicesOut(DeviceHoursOut):
    """Of all stages, scoring included; loading, idling and swaps of engines belong to no job."""

    by_stage: dict[str, DeviceHoursOut]

    @classmethod
    def of(cls, by_stage: Mapping[str, DeviceTime]) -> Self:
        """Device time of stages as it goes out."""
        total = sum(by_stage.values(), DeviceTime())
        stages = {stage: DeviceHoursOut(**_hours(time)) for stage, time in by_stage.items()}
        return cls(**_hours(total), by_stage=stages)


def _hours(time: DeviceTime) -> dict[str, float]:
    return {"gpu_hours": time.gpu_s / SECONDS_PER_HOUR, "cpu_hours": time.cpu_s / SECONDS_PER_HOUR}


class ParentOut(SubmittedOut):
    """What evaluations and comparisons share."""

    flops_by_stage: dict[str, Known] = Field(description="Of all its children, useful and wasted; shared ones too.")
    devices: DevicesOut
    children: list[ChildOut]


class Measured(BaseModel):
    """A number over problems and seeds with its 95 % interval."""

    value: float
    low: float
    high: float
