"""Manifests that a selection can read, and those it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.errors import CorruptFile
from service.manifest import MANIFEST_VERSION
from service.selection.source_job import MANIFEST_VERSIONS, read_source

MANIFEST: dict[str, Any] = {
    "manifest_version": 2,
    "is_sealed": True,
    "job_id": "job-1",
    "job": {"scorers": ["math_answer"], "problems": "sums"},
    "models": [],
    "problems": {"fingerprint": "sha256:1", "num_problems": 3},
    "versions": {},
    "account": {"currency": "flops", "limit": None, "spent": 0},
    "shards": [
        {"path": "a/p0", "sha256": "x", "rows": 2, "model": "m", "attempt": "t.1", "part": 0},
        {"path": "a/p1", "sha256": "y", "rows": 3, "model": "m", "attempt": "t.1", "part": 1},
    ],
    "scores": [{"path": "s/p0", "sha256": "z", "rows": 3, "source_attempt": "t.1", "source_part": 1}],
}


def written(directory: Path, **changes: Any) -> Path:
    path = directory / "manifest.json"
    path.write_text(json.dumps(MANIFEST | changes))
    return path


def test_source_scores_belong_to_the_shard_they_name(tmp_path: Path) -> None:
    source = read_source(written(tmp_path))

    assert [(shard.path, shard.scores_path) for shard in source.shards] == [
        (str(tmp_path / "a/p0"), None),
        (str(tmp_path / "a/p1"), str(tmp_path / "s/p0")),
    ]
    assert source.scorers == ("math_answer",)


def test_source_manifests_of_this_release_and_of_the_first_can_be_read(tmp_path: Path) -> None:
    assert MANIFEST_VERSION in MANIFEST_VERSIONS
    first = {name: value for name, value in MANIFEST.items() if name != "is_sealed"} | {"manifest_version": 1}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(first))
    assert read_source(path).job_id == "job-1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"is_sealed": False}, "the job still changes; allowed: the manifest of a job that has ended"),
        ({"manifest_version": 9}, r"manifest_version: got 9, allowed: \(1, 2\)"),
        ({"shards": [{}]}, "damaged, or not written by isoflop: KeyError"),
        ({"job": None}, "damaged"),
    ],
)
def test_source_other_manifest_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CorruptFile, match=rf"manifest\.json: {message}"):
        read_source(written(tmp_path, **changes))


def test_source_without_a_readable_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="no readable manifest"):
        read_source(tmp_path / "manifest.json")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(CorruptFile, match="no readable manifest"):
        read_source(tmp_path / "manifest.json")
