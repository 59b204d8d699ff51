"""Which problem a row belongs to: by the problem's id, or by its question.

Questions are compared as they are but for white space, ids as text. Invariant: a row belongs to one problem or to none;
nothing is matched by likeness.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.importing.spec import MatchBy

_COLUMN = {MatchBy.id: "problem_id", MatchBy.question: "question"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Matcher:
    """Finds problems.

    Args:
        keys: what each problem is found by; row i is problem index i.
    """

    by: MatchBy
    keys: pa.Array

    @classmethod
    def of(cls, problems_path: str, num_problems: int, by: MatchBy) -> "Matcher":
        """For the first `num_problems` of a set, a Parquet file of `ProblemRow`."""
        column = pq.read_table(problems_path, columns=[_COLUMN[by]])[_COLUMN[by]].slice(0, num_problems)
        return cls(by=by, keys=_as_keys(by, column.combine_chunks()))

    @property
    def num_shared(self) -> int:
        """Problems whose key another one has too; their rows go to the first of them."""
        return len(self.keys) - len(pc.unique(self.keys))

    def find(self, values: pa.Array) -> npt.NDArray[np.int32]:
        """The problem index of each value, -1 where there is none."""
        found = pc.index_in(_as_keys(self.by, values), value_set=self.keys)
        return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)

    def examples(self, number: int = 3) -> Sequence[str]:
        """What keys look like."""
        return [repr(str(key)[:60]) for key in self.keys.slice(0, number).to_pylist()]


def _as_keys(by: MatchBy, values: pa.Array) -> pa.Array:
    text = values.cast(pa.string())
    if by is MatchBy.id:
        return text
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(text, pattern=r"\s+", replacement=" "))
