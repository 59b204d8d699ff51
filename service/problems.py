"""Problem sets: JSONL, Parquet or a `datasets` name with columns mapped, read once and kept as our own Parquet.

A registered set is a copy with a fingerprint, so that a file edited later cannot change what a job sampled. Malformed
rows are refused with their numbers before anything is spent.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import InvalidInput
from service.records import PROBLEM_SCHEMA, ProblemRow

MAX_ERRORS_SHOWN = 10
LEVELS = range(-(2**15), 2**15)
"""What metrics hold a level in."""
_COLUMNS = ("id", "question", "answer", "level", "structure")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSource:
    """Where problems come from.

    Args:
        path: a .jsonl or .parquet file; exactly one of `path` and `dataset` is given.
        dataset: a name for `datasets.load_dataset`.
        subset: configuration of the dataset.
        split: split of the dataset.
        columns: our column (id, question, answer, level, structure) -> the source's column.
    """

    path: str | None = None
    dataset: str | None = None
    subset: str | None = None
    split: str = "train"
    columns: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSet:
    """A registered set.

    Args:
        path: our Parquet copy, rows `ProblemRow`, row i is problem index i.
        fingerprint: "sha256:<hex>" over the rows' contents.
    """

    name: str
    path: str
    fingerprint: str
    num_problems: int
    source: str


def register_problems(*, name: str, source: ProblemSource, data_dir: Path) -> ProblemSet:
    """Reads, checks and copies a problem set under `data_dir`.

    Raises:
        InvalidInput: unreadable source, unknown columns, or malformed rows, with their numbers.
    """
    unknown = sorted(set(source.columns) - set(_COLUMNS))
    if unknown:
        raise InvalidInput(f"columns: got {', '.join(unknown)}, allowed: {', '.join(_COLUMNS)}")
    try:
        rows = list(_checked(name, _read(source), source.columns))
    except UnicodeDecodeError as error:
        # a column of a Parquet file or of a data set; lines of a file are decoded one by one
        raise InvalidInput(f"{_describe(source)}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    if not rows:
        raise InvalidInput(f"problem set {name!r}: no rows in {_describe(source)}")
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.problem_id, row.question, row.reference], ensure_ascii=False).encode())
    fingerprint = digest.hexdigest()
    path = data_dir / "problems" / f"{fingerprint[:32]}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {column: [getattr(row, column) for row in rows] for column in PROBLEM_SCHEMA.names}
    temporary = path.with_suffix(".tmp")
    pq.write_table(pa.table(columns, schema=PROBLEM_SCHEMA), temporary)
    temporary.replace(path)  # the same fingerprint is the same content, so replacing changes nothing
    return ProblemSet(
        name=name,
        path=str(path),
        fingerprint=f"sha256:{fingerprint}",
        num_problems=len(rows),
        source=_describe(source),
    )


def _describe(source: ProblemSource) -> str:
    if source.path is not None:
        return source.path
    return ":".join(part for part in (source.dataset, source.subset, source.split) if part)


def _read(source: ProblemSource) -> Iterable[tuple[int, Any]]:
    """Rows with the number a person would look for: the line of a JSONL file, from 1."""
    if (source.path is None) == (source.dataset is None):
        raise InvalidInput("source: give exactly one of path and dataset")
    if source.dataset is not None:
        return _read_dataset(source)
    path = Path(str(source.path))
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file")
    match path.suffix:
        case ".jsonl" | ".ndjson":
            return _read_jsonl(path)
        case ".parquet":
            return _read_parquet(path)
        case suffix:
            raise InvalidInput(f"{path}: got {suffix or 'no suffix'}, allowed: .jsonl, .parquet")


def _read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                byte = f"{error.object[error.start]:#04x}"
                yield number, InvalidInput(f"not UTF-8 text: {error.reason} {byte} at byte {error.start} of the line")
            except json.JSONDecodeError as error:
                yield number, InvalidInput(f"not JSON: {error.msg}")
            except (ValueError, RecursionError) as error:  # a number of too many digits, brackets in brackets
                yield number, InvalidInput(f"JSON that cannot be read: {error}")


def _read_parquet(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InvalidInput(f"{path}: not a readable Parquet file: {error}") from error
    rows: list[dict[str, Any]] = table.to_pylist()
    return enumerate(rows, start=1)


def _read_dataset(source: ProblemSource) -> Iterable[tuple[int, Any]]:
    import datasets  # imported here: it takes a second that only this kind of source needs

    try:
        loaded = datasets.load_dataset(str(source.dataset), source.subset, split=source.split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise InvalidInput(f"dataset {_describe(source)}: {error}") from error
    rows: Iterable[dict[str, Any]] = loaded
    return enumerate(rows, start=1)


def _checked(name: str, rows: Iterable[tuple[int, Any]], columns: Mapping[str, str]) -> Iterator[ProblemRow]:
    errors: list[str] = []
    seen: dict[str, int] = {}
    for position, (number, row) in enumerate(rows):
        try:
            problem = _problem(row, position, columns)
        except InvalidInput as error:
            errors.append(f"row {number}: {error}")
            continue
        if problem.problem_id in seen:
            errors.append(f"row {number}: id {problem.problem_id!r} occurs in row {seen[problem.problem_id]} too")
            continue
        seen[problem.problem_id] = number
        if not errors:
            yield problem
    if errors:
        shown = "; ".join(errors[:MAX_ERRORS_SHOWN])
        more = f"; and {len(errors) - MAX_ERRORS_SHOWN} more" if len(errors) > MAX_ERRORS_SHOWN else ""
        raise InvalidInput(f"problem set {name!r}: {len(errors)} malformed rows: {shown}{more}")


def _problem(row: Any, position: int, columns: Mapping[str, str]) -> ProblemRow:
    if isinstance(row, InvalidInput):
        raise row
    if not isinstance(row, Mapping):
        raise InvalidInput(f"got {type(row).__name__}, allowed: an object")
    row = cast("Mapping[str, Any]", row)
    question = row.get(columns.get("question", "question"))
    answer = row.get(columns.get("answer", "answer"))
    if not isinstance(question, str) or not question.strip():
        raise InvalidInput(_missing(row, columns.get("question", "question"), "a text that is not empty"))
    if isinstance(answer, bool) or not isinstance(answer, str | int | float) or not _is_answer(answer):
        raise InvalidInput(_missing(row, columns.get("answer", "answer"), "a text or a finite number"))
    level = row.get(columns.get("level", "level"))
    if level is not None and (isinstance(level, bool) or not isinstance(level, int) or level not in LEVELS):
        got = repr(level)[:60]
        raise InvalidInput(f"level: got {got}, allowed: an integer of {LEVELS[0]:,} to {LEVELS[-1]:,}, or nothing")
    identifier = row.get(columns.get("id", "id"))
    problem = ProblemRow(
        problem_id=str(position) if identifier is None else str(identifier),
        question=question,
        reference=str(answer),
        level=level,
        structure=_structure(row.get(columns.get("structure", "structure"))),
    )
    # by the names that people write
    _check_text("id", problem.problem_id)
    _check_text("question", problem.question)
    _check_text("answer", problem.reference)
    _check_text("structure", problem.structure)
    return problem


def _is_answer(answer: str | float) -> bool:
    """Whether a scorer could find it right: some text, and no NaN or infinity, which are what a lost answer becomes."""
    try:
        return bool(str(answer).strip()) and math.isfinite(float(answer))
    except ValueError:
        return True  # a text that is no number, such as a worked solution
    except OverflowError:
        return True  # a whole number beyond floats


def _structure(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"structure: got {type(value).__name__} ({error}), allowed: a text or JSON") from error


def _check_text(name: str, text: str | None) -> None:
    """Refuses half of a surrogate pair: JSON can write one, no file can hold it."""
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise InvalidInput(
            f"{name}: got the lone surrogate {half} at character {error.start}, allowed: text"
        ) from error


def _missing(row: Mapping[str, Any], column: str, allowed: str) -> str:
    got = repr(row[column])[:60] if column in row else f"no such column among {', '.join(map(_printable, row))}"
    return f"{column}: got {got}, allowed: {allowed}"


def _printable(name: object) -> str:
    return str(name)[:60].encode("utf-8", "backslashreplace").decode()
