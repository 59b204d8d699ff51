"""Documents and times between the domain's dataclasses and database columns.

pydantic's TypeAdapter validates what comes back, so that a row written by another release fails loudly here and not
as a strange attribute somewhere in a tick.
"""

import hashlib
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


def address_of(value: object) -> str:
    """What two documents share that ask for the same: sha256 of all that differs from the defaults.

    A field that is added later, with a default that changes nothing, leaves the addresses of all before as they are; so
    the default of a field that was stored once never changes.
    """
    return hashlib.sha256(_adapter(type(value)).dump_json(value, exclude_defaults=True)).hexdigest()


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
