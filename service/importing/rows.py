"""Batches of a file as samples, under our names: a list of completions becomes as many rows.

Invariant: nothing is dropped here; each sample knows the row of its file that it came from.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from service.errors import InvalidInput
from service.importing.reading import place_of, read_batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Consecutive samples of one file.

    Args:
        columns: arrays of one length, by names of `COLUMNS`.
        row: the file's row of each, from 0.
    """

    path: Path
    columns: Mapping[str, pa.Array]
    row: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    def place(self, index: int) -> str:
        """Where a sample stands, for people."""
        return f"{self.path.name}, {place_of(self.path, int(self.row[index]))}"


def read_samples(path: Path, columns: Mapping[str, str], types: Mapping[str, pa.DataType]) -> Iterator[Samples]:
    """All samples of a file, in order.

    Args:
        columns: the file's column of each of ours.
        types: what each of ours is read as; a list of completions is one.

    Raises:
        InvalidInput: see `read_batches`; or lists of one row that differ in length.
    """
    first = 0
    for batch in read_batches(path, {theirs: types[ours] for ours, theirs in columns.items()}):
        arrays = {ours: batch[theirs] for ours, theirs in columns.items()}
        row = np.arange(first, first + batch.num_rows, dtype=np.int64)
        yield (
            _flat(path, arrays, row)
            if pa.types.is_list(types["completion"])
            else Samples(path=path, columns=arrays, row=row)
        )
        first += batch.num_rows


def _flat(path: Path, arrays: dict[str, pa.Array], row: npt.NDArray[np.int64]) -> Samples:
    completions = arrays["completion"]
    lengths = pc.fill_null(pc.list_value_length(completions), -1)
    if len(missing := np.flatnonzero(lengths.to_numpy() < 1)):
        at = place_of(path, int(row[missing[0]]))
        raise InvalidInput(f"{path}: {at}: completion: got no completion, allowed: a list of at least one text")
    parents = pc.list_parent_indices(completions)
    found: dict[str, pa.Array] = {}
    for name, array in arrays.items():
        if not pa.types.is_list(array.type):
            found[name] = array.take(parents)
            continue
        if len(
            differing := np.flatnonzero(
                ~pc.equal(pc.list_value_length(array), lengths).fill_null(False).to_numpy(zero_copy_only=False)
            )
        ):
            at = place_of(path, int(row[differing[0]]))
            raise InvalidInput(
                f"{path}: {at}: {name}: got a list of another length than completion, allowed: one value a completion"
            )
        found[name] = pc.list_flatten(array)
    return Samples(path=path, columns=found, row=row[parents.to_numpy()])
