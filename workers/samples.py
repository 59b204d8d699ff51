"""Finished samples as rows: identities, seeds, FLOPs, and the table of one part.

Owns the stable ids: the same job, problem, model, prompt, sampling and sample index give the same `sample_id` on any
machine, and the same nominal seed. Everything but the hashes is computed by column. Must not import ray or vllm.
"""

import json
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.pricing import Pricing
from service.receipts import Usage
from service.records import SAMPLE_SCHEMA
from service.spec_ids import spec_id
from service.work import AttemptSpec, GenerateWork, Indices
from workers.prepared import Prepared

ENGINE_SEED_KEY = b"isoflop.engine_seed"
NO_TIME = Usage()
IntArray = npt.NDArray[np.int64]


class Drawn(NamedTuple):
    """A finished sample on its way to a row. With an error it has no tokens: the row costs nothing in any currency."""

    problem: int
    sample_index: int
    text: str
    completion_tokens: int
    cached_tokens: int
    finish_reason: str
    error: str | None
    prompt_tokens: int | None = None
    """Where a server counted its prompt by itself; else those that were prepared."""


def prompt_tokens_of(prepared: Prepared, problems: Sequence[int], counted: Sequence[int | None]) -> IntArray:
    """Prompt tokens of samples, shape [n]: as a server counted them, or as they were prepared."""
    tokens = prepared.prompt_tokens[list(problems)].astype(np.int64)
    for index, count in enumerate(counted):
        if count is not None:
            tokens[index] = count
    return tokens


class SampleSeeds:
    """Nominal seeds of one job's samples of one arm: 63 bits, never negative, the same on every machine."""

    def __init__(self, seed: int, arm: str) -> None:
        self._base = blake2b(json.dumps([seed, arm]).encode(), digest_size=8)

    def of(self, problem_id: str, sample_index: int) -> int:
        """The seed of one sample."""
        return int.from_bytes(_digest(self._base, problem_id, sample_index), "big") >> 1


def sample_ids(
    *, job_id: str, model: str, prompt_id: str, sampling_id: str, samples: Iterable[tuple[str, int]]
) -> list[str]:
    """Stable ids of samples given as (problem id, sample index): 32 hex digits each."""
    base = blake2b(json.dumps([job_id, model, prompt_id, sampling_id]).encode(), digest_size=16)
    return [_digest(base, problem_id, sample_index).hex() for problem_id, sample_index in samples]


def _digest(base: blake2b, problem_id: str, sample_index: int) -> bytes:
    digest = base.copy()
    digest.update(f"{problem_id}\0{sample_index}".encode())
    return digest.digest()


def usage_of(
    pricing: Pricing,
    *,
    prompt_tokens: IntArray,
    cached_tokens: IntArray,
    completion_tokens: IntArray,
    is_truncated: npt.NDArray[np.bool_],
    num_errors: int = 0,
    time: Usage = NO_TIME,
) -> Usage:
    """Sums over samples; NaN in what the model cannot be priced in.

    Args:
        num_errors: rows with an error among them; these have no tokens.
        time: that they took, and nothing else.
    """
    flops = pricing.flops(prompt_tokens, cached_tokens, completion_tokens)
    paper = pricing.flops_paper(completion_tokens)
    nano_usd = pricing.nano_usd(prompt_tokens, cached_tokens, completion_tokens)
    return time + Usage(
        samples=len(prompt_tokens),
        errors=num_errors,
        truncated=int(is_truncated.sum()),
        prompt_tokens=int(prompt_tokens.sum()),
        cached_tokens=int(cached_tokens.sum()),
        completion_tokens=int(completion_tokens.sum()),
        flops=float(flops.sum()),
        flops_paper=float(paper.sum()),
        truncated_flops=float(flops[is_truncated].sum()),
        truncated_flops_paper=float(paper[is_truncated].sum()),
        truncated_tokens=int(completion_tokens[is_truncated].sum()),
        nano_usd=float(nano_usd.sum()),
        truncated_nano_usd=float(nano_usd[is_truncated].sum()),
    )


def sample_table(
    *,
    spec: AttemptSpec,
    work: GenerateWork,
    prepared: Prepared,
    rows: Sequence[Drawn],
    engine_version: str,
    engine_seed: int | None,
    time: Usage,
) -> tuple[pa.Table, Usage, Indices]:
    """One part: its rows, their sums, and which samples they are, shape [n, 2]. `time` is what drawing them took."""
    problem, sample_index, text, completion, cached, reason, error, counted = zip(*rows, strict=True)
    problems = np.array(problem, dtype=np.int64)
    reasons = np.array(reason)
    prompt_tokens = np.where(reasons == "error", 0, prompt_tokens_of(prepared, problem, counted))
    cached_tokens = np.array(cached, dtype=np.int64)
    completion_tokens = np.array(completion, dtype=np.int64)
    problem_ids = [prepared.problem_ids[index] for index in problem]
    named = list(zip(problem_ids, sample_index, strict=True))
    seeds = SampleSeeds(work.seed, work.seed_name)
    model, num_rows = work.model, len(rows)
    sampling_id = spec_id(work.sampling)
    columns = {
        "sample_id": sample_ids(
            job_id=spec.job_id,
            model=model.name,
            prompt_id=prepared.prompt_id,
            sampling_id=sampling_id,
            samples=named,
        ),
        "job_id": pa.repeat(spec.job_id, num_rows),
        "problem_id": problem_ids,
        "problem_index": problems,
        "model": pa.repeat(model.name, num_rows),
        "model_revision": pa.repeat(model.revision, num_rows),
        "prompt_id": pa.repeat(prepared.prompt_id, num_rows),
        "sampling_id": pa.repeat(sampling_id, num_rows),
        "engine_version": pa.repeat(engine_version, num_rows),
        "sample_index": sample_index,
        "seed": [seeds.of(*name) for name in named],
        "attempt": pa.repeat(spec.attempt_id, num_rows),
        "prompt": prepared.prompts.take(pa.array(problems)),
        "completion": text,
        "finish_reason": reason,
        "prompt_tokens": prompt_tokens,
        "cached_tokens": cached_tokens,
        "completion_tokens": completion_tokens,
        "flops": model.pricing.flops(prompt_tokens, cached_tokens, completion_tokens),
        "flops_paper": model.pricing.flops_paper(completion_tokens),
        "error": error,
    }
    arrays = [_array(columns[field.name], field.type) for field in SAMPLE_SCHEMA]
    table = pa.Table.from_arrays(arrays, schema=SAMPLE_SCHEMA)
    if engine_seed is not None:
        table = table.replace_schema_metadata({ENGINE_SEED_KEY: str(engine_seed).encode()})
    usage = usage_of(
        model.pricing,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
        is_truncated=reasons == "length",
        num_errors=int((reasons == "error").sum()),
        time=time,
    )
    return table, usage, np.column_stack([problem, sample_index]).astype(np.int32)


def _array(values: object, dtype: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, type=dtype)
