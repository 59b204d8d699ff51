"""Checkpoints of a training run: directories that count once their `checkpoint.json` is there.

Owns that file and when a checkpoint exists. Invariants: every file of a checkpoint is on the disk before
`checkpoint.json` is, which is written under another name and renamed; it names every file with size and hash, and
carries the receipt, so that a checkpoint whose receipt was never heard can still be adopted. What only a resumed run
needs lies in `state/` and may be removed later. Must not import torch: the controller reads checkpoints.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service.errors import CorruptFile
from service.receipts import Receipt, Usage
from service.records import SCHEMA_VERSION
from service.shards import file_sha256, sync

CHECKPOINT_FILE = "checkpoint.json"
STATE_DIRECTORY = "state"


def checkpoint_steps(steps: int, num_checkpoints: int) -> tuple[int, ...]:
    """Steps after which a checkpoint is written: equally spaced, the last at the end, each once.

    Raises:
        ValueError: if a number is under 1.
    """
    if steps < 1 or num_checkpoints < 1:
        raise ValueError(f"steps and num_checkpoints must be >= 1, got {steps} and {num_checkpoints}")
    spaced = {round(steps * number / num_checkpoints) for number in range(1, num_checkpoints + 1)}
    return tuple(sorted(spaced - {0}))


def checkpoint_path(out_dir: str | Path, step: int) -> Path:
    """The directory of the checkpoint after `step` steps."""
    return Path(out_dir) / f"checkpoint-{step}"


def checkpoint_step(directory: str | Path) -> int:
    """Steps after which the checkpoint in `directory` was made, by its name; what it holds may be damaged."""
    return int(Path(directory).name.rpartition("-")[2])


def write_checkpoint(directory: Path, receipt: Receipt, details: Mapping[str, Any]) -> Receipt:
    """Makes a complete directory count, and returns its receipt with path and hash.

    Args:
        directory: holds every file of the checkpoint, under its final name.
        receipt: part, rows, usage and facts; path and hash are filled in.
        details: what else `checkpoint.json` says, JSON values by name.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    for path in files:
        sync(path)
    for path in [*(path for path in directory.rglob("*") if path.is_dir()), directory]:
        sync(path)
    document = {
        "schema_version": SCHEMA_VERSION,
        "part": receipt.part,
        "rows": receipt.rows,
        "usage": dataclasses.asdict(receipt.usage),
        "facts": receipt.facts,
        **details,
        "files": {
            path.relative_to(directory).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
            for path in files
        },
    }
    final = directory / CHECKPOINT_FILE
    temporary = directory / f".{CHECKPOINT_FILE}.tmp"
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    sync(temporary)
    os.replace(temporary, final)
    sync(directory)
    sync(directory.parent)
    return dataclasses.replace(receipt, path=str(final), sha256=file_sha256(final))


def read_document(directory: str | Path) -> dict[str, Any]:
    """Everything that a checkpoint's `checkpoint.json` says.

    Raises:
        CorruptFile: there is none, or not one of this schema version.
    """
    path = Path(directory) / CHECKPOINT_FILE
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CorruptFile(f"{path}: cannot be read, so this is no checkpoint: {error}") from error
    if document.get("schema_version") != SCHEMA_VERSION:
        got = document.get("schema_version")
        raise CorruptFile(f"{path}: schema version {got}, this release reads {SCHEMA_VERSION}")
    return document


def read_checkpoint(directory: str | Path) -> Receipt:
    """The receipt of a checkpoint whose files are all there, by name and size.

    Raises:
        CorruptFile: no `checkpoint.json`, or a file of the model is missing or cut off.
    """
    document = read_document(directory)
    check_files(directory, document, with_state=False, with_hashes=False)
    path = Path(directory) / CHECKPOINT_FILE
    return Receipt(
        part=document["part"],
        path=str(path),
        sha256=file_sha256(path),
        rows=document["rows"],
        usage=Usage(**document["usage"]),
        facts=document["facts"],
    )


def check_files(directory: str | Path, document: Mapping[str, Any], *, with_state: bool, with_hashes: bool) -> None:
    """Checks the files that `document` names.

    Args:
        with_state: also those that only a resumed run needs.
        with_hashes: contents too, not sizes alone.

    Raises:
        CorruptFile: a file is missing or is not what was written.
    """
    for name, wanted in document["files"].items():
        path = Path(directory) / name
        if name.startswith(f"{STATE_DIRECTORY}/") and not with_state:
            continue
        if not path.is_file():
            raise CorruptFile(f"{path}: missing")
        if (size := path.stat().st_size) != wanted["bytes"]:
            raise CorruptFile(f"{path}: {size} bytes, {CHECKPOINT_FILE} says {wanted['bytes']}")
        if with_hashes and (got := file_sha256(path)) != wanted["sha256"]:
            raise CorruptFile(f"{path}: sha256 is {got[:16]}…, {CHECKPOINT_FILE} says {wanted['sha256'][:16]}…")


def find_checkpoints(out_dir: str | Path, first_part: int = 0) -> tuple[Receipt, ...]:
    """Receipts of the checkpoints an attempt left behind, from `first_part` up to the first gap or unreadable one."""
    found: dict[int, Receipt] = {}
    for directory in Path(out_dir).glob("checkpoint-*"):
        try:
            receipt = read_checkpoint(directory)
        except CorruptFile:
            continue  # it was never complete, or is not any more: its steps are trained again
        found[receipt.part] = receipt
    receipts: list[Receipt] = []
    while (part := first_part + len(receipts)) in found:
        receipts.append(found[part])
    return tuple(receipts)
