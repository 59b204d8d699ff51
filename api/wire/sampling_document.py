"""How completions are drawn, as it comes in."""

import json
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from api.wire.base import MAX_INT, InputModel, Whole, refuse_unstorable

MAX_SCHEMA_CHARACTERS = 20_000
_OWN = "Left out, the model's own: what its generation_config.json says, or nothing."


def _without_sign(value: float) -> float:
    return value + 0.0  # of zero: -0.0 is no other way to draw


Unsigned = Annotated[float, AfterValidator(_without_sign)]
"""A number whose zero has no sign."""


class StructureDocument(InputModel):
    """What a completion must look like: exactly one of the fields."""

    json_schema: dict[str, Any] | None = Field(default=None, description="A JSON schema.")
    regex: Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(refuse_unstorable)] | None = Field(
        default=None,
        description="A regular expression that the whole completion matches, in the engine's dialect: no lookaround.",
    )
    choice: list[Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(refuse_unstorable)]] | None = (
        Field(default=None, min_length=1, max_length=1000, description="The texts that it may be.")
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            allowed = ", ".join(type(self).model_fields)
            raise PydanticCustomError(
                "one_structure", "exactly one of {allowed}", {"allowed": allowed, "got": ", ".join(given) or "none"}
            )
        try:
            schema = json.dumps(self.json_schema, allow_nan=False, ensure_ascii=False)
            schema.encode()
        except (ValueError, RecursionError) as error:
            raise PydanticCustomError("schema", "a JSON schema", {"got": str(error)[:200]}) from error
        if len(schema) > MAX_SCHEMA_CHARACTERS:
            raise PydanticCustomError(
                "schema", "a schema of at most {allowed} characters", {"allowed": MAX_SCHEMA_CHARACTERS, "got": "more"}
            )
        try:
            re.compile(self.regex or "")
        except (re.error, OverflowError, RecursionError) as error:
            raise PydanticCustomError("regex", "a regular expression", {"got": str(error)[:200]}) from error
        return self


class SamplingDocument(InputModel):
    """How completions are drawn."""

    temperature: Unsigned = Field(default=0.7, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False, description=_OWN)
    top_k: Whole | None = Field(default=None, ge=0, le=MAX_INT, description=f"{_OWN} 0 is all tokens.")
    min_p: Unsigned | None = Field(default=None, ge=0, le=1, allow_inf_nan=False, description=_OWN)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10, allow_inf_nan=False, description=_OWN)
    max_tokens: Whole | Literal["auto"] = Field(
        default="auto", description="Most tokens of a completion; `auto` is what each prompt leaves of the context."
    )
    stop: list[Annotated[str, Field(min_length=1, max_length=200), AfterValidator(refuse_unstorable)]] = Field(
        default_factory=list, max_length=16
    )
    structure: StructureDocument | None = Field(default=None, description="What a completion must look like.")

    @model_validator(mode="after")
    def _check_max_tokens(self) -> Self:
        if self.max_tokens != "auto" and not 1 <= self.max_tokens <= 10_000_000:
            raise PydanticCustomError(
                "max_tokens", "max_tokens of at least 1, or 'auto'", {"got": str(self.max_tokens)[:40]}
            )
        return self
