"""What all documents share: unknown fields are refused with the known ones, numbers are numbers, names are names."""

import difflib
import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

MAX_INT = 2**63 - 1
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$"


class InputModel(BaseModel):
    """A document that comes from outside. `"5"` is no number here and `true` is no 1."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, value: Any) -> Any:
        """Says what the fields are, which pydantic's own message does not."""
        if isinstance(value, dict):
            for name in value:
                if name not in cls.model_fields:
                    raise PydanticCustomError(
                        "unknown_field",
                        "{allowed}",
                        {"field": str(name)[:100], "got": "an unknown field", "allowed": cls._allowed(str(name))},
                    )
        return value

    @classmethod
    def _allowed(cls, name: str) -> str:
        close = difflib.get_close_matches(name, cls.model_fields, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return ", ".join(cls.model_fields) + hint


def _to_whole(value: object) -> object:
    """A JSON number without a fraction is a whole number, also when it is written 1e6."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer() and abs(value) <= MAX_INT:
        return int(value)
    return value


def refuse_unstorable(value: str) -> str:
    """Refuses characters that a database cannot hold."""
    if "\0" in value:
        raise PydanticCustomError("nul", "a text without NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("surrogate", "a text without halves of surrogate pairs") from error
    return value


Whole = Annotated[int, BeforeValidator(_to_whole, json_schema_input_type=int)]
"""An integer, written in any way a JSON number can be."""

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=200)]
"""A name in the catalogue: letters, digits, `.`, `_`, `-`, parts separated by `/`."""

Line = Annotated[
    str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), AfterValidator(refuse_unstorable)
]
"""A short text for people."""

LongText = Annotated[str, Field(max_length=50_000), AfterValidator(refuse_unstorable)]
"""A part of a prompt."""

Known = Annotated[float | None, BeforeValidator(lambda value: None if value != value else value)]
"""A number that goes out, or null where it cannot be told: JSON has no NaN."""

PathText = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(refuse_unstorable)]
"""A path on the service's machine."""
