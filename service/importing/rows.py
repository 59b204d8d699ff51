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

_ROWS = 8192
"""Samples of one batch that is made of lists."""


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
        samples = Samples(path=path, columns=arrays, row=row)
        if pa.types.is_list(types["completion"]):
            yield from _flat(samples)
        else:
            yield samples
        first += batch.num_rows


def _flat(samples: Samples) -> Iterator[Samples]:
    """A sample for each item of the lists, a bounded number at a time."""
    completions = samples.columns["completion"]
    lengths = pc.fill_null(pc.list_value_length(completions), 0)
    _refuse(samples, "completion", lengths.to_numpy() < 1, "no completion", "a list of at least one text")
    lists = {name: array for name, array in samples.columns.items() if pa.types.is_list(array.type)}
    for name, array in lists.items():
        is_same = pc.fill_null(pc.equal(pc.list_value_length(array), lengths), False)
        is_other = ~is_same.to_numpy(zero_copy_only=False)
        _refuse(samples, name, is_other, "a list of another length than completion", "one value a completion")
    parents = pc.list_parent_indices(completions)
    flat = {name: pc.list_flatten(array) for name, array in lists.items()}
    for start in range(0, len(parents), _ROWS):
        mine = parents.slice(start, _ROWS)
        found = {
            name: flat[name].slice(start, _ROWS) if name in flat else array.take(mine)
            for name, array in samples.columns.items()
        }
        yield Samples(path=samples.path, columns=found, row=samples.row[mine.to_numpy()])


def _refuse(samples: Samples, name: str, is_bad: npt.NDArray[np.bool_], got: str, allowed: str) -> None:
    """Raises for the first row that is bad, if there is one."""
    if len(bad := np.flatnonzero(is_bad)):
        raise InvalidInput(f"{samples.place(int(bad[0]))}: {name}: got {got}, allowed: {allowed}")
