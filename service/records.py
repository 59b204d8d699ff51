"""Row types of every Parquet file, and their Arrow schemas, derived from the dataclasses.

One dataclass per table is the single definition: names, types and nullability come from its annotations, and a type
without an Arrow counterpart is an error naming class and field.
"""

import types
import typing
from dataclasses import dataclass, fields

import pyarrow as pa

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemRow:
    """One problem of a registered set, row i is problem index i.

    Args:
        reference: the gold answer or a solution that ends in it.
        level: difficulty, where the set has one.
        structure: JSON a set's own exact checker needs; opaque here.
    """

    problem_id: str
    question: str
    reference: str
    level: int | None
    structure: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRow:
    """One rendered prompt, row i is problem index i; `error` says why a problem cannot be sampled (then no tokens).

    Args:
        max_tokens: most tokens a completion of this prompt may have.
    """

    problem_index: int
    problem_id: str
    prompt: str
    token_ids: list[int]
    prompt_tokens: int
    max_tokens: int
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """One sample, or the error that stands in its place: a planned sample is never dropped silently."""

    sample_id: str
    job_id: str
    problem_id: str
    problem_index: int
    model: str
    model_revision: str
    prompt_id: str
    sampling_id: str
    engine_version: str
    sample_index: int
    seed: int
    attempt: str
    prompt: str
    completion: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    flops: float
    flops_paper: float
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRow:
    """What one scorer says of one sample."""

    sample_id: str
    problem_index: int
    sample_index: int
    scorer: str
    scorer_version: str
    predicted_answer: str | None
    expected_answer: str | None
    verdict: str | None
    steps: str | None
    explanation: str
    solution_key: int
    equations_key: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedRow:
    """One training example with where it comes from; TRL trains on `prompt` and `completion` and ignores the rest.

    Args:
        source: index of the job in the selection's sources.
        arm: of the job that drew it.
        is_verified: whether the step check found the reasoning valid; None where it was not made or could not tell.
    """

    prompt: str
    completion: str
    problem_id: str
    sample_id: str
    job_id: str
    source: int
    model: str
    arm: str
    prompt_id: str
    sampling_id: str
    is_correct: bool | None
    is_verified: bool | None
    completion_tokens: int


_ARROW: dict[object, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
}
# pa.list_ names its inner field "item" in memory and "element" in Parquet; declaring it keeps both equal
_TOKEN_IDS = pa.list_(pa.field("element", pa.int32(), nullable=False))


def arrow_schema(row_type: type) -> pa.Schema:
    """The Arrow schema of a row dataclass.

    Raises:
        TypeError: for a field whose type has no Arrow counterpart, naming class and field.
    """
    hints = typing.get_type_hints(row_type)
    return pa.schema([_arrow_field(row_type, field.name, hints[field.name]) for field in fields(row_type)])


def _arrow_field(row_type: type, name: str, annotation: object) -> pa.Field:
    is_nullable = False
    if isinstance(annotation, types.UnionType):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        is_nullable = len(members) < len(typing.get_args(annotation))
        annotation = members[0] if len(members) == 1 else annotation
    if annotation == list[int]:
        return pa.field(name, _TOKEN_IDS, nullable=is_nullable)
    if name.endswith("_key") and annotation is int:
        return pa.field(name, pa.uint64(), nullable=is_nullable)
    if annotation not in _ARROW:
        allowed = ", ".join(t.__name__ for t in (str, int, float, bool)) + ", list[int]"
        raise TypeError(f"{row_type.__name__}.{name}: no Arrow type for {annotation!r}; allowed: {allowed}")
    return pa.field(name, _ARROW[annotation], nullable=is_nullable)


PREPARED_SCHEMA = arrow_schema(PreparedRow)
SAMPLE_SCHEMA = arrow_schema(SampleRow)
SCORE_SCHEMA = arrow_schema(ScoreRow)
PROBLEM_SCHEMA = arrow_schema(ProblemRow)
SELECTED_SCHEMA = arrow_schema(SelectedRow)
