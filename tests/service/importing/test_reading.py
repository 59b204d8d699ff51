"""Files of completions: what they are read as, and where a fault in one is said to be."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import InvalidInput
from service.importing.reading import place_of, read_batches, read_head

TEXT = {"id": pa.string(), "text": pa.string()}


def rows_of(path: Path, types: dict[str, pa.DataType] = TEXT) -> list[dict[str, object]]:
    return [row for batch in read_batches(path, types) for row in batch.to_pylist()]


def test_columns_that_nobody_asked_for_are_left_out_and_missing_ones_are_null(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "a", "text": "x", "other": {"deep": [1]}}\n\n{"id": "b"}\n')

    assert rows_of(path) == [{"id": "a", "text": "x"}, {"id": "b", "text": None}]
    assert read_head(path).columns == ("id", "text", "other")


@pytest.mark.parametrize("suffix", ["jsonl.gz", "jsonl.zst"])
def test_compressed_lines_are_read_and_counted(tmp_path: Path, suffix: str) -> None:
    path, content = tmp_path / f"a.{suffix}", b'{"id": "a", "text": "x"}\n\n{"id": "b", "text": "y"}\n'
    if suffix.endswith("gz"):
        path.write_bytes(gzip.compress(content))
    else:
        with pa.output_stream(path, compression="zstd") as stream:
            stream.write(content)

    assert [row["id"] for row in rows_of(path)] == ["a", "b"]
    assert place_of(path, 1) == "line 3"
    assert len(read_head(path).rows) == 2


def test_a_fault_far_into_a_large_file_is_found_by_its_line(tmp_path: Path) -> None:
    path, line = tmp_path / "a.jsonl", json.dumps({"id": "a", "text": "x" * 1000}) + "\n"
    path.write_text(line * 20_000 + '{"id": "a", "text": ["x"]}\n')

    with pytest.raises(InvalidInput, match=r"line 20,001: text: got a list of texts .*allowed: a text"):
        rows_of(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": "\xff"}\n', "line 2: not UTF-8 text: 0xff"),
        (b'{"text": "a"}\n{"text": "\\ud800"}\n', "line 2: text: got half of a surrogate pair"),
        (b'{"text": "a"}\n{"text": tru}\n', "line 2: not JSON"),
        (b'{"text": "a"}\n7\n', "line 2: got a whole number, allowed: one JSON object a line"),
    ],
)
def test_bytes_that_are_no_text_and_lines_that_are_no_object_are_named(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)

    with pytest.raises(InvalidInput, match=message):
        rows_of(path, {"text": pa.string()})


def test_parquet_of_other_string_types_is_read_and_counts_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = pa.array(["x", "y", "x"], type=pa.large_string())
    pq.write_table(pa.table({"id": pa.array(["a", "b", "a"]).dictionary_encode(), "text": texts}), path)

    assert rows_of(path) == [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}, {"id": "a", "text": "x"}]
    assert place_of(path, 1) == "row 2"


@pytest.mark.parametrize(
    ("name", "message"), [("a.csv", r"got \.csv, allowed: .*\.jsonl"), ("gone.jsonl", "no such file")]
)
def test_other_files_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "a.csv").write_text("id,text\n")

    with pytest.raises(InvalidInput, match=message):
        read_head(tmp_path / name)
