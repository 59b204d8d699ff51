"""Job files: YAML on disk, `a.b=c` overrides on the command line, one document in the end.

A job file is the REST document; checking it is the service's work. Must start fast: no pydantic, no HTTP.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from service.errors import InvalidInput


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers: `2e12` is one, which YAML 1.1 reads as a text."""


_Loader.yaml_implicit_resolvers = {key: list(found) for key, found in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def read_job_file(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The document in a file with overrides applied in order.

    Raises:
        InvalidInput: no such file, no YAML, no mapping, or an override that is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}; allowed: a readable job file") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    document = _parse(text, where=str(path))
    if not isinstance(document, dict):
        raise InvalidInput(f"{path}: got {_kind(document)}, allowed: a mapping with problems, models, budget")
    for override in overrides:
        apply_override(document, override)
    return document


def apply_override(document: dict[str, Any], override: str) -> None:
    """Sets one field, e.g. `budget.flops=2e12`; the value is YAML.

    A `budget` has one currency, so that overriding another one replaces the one in the file.

    Raises:
        InvalidInput: no `=`, an empty name, or a path through something that is no mapping.
    """
    path, separator, text = override.partition("=")
    names = path.split(".")
    if not separator or not all(names):
        raise InvalidInput(f"override: got {override!r}, allowed: field=value or field.field=value")
    target = document
    for depth, name in enumerate(names[:-1], start=1):
        inner = target.setdefault(name, {})
        if not isinstance(inner, dict):
            raise InvalidInput(
                f"override {override!r}: {'.'.join(names[:depth])} is {_kind(inner)}, allowed: a mapping"
            )
        target = inner
    if names[:-1] == ["budget"]:
        target.clear()
    target[names[-1]] = _parse(text, where=f"override {override!r}")


def _parse(text: str, *, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise InvalidInput(f"{where}: not YAML: {problem}") from error


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
