"""Licenses as model directories state them, and lineage documents read back."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import CorruptFile
from service.selection.lineage import LINEAGE_KEY, license_of, lineage_from_json, read_lineage


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"README.md": "---\nlanguage: en\nlicense: gemma\n---\n# Model\n"}, "gemma"),
        ({"README.md": "---\r\nlicense: mit\r\n---\r\n", "LICENSE": "Apache License\n Version 2.0\n"}, "mit"),
        ({"README.md": "---\nlicense: other\nlicense_name: llama3\n---\n"}, "llama3"),
        ({"README.md": "---\nlicense: other\n---\n"}, "other"),
        ({"LICENSE": "\n\n                 Apache License\n           Version 2.0, January 2004\n"}, "apache-2.0"),
        ({"LICENSE.txt": "MIT License\n\nCopyright"}, "mit"),
        ({"LICENSE.md": "# Some Community License\n\nMIT License is not what this is"}, "Some Community License"),
        ({"README.md": "# No front matter\nlicense: mit\n"}, None),
        ({"README.md": "---\nlicense: [mit\n---\n"}, None),
        ({"README.md": "---\n- license\n---\n"}, None),
        ({"README.md": "---\nlicense: 3\n---\n", "LICENSE": ""}, None),
        ({}, None),
    ],
)
def test_license_is_what_the_files_state_and_else_unknown(
    tmp_path: Path, files: dict[str, str], expected: str | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode())
    assert license_of(tmp_path) == expected


@pytest.mark.parametrize("directory", [None, "", "/nowhere/at/all"])
def test_license_of_a_model_without_files_is_unknown(directory: str | None) -> None:
    assert license_of(directory) is None


def test_lineage_of_another_kind_of_file_is_refused_by_name(tmp_path: Path) -> None:
    table = pa.table({"a": [1]})
    pq.write_table(table, tmp_path / "plain.parquet")
    pq.write_table(table.replace_schema_metadata({LINEAGE_KEY: b'{"version": 1}'}), tmp_path / "odd.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet")

    with pytest.raises(CorruptFile, match=r"plain\.parquet: has no lineage in its footer"):
        read_lineage(tmp_path / "plain.parquet")
    with pytest.raises(CorruptFile, match=r"odd\.parquet: not a lineage: \('spec',\)"):
        read_lineage(tmp_path / "odd.parquet")
    with pytest.raises(CorruptFile, match=r"text\.parquet: not a readable Parquet file"):
        read_lineage(tmp_path / "text.parquet")
    with pytest.raises(CorruptFile, match=r"missing\.parquet: not a readable"):
        read_lineage(tmp_path / "missing.parquet")


def test_lineage_that_is_no_json_is_refused_by_name() -> None:
    with pytest.raises(CorruptFile, match=r"here\.json: not a lineage"):
        lineage_from_json("{", path="here.json")
