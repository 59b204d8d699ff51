"""Files of completions as record batches: JSONL (also compressed) and Parquet, only the columns that are wanted.

Owns how a file is opened and how a fault in it is told. Invariant: batches come from Arrow and no row becomes a Python
object, except the first ones, which are looked at, and those of a file that is already known to be faulty. A fault is
named by the line of a JSONL file or the row of a Parquet file, from 1. Memory is a few blocks.
"""

import gzip
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.json as paj
import pyarrow.parquet as pq

from service.errors import InvalidInput
from service.importing.spec import ImportSpec

HEAD_ROWS = 1000
"""Rows that are looked at before anything is decided."""
SUFFIXES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".jsonl.zst", ".ndjson.zst", ".parquet")
_BLOCK_BYTES = 16 << 20
_BATCH_ROWS = 8192
_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
_KINDS = {
    "a text": _TEXT,
    "a whole number": pa.int64(),
    "a number": pa.float64(),
    "a list of texts": _TEXTS,
    "a list of whole numbers": pa.list_(pa.int64()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The beginning of a file.

    Args:
        columns: every column that occurs, in order.
        rows: the first ones.
        kinds: kinds of values by column, nulls left out; a kind is how an error would call it.
    """

    columns: tuple[str, ...]
    rows: list[dict[str, Any]]
    kinds: dict[str, set[str]]


def read_head(path: Path) -> Head:
    """The first `HEAD_ROWS` rows of a file.

    Raises:
        InvalidInput: no such file, of another kind, empty, or one of these rows cannot be read; which one is said.
    """
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file")
    if not path.name.endswith(SUFFIXES):
        raise InvalidInput(f"{path}: got {path.suffix or 'no suffix'}, allowed: {', '.join(SUFFIXES)}")
    rows = _parquet_head(path) if _is_parquet(path) else [row for _, row in islice(_lines(path), HEAD_ROWS)]
    if not rows:
        raise InvalidInput(f"{path}: has no rows")
    kinds: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            found = kinds.setdefault(name, set())
            if value is not None:
                found.add(kind_of(value))
    return Head(columns=tuple(kinds), rows=rows, kinds=kinds)


def kind_of(value: object) -> str:
    """What a value is, as an error calls it."""
    match value:
        case bool():
            return "true or false"
        case str():
            return "a text"
        case int():
            return "a whole number"
        case float():
            return "a number"
        case list():
            items = {kind_of(item) for item in cast("list[object]", value) if item is not None}
            word = {"a text": "texts", "a whole number": "whole numbers"}.get(next(iter(items), "a text"))
            return f"a list of {word}" if len(items) <= 1 and word else "a list of mixed values"
        case _:
            return "an object"


def read_batches(path: Path, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    """All rows of a file, in order, with the columns of `types`; one that a row lacks is null.

    Raises:
        InvalidInput: a row cannot be read, or a value is not of its column's type; which one is said.
    """
    try:
        yield from _parquet_batches(path, types) if _is_parquet(path) else _json_batches(path, types)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if not _is_parquet(path):
            _explain(path, types)
        raise InvalidInput(f"{path}: cannot be read: {_first_line(error)}") from error


def column_types(spec: ImportSpec) -> dict[str, pa.DataType]:
    """What each of our columns is read as."""
    return {column.ours: _KINDS[column.kind] for column in spec.columns}


def place_of(path: Path, row: int) -> str:
    """Where a row stands, for people: `line 17` of a JSONL file, whose blank lines count, `row 17` of a Parquet file.

    Args:
        row: counted from 0.
    """
    if _is_parquet(path):
        return f"row {row + 1:,}"
    with _open(path) as file:
        numbers = (number for number, line in enumerate(file, start=1) if line.strip())
        return f"line {next(islice(numbers, row, None), row + 1):,}"


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


def _json_batches(path: Path, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    options = paj.ParseOptions(
        explicit_schema=pa.schema(list(types.items())), unexpected_field_behavior="ignore", newlines_in_values=False
    )
    with pa.input_stream(path, compression="detect") as stream:
        reader = paj.open_json(stream, paj.ReadOptions(block_size=_BLOCK_BYTES), options)
        for batch in reader:
            batch.validate(full=True)  # bytes that are no UTF-8
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                yield batch.slice(start, _BATCH_ROWS)


def _parquet_batches(path: Path, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=list(types)):
            batch.validate(full=True)
            yield pa.RecordBatch.from_arrays([batch[name].cast(type_) for name, type_ in types.items()], list(types))


def _parquet_head(path: Path) -> list[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            batch = next(file.iter_batches(batch_size=HEAD_ROWS), None)
            return [] if batch is None else batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise InvalidInput(f"{path}: not a readable Parquet file: {_first_line(error)}") from error


def _explain(path: Path, types: Mapping[str, pa.DataType]) -> None:
    """Raises for the first line that is no JSON object, or has a value of another type than its column.

    Arrow says what it could not read and not where, so that a faulty file is gone through once more, slowly.
    """
    for number, row in _lines(path):
        for name, type_ in types.items():
            value = row.get(name)
            if value is not None and not _fits(value, type_):
                allowed = next(kind for kind, known in _KINDS.items() if known == type_)
                raise InvalidInput(
                    f"{path}: line {number:,}: {name}: got {kind_of(value)} ({str(value)[:60]!r}), allowed: {allowed}, "
                    "as in the lines before"
                )
            if isinstance(value, str) and not _is_encodable(value):
                raise InvalidInput(f"{path}: line {number:,}: {name}: got half of a surrogate pair, allowed: text")


def _fits(value: object, type_: pa.DataType) -> bool:
    got = _KINDS.get(kind_of(value))
    return got == type_ or (got == pa.int64() and type_ == pa.float64()) or value == []


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSONL file with their lines, one by one; blank lines are passed over."""
    try:
        with _open(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _object(path, number, line)
    except (OSError, EOFError) as error:
        raise InvalidInput(f"{path}: cannot be read: {_first_line(error)}") from error


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row: object = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        byte = f"{error.object[error.start]:#04x}"
        raise InvalidInput(
            f"{path}: line {number:,}: not UTF-8 text: {byte} at byte {error.start}, allowed: a JSON object"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: line {number:,}: not JSON: {error}; allowed: one JSON object a line") from error
    if not isinstance(row, dict):
        raise InvalidInput(f"{path}: line {number:,}: got {kind_of(row)}, allowed: one JSON object a line")
    return cast("dict[str, Any]", row)


def _open(path: Path) -> Any:
    """The file's bytes, decompressed, as something that iterates over lines."""
    if path.suffix == ".gz":
        return gzip.open(path)
    if path.suffix == ".zst":
        return io.BufferedReader(pa.input_stream(path, compression="zstd"))
    return path.open("rb")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
