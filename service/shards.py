"""Durable Parquet files: written once, never replaced, checked by hash.

A part exists when its final name exists: it is written to a temporary name, fsynced, *linked* (which fails if the name
is taken), and the directory is fsynced. The footer carries the receipt, so that a part whose receipt was never heard
can still be adopted. Workers write only under their attempt's directory; readers follow the manifest and never glob.
"""

import base64
import dataclasses
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import CorruptFile
from service.receipts import Receipt, ScoreDelta, Usage
from service.records import SCHEMA_VERSION
from service.work import Indices

_FOOTER_KEY = b"isoflop.receipt"
_CHUNK_BYTES = 1 << 20
_LEVELS_OF_A_JOB = 4
"""Directories above an attempt's that may be as new as it: attempts, the job's, all jobs', the data directory."""


def part_path(out_dir: str | Path, part: int) -> Path:
    """Where an attempt puts its `part`-th file."""
    return Path(out_dir) / f"part-{part:05d}.parquet"


def write_part(
    *,
    out_dir: str | Path,
    part: int,
    table: pa.Table,
    usage: Usage,
    indices: Indices | None = None,
    delta: ScoreDelta | None = None,
    facts: Mapping[str, float] | None = None,
) -> Receipt:
    """Writes one part durably and returns its receipt.

    If a readable file of that name exists already (an earlier call whose answer was lost), its receipt is returned
    and nothing is written: a name means one content for ever.

    Raises:
        CorruptFile: the name is taken by a file that cannot be read.
    """
    path = part_path(out_dir, part)
    make_directory(path.parent)
    if path.exists():
        return read_receipt(path)
    body = Receipt(
        part=part,
        path=str(path),
        sha256="",
        rows=table.num_rows,
        usage=usage,
        indices=indices,
        delta=delta,
        facts=dict(facts or {}),
    )
    metadata: dict[bytes, bytes] = {**(table.schema.metadata or {}), _FOOTER_KEY: _encode(body)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")
    sync(temporary)
    sha256 = file_sha256(temporary)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return read_receipt(path)
    finally:
        temporary.unlink()
    sync(path.parent)
    return dataclasses.replace(body, sha256=sha256)


def read_receipt(path: Path) -> Receipt:
    """The receipt in a part's footer, its hash computed from the file as it is now.

    Raises:
        CorruptFile: not Parquet, or no receipt of this schema version in it.
    """
    try:
        metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid) as error:
        raise CorruptFile(f"{path}: not a readable Parquet file: {error}") from error
    if _FOOTER_KEY not in metadata:
        raise CorruptFile(f"{path}: has no receipt in its footer; it was not written by isoflop")
    return dataclasses.replace(_decode(path, metadata[_FOOTER_KEY]), path=str(path), sha256=file_sha256(path))


def find_receipts(out_dir: str | Path, *, first_part: int = 0) -> tuple[Receipt, ...]:
    """Receipts of the parts a dead attempt left behind, from `first_part` up to the first gap or unreadable file."""
    found: list[Receipt] = []
    part = first_part
    while part_path(out_dir, part).exists():
        try:
            found.append(read_receipt(part_path(out_dir, part)))
        except CorruptFile:
            break  # a part that cannot be read was never durable; its samples are drawn again
        part += 1
    return tuple(found)


def file_sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_file(path: str | Path, sha256: str) -> None:
    """Raises CorruptFile unless the file exists and hashes to `sha256`."""
    if not Path(path).exists():
        raise CorruptFile(f"{path}: missing")
    if (got := file_sha256(path)) != sha256:
        raise CorruptFile(f"{path}: sha256 is {got[:16]}…, the manifest says {sha256[:16]}…")


def pack_array(array: np.ndarray | None) -> bytes | None:
    """An int32 array [n, k] as zlib bytes, for database columns; None stays None."""
    return None if array is None else zlib.compress(np.ascontiguousarray(array, dtype="<i4").tobytes(), 1)


def unpack_array(packed: bytes | None, *, columns: int) -> Indices | None:
    """The inverse of `pack_array`, shape [n, columns]."""
    if packed is None:
        return None
    return np.frombuffer(zlib.decompress(packed), dtype="<i4").reshape(-1, columns)


UNFINISHED = ".unfinished"
"""End of the names of directories whose files are put in their place when all are there."""


def remove_unfinished(attempts: Path) -> None:
    """Removes what attempts left behind, none of which runs any more: directories that were never put in their place.

    Args:
        attempts: directory of a job's attempts; there may be none.
    """
    for left in attempts.glob(f"*{UNFINISHED}"):
        shutil.rmtree(left, ignore_errors=True)


def make_directory(path: Path) -> None:
    """Creates a directory and what is missing above it; all their names are on the disk when this returns.

    The levels above are synced even if they are there: another process may have made them a moment ago and not come
    to it yet, and a file is no safer than the newest directory on its path.
    """
    if path.is_dir():
        return
    path.mkdir(parents=True, exist_ok=True)
    for above in list(path.parents)[:_LEVELS_OF_A_JOB]:
        sync(above)


def sync(path: Path) -> None:
    """Brings a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode(receipt: Receipt) -> bytes:
    delta = receipt.delta
    arrays = {} if delta is None else {name: getattr(delta, name) for name in ScoreDelta.__slots__}
    if receipt.indices is not None:
        arrays["indices"] = receipt.indices
    document = {
        "schema_version": SCHEMA_VERSION,
        "part": receipt.part,
        "rows": receipt.rows,
        "usage": dataclasses.asdict(receipt.usage),
        "facts": receipt.facts,
        "arrays": {name: _pack(np.asarray(array)) for name, array in arrays.items()},
    }
    return json.dumps(document).encode()


def _decode(path: Path, encoded: bytes) -> Receipt:
    document = json.loads(encoded)
    if document["schema_version"] != SCHEMA_VERSION:
        raise CorruptFile(f"{path}: schema version {document['schema_version']}, this release reads {SCHEMA_VERSION}")
    arrays = {name: _unpack(packed) for name, packed in document["arrays"].items()}
    indices = arrays.pop("indices", None)
    return Receipt(
        part=document["part"],
        path=str(path),
        sha256="",
        rows=document["rows"],
        usage=Usage(**document["usage"]),
        indices=indices,
        delta=ScoreDelta(**arrays) if arrays else None,
        facts=document["facts"],
    )


def _pack(array: np.ndarray) -> list[object]:
    data = base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 1)).decode()
    return [array.dtype.str, list(array.shape), data]


def _unpack(packed: list[object]) -> np.ndarray:
    dtype, shape, data = packed
    return np.frombuffer(zlib.decompress(base64.b64decode(str(data))), dtype=str(dtype)).reshape(shape)  # type: ignore[arg-type]
