"""Checkpoints exist once `checkpoint.json` does, and only as long as their files are whole."""

from pathlib import Path

import pytest

from service.checkpoints import (
    CHECKPOINT_FILE,
    check_files,
    checkpoint_path,
    checkpoint_steps,
    find_checkpoints,
    read_checkpoint,
    read_document,
    write_checkpoint,
)
from service.errors import CorruptFile
from service.receipts import Receipt, Usage
from service.shards import file_sha256


def written(out_dir: Path, *, part: int, step: int) -> Receipt:
    directory = checkpoint_path(out_dir, step)
    (directory / "state").mkdir(parents=True)
    (directory / "model.safetensors").write_bytes(b"weights" * step)
    (directory / "state" / "optimizer.pt").write_bytes(b"moments")
    body = Receipt(
        part=part,
        path="",
        sha256="",
        rows=32,
        usage=Usage(prompt_tokens=10, completion_tokens=20, flops=3e9, busy_s=1.5),
        facts={"step": float(step), "loss": 0.5},
    )
    return write_checkpoint(directory, body, {"base": "m"})


@pytest.mark.parametrize(
    ("steps", "num_checkpoints", "expected"),
    [
        (200, 4, (50, 100, 150, 200)),
        (600, 10, tuple(range(60, 601, 60))),
        (7, 3, (2, 5, 7)),
        (3, 3, (1, 2, 3)),
        (5, 1, (5,)),
    ],
)
def test_checkpoint_steps_are_equally_spaced_and_end_with_the_run(
    steps: int, num_checkpoints: int, expected: tuple[int, ...]
) -> None:
    assert checkpoint_steps(steps, num_checkpoints) == expected


def test_checkpoint_steps_of_more_checkpoints_than_steps_come_once_each() -> None:
    assert checkpoint_steps(3, 10) == (1, 2, 3)


def test_checkpoint_steps_of_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="must be >= 1, got 0 and 4"):
        checkpoint_steps(0, 4)


def test_checkpoint_read_back_is_the_receipt_that_was_written(tmp_path: Path) -> None:
    receipt = written(tmp_path, part=0, step=50)
    assert receipt.path == str(tmp_path / "checkpoint-50" / CHECKPOINT_FILE)
    assert receipt.sha256 == file_sha256(receipt.path)
    assert read_checkpoint(tmp_path / "checkpoint-50") == receipt
    document = read_document(tmp_path / "checkpoint-50")
    assert document["base"] == "m"
    assert sorted(document["files"]) == ["model.safetensors", "state/optimizer.pt"]


def test_found_checkpoints_come_in_order_of_their_parts_from_the_first_asked_for(tmp_path: Path) -> None:
    receipts = [written(tmp_path, part=part, step=step) for part, step in ((2, 150), (0, 50), (1, 100))]
    assert find_checkpoints(tmp_path) == (receipts[1], receipts[2], receipts[0])
    assert find_checkpoints(tmp_path, 2) == (receipts[0],)
    assert find_checkpoints(tmp_path, 3) == ()
    assert find_checkpoints(tmp_path / "nowhere") == ()


def test_found_checkpoints_end_before_one_that_never_counted(tmp_path: Path) -> None:
    first = written(tmp_path, part=0, step=50)
    written(tmp_path, part=1, step=100)
    written(tmp_path, part=2, step=150)
    (tmp_path / "checkpoint-100" / CHECKPOINT_FILE).unlink()
    assert find_checkpoints(tmp_path) == (first,)


@pytest.mark.parametrize("damage", [b"", b"cut off"])
def test_checkpoint_whose_model_was_cut_off_is_not_found(tmp_path: Path, damage: bytes) -> None:
    written(tmp_path, part=0, step=50)
    (tmp_path / "checkpoint-50" / "model.safetensors").write_bytes(damage)
    assert find_checkpoints(tmp_path) == ()
    with pytest.raises(CorruptFile, match=r"model\.safetensors: \d bytes"):
        read_checkpoint(tmp_path / "checkpoint-50")


def test_checkpoint_without_its_state_still_counts_but_cannot_be_resumed(tmp_path: Path) -> None:
    receipt = written(tmp_path, part=0, step=50)
    directory = tmp_path / "checkpoint-50"
    (directory / "state" / "optimizer.pt").unlink()
    assert find_checkpoints(tmp_path) == (receipt,)
    with pytest.raises(CorruptFile, match=r"optimizer\.pt: missing"):
        check_files(directory, read_document(directory), with_state=True, with_hashes=False)


def test_changed_bytes_of_equal_length_are_found_by_their_hash(tmp_path: Path) -> None:
    written(tmp_path, part=0, step=1)
    directory = tmp_path / "checkpoint-1"
    (directory / "model.safetensors").write_bytes(b"Weights")
    check_files(directory, read_document(directory), with_state=True, with_hashes=False)
    with pytest.raises(CorruptFile, match=r"model\.safetensors: sha256 is"):
        check_files(directory, read_document(directory), with_state=True, with_hashes=True)


def test_document_of_another_schema_is_refused(tmp_path: Path) -> None:
    written(tmp_path, part=0, step=1)
    path = tmp_path / "checkpoint-1" / CHECKPOINT_FILE
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(CorruptFile, match="schema version 99, this release reads 1"):
        read_document(tmp_path / "checkpoint-1")
