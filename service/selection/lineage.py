"""Where a training set comes from: jobs, models and their licences, problem sets, filters, what it all cost.

Owns the lineage document, which goes into the footer of the set's Parquet file, so that the file's hash covers it, and
beside it as JSON for people. Invariant: it names no path of a machine, so that it can be published. What is not known,
such as a licence nobody stated, is null and not guessed. Must not import the store.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from pydantic import TypeAdapter, ValidationError

from service.errors import CorruptFile
from service.receipts import Usage
from service.selection.decontaminate import Contamination
from service.selection.judge_quality import Judged
from service.selection.operators import FilterCount
from service.selection.spec import SelectionSpec

LINEAGE_KEY = b"isoflop.lineage"
LINEAGE_FILE = "lineage.json"
LINEAGE_VERSION = 1

_CARDS = ("README.md", "MODEL_CARD.md")
_LICENSE_FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "COPYING")
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---\s", re.DOTALL)
_MOST_CHARS = 100_000
_KNOWN_TEXTS = (
    (re.compile(r"Apache License\s+Version 2\.0"), "apache-2.0"),
    (re.compile(r"\A\s*(?:The )?MIT License"), "mit"),
)
"""How license files begin whose identifier is beyond doubt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOrigin:
    """A model that drew samples.

    Args:
        revision: "sha256:<hex>" over its files.
        base: the registered model it is a checkpoint of.
        license: identifier or name, as its files state it; None where they do not.
    """

    name: str
    revision: str
    parameters: int
    base: str | None
    license: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemsOrigin:
    """A problem set. Registered files carry no license field, so it is None unless somebody knows better."""

    name: str
    fingerprint: str
    num_problems: int
    license: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutOrigin:
    """A problem set that the training set must not contain."""

    name: str
    num_problems: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOrigin:
    """One job of the selection.

    Args:
        job: its document, resolved.
        versions: of the packages that drew the samples.
        currency: of its budget; `limit` and `spent` are ledger amounts in it (MFLOP, tokens or samples).
        usage: sums over all its committed samples, selected or not; FLOPs in exact and in paper accounting.
        unscored: its samples that no scorer has seen.
    """

    job_id: str
    job: dict[str, Any]
    models: tuple[ModelOrigin, ...]
    problems: ProblemsOrigin
    versions: dict[str, str]
    currency: str
    limit: int | None
    spent: int
    usage: Usage
    unscored: int
    manifest_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What is in the training set.

    Args:
        rows_by_arm: by name of the job's arm, all sources together; empty where there is one.
    """

    rows: int
    problems: int
    completion_tokens: int
    rows_by_model: dict[str, int]
    correct: int
    verified: int
    rows_by_arm: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Everything a training set rests on.

    Args:
        judges: jobs that judged samples, as origins.
        judged: what they said of the samples of all sources; None without judges.
    """

    version: int = LINEAGE_VERSION
    spec: SelectionSpec
    sources: tuple[SourceOrigin, ...]
    held_out: tuple[HeldOutOrigin, ...]
    filters: tuple[FilterCount, ...]
    contamination: Contamination
    statistics: Statistics
    judges: tuple[SourceOrigin, ...] = ()
    judged: Judged | None = None

    def to_json(self) -> str:
        """As indented JSON."""
        return _adapter().dump_json(self, indent=1).decode()


def lineage_from_json(text: str | bytes, *, path: str | Path) -> Lineage:
    """The inverse of `Lineage.to_json`.

    Raises:
        CorruptFile: it is no lineage, or one of another version; `path` is what the message names.
    """
    try:
        lineage = _adapter().validate_json(text)
    except ValidationError as error:
        raise CorruptFile(f"{path}: not a lineage: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from error
    if lineage.version != LINEAGE_VERSION:
        raise CorruptFile(f"{path}: lineage version {lineage.version}, this release reads {LINEAGE_VERSION}")
    return lineage


def read_lineage(dataset_path: str | Path) -> Lineage:
    """The lineage in the footer of a training set's file.

    Raises:
        CorruptFile: not a readable training set of a selection.
    """
    try:
        metadata: Mapping[bytes, bytes] = pq.read_schema(dataset_path).metadata or {}
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise CorruptFile(f"{dataset_path}: not a readable Parquet file: {error}") from error
    if LINEAGE_KEY not in metadata:
        raise CorruptFile(f"{dataset_path}: has no lineage in its footer; it was not written by a selection")
    return lineage_from_json(metadata[LINEAGE_KEY], path=dataset_path)


def license_of(directory: str | Path | None) -> str | None:
    """What the files of a model directory say of its license.

    The `license` of the model card's front matter, with the name that stands beside `other`; else what the license
    file is, by its identifier where its beginning is well known and by its first line where not; else None.
    """
    if not directory or not Path(directory).is_dir():
        return None
    for name in _CARDS:
        if stated := _from_card(_beginning(Path(directory) / name)):
            return stated
    for name in _LICENSE_FILES:
        text = _beginning(Path(directory) / name)
        known = next((identifier for pattern, identifier in _KNOWN_TEXTS if pattern.search(text[:500])), None)
        if known is not None:
            return known
        if first := next((line.strip(" #\t") for line in text.splitlines() if line.strip(" #\t")), None):
            return first[:200]
    return None


def _from_card(text: str) -> str | None:
    matter = _FRONT_MATTER.match(text)
    try:
        fields: object = yaml.safe_load(matter[1]) if matter else None
    except yaml.YAMLError:
        return None  # a card that cannot be read states nothing
    if not isinstance(fields, Mapping):
        return None
    card: Mapping[object, object] = fields  # pyright: ignore[reportUnknownVariableType]
    stated, name = card.get("license"), card.get("license_name")
    if stated == "other" and isinstance(name, str):
        return name
    return stated if isinstance(stated, str) and stated else None


def _beginning(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_MOST_CHARS)


@cache
def _adapter() -> TypeAdapter[Lineage]:
    return TypeAdapter(Lineage)
