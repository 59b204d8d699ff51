"""The arms of a job as they come in: named prompts, named samplings, and arms one by one."""

from typing import Annotated

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from api.wire.base import InputModel, Name
from api.wire.prompt_document import PromptDocument
from api.wire.sampling_document import SamplingDocument, Unsigned

Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+-]*$", max_length=60)]
"""A word that stands in the names of arms."""
ArmName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=+/-]*( [A-Za-z0-9][A-Za-z0-9._=+/-]*)*$", max_length=200)
]
"""Words with single spaces between them."""
MAX_ARMS = 32
"""Each is drawn, measured and shown by itself; more than this nobody reads side by side."""
Temperature = Annotated[Unsigned, Field(ge=0, le=2, allow_inf_nan=False)]


class NamedPromptDocument(PromptDocument):
    """One of several prompts."""

    name: Label = Field(description="Stands in the names of its arms.")


class NamedSamplingDocument(SamplingDocument):
    """One of several ways to draw."""

    name: Label = Field(description="Stands in the names of its arms.")


class JobSamplingDocument(SamplingDocument):
    """How completions are drawn, at one temperature or at each of several."""

    temperatures: list[Temperature] = Field(
        default_factory=list, max_length=16, description="In place of `temperature`: each makes arms of its own."
    )

    @model_validator(mode="after")
    def _check_temperatures(self) -> "JobSamplingDocument":
        if self.temperatures and "temperature" in self.model_fields_set:
            raise PydanticCustomError("two_fields", "one of temperature and temperatures", {"got": "both of them"})
        if len({f"{value:g}" for value in self.temperatures}) < len(self.temperatures):
            got = ", ".join(f"{value:g}" for value in self.temperatures)
            raise PydanticCustomError("repeated", "temperatures that differ", {"got": got})
        return self


class ArmDocument(InputModel):
    """One arm: what it does not say, the job's prompt and sampling do."""

    name: ArmName
    model: Name
    prompt: PromptDocument | None = None
    sampling: SamplingDocument | None = None
