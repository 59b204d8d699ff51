"""Makes a model of an adapter: its base with the adapter merged in, in a directory of its own.

Owns these directories: one for each base and adapter, called by their contents, laid out as the checkpoints of a
training run are and counting once their `checkpoint.json` is there. Invariants: what is merged are the files that were
fingerprinted, into a base that is what was registered; whatever counts has the shape of its base, so that an engine of
the base serves it after a swap of weights, and stays. One process merges a directory at a time; one that is killed
leaves nothing that counts, which the next merge removes. Must not import ray or vllm.
"""

import fcntl
import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from service.checkpoints import CHECKPOINT_FILE, read_checkpoint
from service.errors import CorruptFile, InvalidInput
from service.models import ModelSpec
from service.receipts import Receipt, Usage
from service.shards import file_sha256, sync
from workers.adapter_files import adapter_revision, inspect_adapter
from workers.finetune_checkpoints import publish
from workers.model_files import inspect_model, read_object
from workers.model_shape import check_revision, check_same_shape, shape_of

_PEFT_ERRORS = (ValueError, RuntimeError, LookupError, TypeError, AttributeError, re.error)
"""What peft raises where an adapter and a base do not go together, or a field is of another type than it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """An adapter as a model.

    Args:
        directory: holds the model.
        revision: "sha256:<hex>" of its `checkpoint.json`, which has the hashes of all its files.
        adapter_revision: of the adapter alone.
    """

    directory: Path
    revision: str
    adapter_revision: str


def merge_adapter(base: ModelSpec, adapter: Path, merged_dir: Path) -> Merged:
    """The adapter merged into its base; what was merged before is taken as it is, if it is whole.

    Args:
        base: a model whose weights are here.
        adapter: directory of the adapter.
        merged_dir: holds all that is merged.

    Raises:
        InvalidInput: the adapter cannot be merged into that base, or files of either are not what they should be.
    """
    revision = inspect_adapter(adapter)
    _check_not_quantized(base)
    address = hashlib.sha256(f"{base.revision}\n{revision}".encode()).hexdigest()[:32]
    merged_dir.mkdir(parents=True, exist_ok=True)
    directory = merged_dir / address
    with _alone(merged_dir / f".{address}.lock"):
        if _is_whole(directory):
            _check_served(
                base,
                directory,
                f"{directory}: was merged before and is kept; files of it or of {base.name} have changed since, and "
                f"engines of {base.name} cannot take it",
            )
        else:
            _check_unchanged(base)
            _remove_abandoned(merged_dir)
            _merge(base, adapter, directory, revision)
    return Merged(
        directory=directory,
        revision=f"sha256:{file_sha256(directory / CHECKPOINT_FILE)}",
        adapter_revision=revision,
    )


def _merge(base: ModelSpec, adapter: Path, directory: Path, revision: str) -> None:
    temporary = directory.with_name(f".{directory.name}.tmp")
    saved, made = temporary / "saved", temporary / "made"
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    saved.mkdir(parents=True)
    try:
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            shutil.copyfile(adapter / name, saved / name)
        if adapter_revision(saved) != revision:
            raise InvalidInput(f"{adapter}: its files changed while they were read; register it again")
        receipt = Receipt(part=0, path="", sha256="", rows=0, usage=Usage())
        publish(saved, made, base, receipt, {"base_revision": base.revision, "adapter_revision": revision})
        refusal = f"the adapter makes another model than {base.name}, whose engines are to serve it"
        _check_served(base, made, refusal)
        if directory.exists():
            shutil.rmtree(directory)  # not whole
        made.rename(directory)
        sync(directory.parent)
    except InvalidInput as error:
        # people know the directory that they gave, not the copy
        raise InvalidInput(str(error).replace(f"{saved}/adapter", str(adapter))) from error
    except _PEFT_ERRORS as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split()):.500}"
        raise InvalidInput(f"{adapter}: cannot be merged into {base.name}: {said}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_served(base: ModelSpec, directory: Path, refusal: str) -> None:
    """Raises InvalidInput, beginning with `refusal`, unless engines of the base can take the merged weights."""
    try:
        check_same_shape(shape_of(base.path), shape_of(directory))
    except InvalidInput as error:
        raise InvalidInput(f"{refusal}: {str(error).replace(f'{directory}: ', 'merged ')}") from error


def _remove_abandoned(merged_dir: Path) -> None:
    """Removes what merges of other adapters left that were killed: those whose lock nobody has."""
    for temporary in merged_dir.glob(".*.tmp"):
        with temporary.with_suffix(".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(temporary, ignore_errors=True)


def _is_whole(directory: Path) -> bool:
    try:
        read_checkpoint(directory)
    except CorruptFile:
        return False
    return True


def _check_not_quantized(base: ModelSpec) -> None:
    path = Path(base.path) / "config.json"
    if read_object(path).get("quantization_config"):
        raise InvalidInput(
            f"{path}: quantization_config: got quantized weights, allowed: a base of floating-point weights; register "
            "the model that was quantized and merge the adapter into that"
        )


def _check_unchanged(base: ModelSpec) -> None:
    """Raises InvalidInput unless the base's files are those that it was registered with."""
    if (Path(base.path) / CHECKPOINT_FILE).is_file():
        check_revision(base)
    elif (found := inspect_model(base.path).revision) != base.revision:
        raise InvalidInput(
            f"{base.path}: is revision {found[:19]}…, {base.name} was registered as {base.revision[:19]}…; register it "
            "under another name"
        )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits until no other process has the lock; whoever dies lets go of it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
