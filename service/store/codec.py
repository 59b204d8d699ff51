"""Documents and times between the domain's dataclasses and database columns.

pydantic's TypeAdapter validates what comes back, so that a row written by another release fails loudly here and not
as a strange attribute somewhere in a tick.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


@lru_cache(maxsize=32)
def _adapter(type_: Any) -> TypeAdapter[Any]:
    return TypeAdapter(type_)


def to_json(value: object, type_: Any = None) -> str:
    """A dataclass (or a tuple or dict of them, with its type given) as JSON text."""
    return _adapter(type_ or type(value)).dump_json(value).decode()


def from_json(type_: type[T], text: str) -> T:
    """The inverse of `to_json`.

    Raises:
        pydantic.ValidationError: the document does not fit the type.
    """
    value: T = _adapter(type_).validate_json(text)
    return value


def aware(value: datetime | None) -> datetime | None:
    """A time read from the database as aware UTC: SQLite drops the zone."""
    if value is None or value.tzinfo is not None:
        return value
    return value.replace(tzinfo=UTC)
