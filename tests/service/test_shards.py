"""What a receipt promises: the file and every directory on the way to it are on the disk."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from service.receipts import Usage
from service.shards import write_part


def test_write_part_syncs_every_directory_that_is_new_with_the_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def fsync(descriptor: int, really=os.fsync) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    out_dir = tmp_path / "jobs" / "job-1" / "attempts" / "task.1"

    receipt = write_part(out_dir=out_dir, part=0, table=pa.table({"n": [1]}), usage=Usage())

    assert Path(receipt.path).parent == out_dir
    assert {out_dir, *list(out_dir.parents)[:4]} <= set(synced)
