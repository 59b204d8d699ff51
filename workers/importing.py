"""Makes samples of completions that exist already: parts of `SampleRow`, as if they had been drawn here.

Owns the way from a user's files to those parts. Two passes: the first decides which sample every row becomes and
refuses what is wrong (`service.importing.numbering`), the second counts tokens and writes. Invariant: the parts of an
attempt appear together or not at all, for they are written beside its directory and put in its place at once. The
same files give the same sample ids anywhere. Must not import ray, vllm or torch.
"""

import dataclasses
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.devices import ONE_CORE
from service.errors import CorruptFile
from service.importing.matching import Matcher
from service.importing.numbering import LEFT_OUT, REASONS, Numbered, number
from service.importing.reading import column_types
from service.importing.rows import Samples, read_samples
from service.importing.spec import Sampling, Tokens
from service.receipts import Receipt, Usage
from service.records import SAMPLE_SCHEMA
from service.sampling import SamplingSpec
from service.shards import (
    UNFINISHED,
    file_sha256,
    find_receipts,
    make_directory,
    part_path,
    sync,
    write_part,
)
from service.spec_ids import spec_id
from service.work import AttemptSpec, ImportWork
from workers.prompts import render
from workers.samples import sample_ids, usage_of
from workers.token_counts import TokenCounter, counter_of

ENGINE_VERSION = "imported"
UNKNOWN = "unknown"
UNKNOWN_SEED = -1
FROM_COLUMN = "from a column"
PART_ROWS = 20_000
"""As many as a generator's parts have: they are scored side by side."""
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def import_samples(spec: AttemptSpec, work: ImportWork) -> tuple[Receipt, ...]:
    """Writes the parts of an attempt, and returns their receipts.

    The first receipt's facts are `rows`, `unmatched`, `empty`, `repeats`, and seconds: `read_s`, `tokens_s`, `write_s`.

    Raises:
        CorruptFile: a file is not the one that was looked at when the import was submitted.
        InvalidInput: the rows cannot become samples; counts and places are in the message. Nothing is written.
    """
    started = time.perf_counter()
    stamps = [_stamp(path) for path in work.paths]  # before the hashes: a file that is replaced after shows
    for path, file in zip(work.paths, work.spec.files, strict=True):
        _check_unchanged(path, file.sha256)
    matcher = Matcher.of(work.problems_path, work.num_problems, work.spec.match_by)
    numbered = number(_read(work), work.spec, matcher)
    read_s = time.perf_counter() - started
    directory = Path(f"{spec.out_dir}{UNFINISHED}")
    task_id, _, attempt = spec.attempt_id.rpartition(".")
    for earlier in range(1, int(attempt) + 1):
        # of processes that are gone, or that nobody waits for any more; what comes later is not touched
        shutil.rmtree(directory.with_name(f"{task_id}.{earlier}{UNFINISHED}"), ignore_errors=True)
    writer = _Writer(spec=spec, work=work, numbered=numbered, directory=directory)
    receipts = writer.write()
    if [_stamp(path) for path in work.paths] != stamps:
        raise CorruptFile(f"{', '.join(work.paths)}: changed while it was read; import it again")
    seconds = {"read_s": read_s, "tokens_s": writer.tokens_s, "write_s": writer.write_s}
    facts = _counts(numbered) | seconds
    return _publish(directory, spec.out_dir, receipts, facts)


def _publish(
    directory: Path, out_dir: str | Path, receipts: list[Receipt], facts: dict[str, float]
) -> tuple[Receipt, ...]:
    """Puts the finished directory in its place; what is there already was put by an earlier call."""
    try:
        directory.rename(out_dir)
    except OSError:
        if not part_path(out_dir, 0).exists():
            raise
        shutil.rmtree(directory)
        return find_receipts(out_dir)
    sync(Path(out_dir).parent)
    moved = [dataclasses.replace(each, path=str(part_path(out_dir, each.part))) for each in receipts]
    return (dataclasses.replace(moved[0], facts=facts), *moved[1:])


def _counts(numbered: Numbered) -> dict[str, float]:
    return {
        "rows": float(len(numbered.problem) - numbered.num_unmatched),
        "unmatched": float(numbered.num_unmatched),
        "empty": float(numbered.num_empty),
        "repeats": float(numbered.num_repeats),
    }


def _read(work: ImportWork) -> Iterator[Samples]:
    columns = {column.ours: column.theirs for column in work.spec.columns}
    types = column_types(work.spec)
    for path in work.paths:
        yield from read_samples(Path(path), columns, types)


