"""Job files: YAML on disk, `a.b=c` overrides on the command line, one document in the end.

A job file is the REST document; checking it is the service's work. What JSON cannot hold is refused here, and so are
aliases, with which a few lines can stand for gigabytes. Must start fast: no pydantic, no HTTP.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from service.errors import InvalidInput

MAX_FILE_BYTES = 8 << 20
"""As large as the service's default for a request."""
MAX_DEPTH = 50
"""Levels of a document, far more than any field has."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2 numbers: `2e12` is one, which YAML 1.1 reads as a text. Dates are texts; no aliases, no tags."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node, unless it is one that a job file has no use for."""
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _refused(f"alias *{event.anchor}: none are allowed", event)
        if getattr(event, "tag", None) is not None:
            raise _refused(f"tag {event.tag}: none are allowed", event)
        if self._depth >= MAX_DEPTH:
            raise _refused(f"more than {MAX_DEPTH} levels", event)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _refused(problem: str, event: Any) -> ComposerError:
    return ComposerError(None, None, problem, event.start_mark)


_Loader.yaml_implicit_resolvers = {
    key: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for key, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
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
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}; allowed: a readable job file") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    if len(text.encode()) > MAX_FILE_BYTES:
        raise InvalidInput(f"{path}: longer than {MAX_FILE_BYTES:,} bytes, allowed: a job file")
    document = _parse(text, where=str(path))
    if not isinstance(document, dict):
        raise InvalidInput(f"{path}: got {_kind(document)}, allowed: a mapping with problems, models, budget")
    for override in overrides:
        apply_override(document, override)
    return document


def apply_override(document: dict[str, Any], override: str) -> None:
    """Sets one field, e.g. `budget.flops=2e12`; the value is YAML.

    A `budget` has one currency, so that overriding another one replaces the one in the file; likewise one temperature
    replaces several.

    Raises:
        InvalidInput: no `=`, an empty name, or a path through something that is no mapping.
    """
    path, separator, text = override.partition("=")
    names = path.split(".")
    if not separator or not all(names):
        raise InvalidInput(f"override: got {override[:200]!r}, allowed: field=value or field.field=value")
    if len(names) > MAX_DEPTH:
        raise InvalidInput(f"override: got {len(names):,} levels, allowed: at most {MAX_DEPTH}")
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
    for one, several in (("temperature", "temperatures"), ("temperatures", "temperature")):
        if names == ["sampling", one]:
            target.pop(several, None)
    target[names[-1]] = _parse(text, where=f"override {override[:200]!r}")


def _parse(text: str, *, where: str) -> Any:
    try:
        value = yaml.load(text, Loader=_Loader)
        json.dumps(value)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split()).replace('in "<unicode string>",', "at")
        raise InvalidInput(f"{where}: not YAML: {problem}") from error
    except (ValueError, TypeError, RecursionError) as error:
        # a number of thousands of digits, or brackets in brackets before a level can be counted
        raise InvalidInput(f"{where}: not readable as a document: {error}") from error
    return value


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
