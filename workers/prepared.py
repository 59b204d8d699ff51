"""Prepared prompts as a generator reads them: columns, not rows.

Owns the layout of a `PreparedRow` file in memory and the metadata key that carries its prompt id. Row i is problem
index i, which is checked once on opening. Must not import ray, vllm or transformers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from service.errors import CorruptFile
from service.receipts import Receipt, Usage
from service.records import PREPARED_SCHEMA
from service.shards import write_part

PROMPT_ID_KEY = b"isoflop.prompt_id"
NO_TIME = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The prompts of one problem set for one model; every column has one entry a problem.

    Args:
        token_values: int32, the token ids of all prompts, one after the other.
        token_starts: where each prompt begins in them, and last their number.
        prompt_tokens: int64 [tokens].
        max_tokens: int64, most tokens of one completion [tokens].
        errors: by problem index, only of problems that cannot be sampled.
    """

    prompt_id: str
    problem_ids: tuple[str, ...]
    prompts: pa.StringArray
    token_values: npt.NDArray[np.int32]
    token_starts: npt.NDArray[np.int64]
    prompt_tokens: npt.NDArray[np.int64]
    max_tokens: npt.NDArray[np.int64]
    errors: dict[int, str]

    def tokens(self, problem: int) -> list[int]:
        """Token ids of one prompt."""
        return self.token_values[self.token_starts[problem] : self.token_starts[problem + 1]].tolist()


def read_prepared(path: str | Path) -> Prepared:
    """Opens the prompts that `prepare` wrote.

    Raises:
        CorruptFile: missing, not Parquet, another schema, or row i is not problem i.
    """
    try:
        table = pq.read_table(path, memory_map=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise CorruptFile(f"{path}: cannot read the prepared prompts: {error}") from error
    metadata = table.schema.metadata or {}
    if not table.schema.equals(PREPARED_SCHEMA) or PROMPT_ID_KEY not in metadata:
        raise CorruptFile(f"{path}: not a file of prepared prompts, its columns are {table.column_names}")
    table = table.combine_chunks()
    if not np.array_equal(table["problem_index"].to_numpy(), np.arange(table.num_rows)):
        raise CorruptFile(f"{path}: row i must hold problem index i")
    return Prepared(
        prompt_id=metadata[PROMPT_ID_KEY].decode(),
        problem_ids=tuple(table["problem_id"].to_pylist()),
        prompts=pa.array(table["prompt"].to_pylist(), type=pa.string()),
        token_values=np.array(table["token_ids"].combine_chunks().flatten(), dtype=np.int32),
        token_starts=np.concatenate([[0], np.cumsum(table["prompt_tokens"].to_numpy())]),
        prompt_tokens=table["prompt_tokens"].to_numpy(),
        max_tokens=table["max_tokens"].to_numpy(),
        errors={index: text for index, text in enumerate(table["error"].to_pylist()) if text is not None},
    )


def write_prepared(
    *,
    out_dir: str | Path,
    prompt_id: str,
    problem_ids: Sequence[str],
    prompts: Sequence[str],
    token_ids: Sequence[Sequence[int]],
    max_tokens: Sequence[int],
    errors: Sequence[str | None],
    facts: Mapping[str, float],
    time: Usage = NO_TIME,
) -> Receipt:
    """Writes the prompts of a problem set as one part; every column has one entry a problem.

    The receipt's `indices` name the problems with an error, as (problem, 0). `time` is what making them took.
    """
    columns: dict[str, object] = {
        "problem_index": np.arange(len(problem_ids)),
        "problem_id": problem_ids,
        "prompt": prompts,
        "token_ids": token_ids,
        "prompt_tokens": list(map(len, token_ids)),
        "max_tokens": max_tokens,
        "error": errors,
    }
    arrays = [pa.array(columns[field.name], type=field.type) for field in PREPARED_SCHEMA]
    schema = PREPARED_SCHEMA.with_metadata({PROMPT_ID_KEY: prompt_id.encode()})
    table = pa.Table.from_arrays(arrays, schema=schema)
    refused = np.array([(problem, 0) for problem, error in enumerate(errors) if error is not None], dtype=np.int32)
    return write_part(
        out_dir=out_dir,
        part=0,
        table=table,
        usage=time + Usage(errors=len(refused), prompt_tokens=sum(map(len, token_ids))),
        indices=refused.reshape(-1, 2),
        facts=facts,
    )