def _check_unchanged(path: str, sha256: str) -> None:
    try:
        got = file_sha256(path)
    except OSError as error:
        raise CorruptFile(f"{path}: cannot be read any more: {error}") from error
    if got != sha256:
        raise CorruptFile(
            f"{path}: changed since the import was submitted: sha256 is {got[:16]}…, allowed: {sha256[:16]}…; import "
            "it again"
        )


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise CorruptFile(f"{path}: cannot be read any more: {error}") from error
    return found.st_size, found.st_mtime_ns


@dataclass(slots=True, kw_only=True)
class _Writer:
    """The second pass."""

    spec: AttemptSpec
    work: ImportWork
    numbered: Numbered
    directory: Path
    tokens_s: float = 0.0
    write_s: float = 0.0
    receipts: list[Receipt] = field(default_factory=list[Receipt])

    def write(self) -> list[Receipt]:
        make_directory(self.directory)
        model = self.work.model if self.work.spec.is_known_model else None
        counter = counter_of(model, self.work.prompt)
        problems = _Problems.of(self.work, counter, with_prompts=self.work.spec.column("prompt") is None)
        first, waiting, num_waiting = 0, list[pa.Table](), 0
        began = time.perf_counter()
        for samples in _read(self.work):
            table = self._table(samples, first, problems, counter)
            first += len(samples)
            waiting.append(table)
            num_waiting += table.num_rows
            if num_waiting >= PART_ROWS:
                self._write_part(pa.concat_tables(waiting), time.perf_counter() - began)
                waiting, num_waiting, began = [], 0, time.perf_counter()
        if num_waiting:
            self._write_part(pa.concat_tables(waiting), time.perf_counter() - began)
        return self.receipts

    def _write_part(self, table: pa.Table, busy_s: float) -> None:
        started = time.perf_counter()
        indices = np.column_stack([table["problem_index"].to_numpy(), table["sample_index"].to_numpy()])
        reason = table["finish_reason"]
        usage = usage_of(
            self.work.model.pricing,
            prompt_tokens=table["prompt_tokens"].to_numpy(),
            cached_tokens=table["cached_tokens"].to_numpy(),
            completion_tokens=table["completion_tokens"].to_numpy(),
            is_truncated=pc.equal(reason, "length").to_numpy(),
            num_errors=int(pc.sum(pc.equal(reason, "error")).as_py()),
            time=Usage.of_time(busy_s, ONE_CORE),
        )
        receipt = write_part(
            out_dir=self.directory,
            part=len(self.receipts),
            table=table,
            usage=usage,
            indices=indices.astype(np.int32),
            facts=None if self.receipts else _counts(self.numbered),
        )
        self.receipts.append(receipt)
        self.write_s += time.perf_counter() - started

    def _table(self, samples: Samples, first: int, problems: "_Problems", counter: TokenCounter) -> pa.Table:
        """The rows that have a problem, as rows of samples."""
        here = slice(first, first + len(samples))
        kept = np.flatnonzero(self.numbered.problem[here] != LEFT_OUT)
        columns = {name: array.take(pa.array(kept)) for name, array in samples.columns.items()}
        problem = self.numbered.problem[here][kept].astype(np.int64)
        sample_index = self.numbered.sample_index[here][kept].astype(np.int64)
        is_empty = self.numbered.is_empty[here][kept]
        started = time.perf_counter()
        reason = _reasons(columns, is_empty)
        completion = pc.fill_null(columns["completion"], "")
        completion_tokens = self._completion_tokens(columns, completion, reason, counter)
        prompt_tokens = counter.prompts(columns["prompt"]) if "prompt" in columns else problems.prompt_tokens[problem]
        self.tokens_s += time.perf_counter() - started
        prompt_tokens = np.where(is_empty, 0, prompt_tokens)
        model, num_rows = self.work.model, len(kept)
        cached = np.zeros(num_rows, dtype=np.int64)
        problem_ids = problems.ids.take(pa.array(problem))
        prompt_id = FROM_COLUMN if "prompt" in columns else spec_id(self.work.prompt)
        sampling_ids = self._sampling_ids(columns, num_rows)
        arrays = {
            "sample_id": self._sample_ids(prompt_id, sampling_ids, problem_ids.to_pylist(), sample_index),
            "job_id": pa.repeat(self.spec.job_id, num_rows),
            "problem_id": problem_ids,
            "problem_index": problem,
            "model": pa.repeat(model.name, num_rows),
            "model_revision": pa.repeat(model.revision, num_rows),
            "prompt_id": pa.repeat(prompt_id, num_rows),
            "sampling_id": sampling_ids,
            "engine_version": pa.repeat(ENGINE_VERSION, num_rows),
            "sample_index": sample_index,
            "seed": np.full(num_rows, UNKNOWN_SEED),
            "attempt": pa.repeat(self.spec.attempt_id, num_rows),
            "prompt": columns.get("prompt", problems.prompts.take(pa.array(problem))),
            "completion": completion,
            "finish_reason": reason,
            "prompt_tokens": prompt_tokens,
            "cached_tokens": cached,
            "completion_tokens": completion_tokens,
            "flops": model.pricing.flops(prompt_tokens, cached, completion_tokens),
            "flops_paper": model.pricing.flops_paper(completion_tokens),
            "error": pc.if_else(pa.array(is_empty), "the file has no completion here", pa.scalar(None, pa.string())),
        }
        ordered = [pa.array(arrays[field.name], type=field.type) for field in SAMPLE_SCHEMA]
        return pa.Table.from_arrays(ordered, schema=SAMPLE_SCHEMA)

    def _completion_tokens(
        self, columns: dict[str, pa.Array], completion: pa.Array, reason: pa.Array, counter: TokenCounter
    ) -> Ints:
        """Tokens that were sampled: one that ended the sequence counts where it did end, as for a drawn sample."""
        is_error = pc.equal(reason, "error").to_numpy(zero_copy_only=False)
        if self.work.spec.tokens is Tokens.column:
            counts = pc.fill_null(columns["num_tokens"], 0).to_numpy().astype(np.int64)
        else:
            counts = counter.completions(completion)
            counts = counts + pc.equal(reason, "stop").to_numpy(zero_copy_only=False).astype(np.int64)
        return np.where(is_error, 0, counts)

    def _sampling_ids(self, columns: dict[str, pa.Array], num_rows: int) -> pa.Array:
        match self.work.spec.sampling:
            case Sampling.unknown:
                return pa.repeat(UNKNOWN, num_rows)
            case Sampling.stated:
                return pa.repeat(spec_id(self.work.sampling), num_rows)
            case Sampling.column:
                encoded = columns["temperature"].dictionary_encode()
                ids = [spec_id(SamplingSpec(temperature=value)) for value in encoded.dictionary.to_pylist()]
                return pc.fill_null(pa.array(ids, type=pa.string()).take(encoded.indices), UNKNOWN)

    def _sample_ids(
        self, prompt_id: str, sampling_ids: pa.Array, problem_ids: list[str], sample_index: Ints
    ) -> pa.Array:
        """Of the files' content in the place of a job: the same import is the same samples."""
        content = sha256("".join(file.sha256 for file in self.work.spec.files).encode()).hexdigest()
        ids = np.empty(len(sample_index), dtype=object)
        for sampling_id in pc.unique(sampling_ids).to_pylist():
            rows = np.flatnonzero(pc.equal(sampling_ids, sampling_id).to_numpy(zero_copy_only=False))
            ids[rows] = sample_ids(
                job_id=f"import:{content}",
                model=self.work.model.name,
                prompt_id=prompt_id,
                sampling_id=sampling_id,
                samples=(
                    (problem_ids[row], index) for row, index in zip(rows, sample_index[rows].tolist(), strict=True)
                ),
            )
        return pa.array(ids, type=pa.string())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problems:
    """Row i is problem index i.

    Args:
        prompts: rendered as a job of this prompt would have; empty where the files have prompts of their own.
    """

    ids: pa.Array
    prompts: pa.Array
    prompt_tokens: Ints

    @classmethod
    def of(cls, work: ImportWork, counter: TokenCounter, *, with_prompts: bool) -> "_Problems":
        table = pq.read_table(work.problems_path, columns=["problem_id", "question"]).slice(0, work.num_problems)
        ids = table["problem_id"].combine_chunks()
        if not with_prompts:
            empty = pa.array([""] * len(ids), type=pa.string())
            return cls(ids=ids, prompts=empty, prompt_tokens=np.zeros(len(ids), dtype=np.int64))
        prompts = pa.array(
            [
                render(
                    work.prompt,
                    question,
                    problem_id=problem_id,
                    seed=0,
                    apply_chat_template=counter.apply_chat_template,
                )
                for problem_id, question in zip(ids.to_pylist(), table["question"].to_pylist(), strict=True)
            ],
            type=pa.string(),
        )
        return cls(ids=ids, prompts=prompts, prompt_tokens=counter.prompts(prompts))


def _reasons(columns: dict[str, pa.Array], is_empty: Bools) -> pa.Array:
    """Why each completion ended; one of a file that does not say ended by itself."""
    if "finish_reason" in columns:
        known = pc.index_in(columns["finish_reason"], value_set=pa.array(list(REASONS)))
        reason = pa.array(list(REASONS.values())).take(known)
    else:
        reason = pa.repeat("stop", len(is_empty))
    return pc.if_else(pa.array(is_empty), "error", reason)
