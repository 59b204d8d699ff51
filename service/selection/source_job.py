"""What one finished job offers a selection: its manifest, then its samples with their judgements, then their texts.

Owns how samples and scores of a job are found and joined. Invariant: every file is held against the manifest's hash
before anything of it counts, and judgements belong to samples by `sample_id`, whatever the order of rows. Texts are
read last and for chosen rows only, because they are nearly all of the bytes. Must not import the store.
"""

import dataclasses
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.errors import CorruptFile, InvalidInput
from service.measures import STEPS_SCORER, Measures
from service.receipts import Usage
from service.scoring import Steps, Verdict
from service.scoring.normalize import exact_key
from service.selection.operators import NO, UNKNOWN, YES, Bools, Ints, Keys
from service.selection.spec import Keep, SelectionSpec
from service.shards import check_file, file_sha256, read_receipt

MANIFEST_VERSIONS = (1, 2)
"""Those that can be read; the first knew no seal and was only ever left behind by jobs that ended."""
_UNDECIDED = (Verdict.TIMEOUT, Steps.UNKNOWN)
_SAMPLE_COLUMNS = ["sample_id", "problem_index", "finish_reason"]
_SCORE_COLUMNS = ["sample_id", "scorer", "predicted_answer", "verdict", "steps", "solution_key", "equations_key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A committed file of samples and the file of their scores, if there is one."""

    path: str
    sha256: str
    rows: int
    model: str
    arm: str
    scores_path: str | None
    scores_sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceJob:
    """What a job's manifest says.

    Args:
        num_problems: of its problem set, the first ones, that the job sampled from.
    """

    job_id: str
    document: dict[str, Any]
    models: tuple[dict[str, Any], ...]
    problems_fingerprint: str
    num_problems: int
    versions: dict[str, str]
    account: dict[str, Any]
    shards: tuple[Shard, ...]
    manifest_sha256: str

    @property
    def scorers(self) -> tuple[str, ...]:
        """Names in the order of the job's document."""
        return tuple(self.document["scorers"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Samples of one shard as columns; `answer` is text or null, the keys are 0 where `is_scored` is False."""

    problem: Ints
    identity: Keys
    has_error: Bools
    is_truncated: Bools
    is_scored: Bools
    correct: npt.NDArray[np.int8]
    steps: npt.NDArray[np.int8]
    answer: pa.Array
    solution_key: Keys
    equations_key: Keys
    usage: Usage


def read_source(manifest_path: str | Path) -> SourceJob:
    """The job that a manifest describes.

    Raises:
        CorruptFile: missing, damaged or of another release; or the job still changes.
    """
    path = Path(manifest_path)
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        version = manifest["manifest_version"]
        if version not in MANIFEST_VERSIONS:
            raise CorruptFile(f"{path}: manifest_version: got {version}, allowed: {MANIFEST_VERSIONS}")
        if version > 1 and not manifest["is_sealed"]:
            raise CorruptFile(f"{path}: the job still changes; allowed: the manifest of a job that has ended")
        return _source(manifest, path)
    except (OSError, json.JSONDecodeError) as error:
        raise CorruptFile(f"{path}: no readable manifest: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptFile(f"{path}: damaged, or not written by isoflop: {type(error).__name__} {error}") from error


def _source(manifest: dict[str, Any], path: Path) -> SourceJob:
    scores = {(entry["source_attempt"], entry["source_part"]): entry for entry in manifest["scores"]}
    shards: list[Shard] = []
    for entry in manifest["shards"]:
        score = scores.get((entry["attempt"], entry["part"]))
        shards.append(
            Shard(
                path=str(path.parent / entry["path"]),
                sha256=entry["sha256"],
                rows=entry["rows"],
                model=entry["model"],
                arm=entry.get("arm", entry["model"]),  # before there were arms each model was one
                scores_path=None if score is None else str(path.parent / score["path"]),
                scores_sha256=None if score is None else score["sha256"],
            )
        )
    return SourceJob(
        job_id=manifest["job_id"],
        document=dict(manifest["job"]),
        models=tuple(manifest["models"]),
        problems_fingerprint=manifest["problems"]["fingerprint"],
        num_problems=manifest["problems"]["num_problems"],
        versions=dict(manifest["versions"]),
        account=dict(manifest["account"]),
        shards=tuple(shards),
        manifest_sha256=file_sha256(path),
    )


def of_arms(source: SourceJob, arms: Sequence[str]) -> SourceJob:
    """The job as if it had drawn with these arms alone; with all, if none is named.

    Raises:
        InvalidInput: an arm that has drawn nothing.
    """
    if not arms:
        return source
    known = dict.fromkeys(shard.arm for shard in source.shards)
    if unknown := [arm for arm in arms if arm not in known]:
        raise InvalidInput(
            f"arms: got {unknown[0]!r} of {source.job_id}; allowed, for they have samples: {', '.join(known) or 'none'}"
        )
    return dataclasses.replace(source, shards=tuple(shard for shard in source.shards if shard.arm in arms))


def check_scorers(spec: SelectionSpec, source: SourceJob) -> None:
    """Refuses a job that was not judged for what the selection asks.

    Raises:
        InvalidInput: naming the job, its scorers and what is missing.
    """
    measures, has = Measures.of(source.scorers), ", ".join(source.scorers) or "none"
    answer_scorers = [name for name in source.scorers if name != STEPS_SCORER]
    if spec.scorer is not None and spec.scorer not in answer_scorers:
        raise InvalidInput(
            f"scorer: got {spec.scorer!r}; {source.job_id} has scorers: {has}; allowed, for they judge answers: "
            f"{', '.join(answer_scorers) or 'none'}"
        )
    if spec.keep not in (Keep.all, Keep.judged) and not measures.has_answers:
        raise InvalidInput(
            f"keep: got {spec.keep.value!r}, which needs a scorer of answers; {source.job_id} has scorers: {has}"
        )
    if spec.keep is Keep.verified and not measures.has_steps:
        raise InvalidInput(
            f"keep: got 'verified', which needs the scorer {STEPS_SCORER!r}; {source.job_id} has scorers: {has}"
        )


def read_judged(source: SourceJob, *, scorer: str | None, with_answers: bool) -> Iterator[Judged]:
    """The samples of each shard, in the order of the manifest.

    Args:
        scorer: whose verdict counts; None is the first of the job's that gives one other than `error`.
        with_answers: whether answers are read; they are null otherwise.

    Raises:
        CorruptFile: a file is not the one that was committed, or scores do not cover their samples.
    """
    names = source.scorers if scorer is None else (scorer,)
    for shard in source.shards:
        samples = _read(shard.path, shard.sha256, _SAMPLE_COLUMNS)
        reason = samples["finish_reason"]
        problem = samples["problem_index"].to_numpy().astype(np.int64)
        if len(problem) and not 0 <= problem.min() <= problem.max() < source.num_problems:
            raise CorruptFile(
                f"{shard.path}: problems {problem.min()}..{problem.max()}, {source.job_id} has 0.."
                f"{source.num_problems - 1}"
            )
        judged = _judgements(shard, samples["sample_id"], source.scorers, names, with_answers=with_answers)
        yield Judged(
            problem=problem,
            identity=identities(samples["sample_id"]),
            has_error=pc.equal(reason, "error").to_numpy(),
            is_truncated=pc.equal(reason, "length").to_numpy(),
            usage=read_receipt(Path(shard.path)).usage,
            **judged,
        )


def read_texts(shard: Shard, rows: Ints, columns: list[str]) -> pa.Table:
    """The chosen rows of a shard. Texts have 64-bit offsets: a training set may hold more than 2 GiB of them."""
    table = pq.read_table(shard.path, columns=columns).take(pa.array(rows))
    fields = [
        pa.field(field.name, pa.large_string() if field.type == pa.string() else field.type) for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _read(path: str, sha256: str, columns: list[str]) -> pa.Table:
    check_file(path, sha256)
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise CorruptFile(f"{path}: cannot be read: {error}") from error


def _judgements(
    shard: Shard,
    sample_ids: pa.ChunkedArray,
    scorers: tuple[str, ...],
    deciding: tuple[str, ...],
    *,
    with_answers: bool,
) -> dict[str, Any]:
    """The columns of `Judged` that scores tell."""
    num_rows = len(sample_ids)
    is_scored = shard.scores_path is not None and bool(scorers)
    by_scorer: dict[str, pa.Table] = {}
    if is_scored:
        columns = [name for name in _SCORE_COLUMNS if with_answers or name != "predicted_answer"]
        scores = _read(str(shard.scores_path), str(shard.scores_sha256), columns)
        by_scorer = {name: _aligned(scores, name, sample_ids, shard) for name in scorers}
    judges = [by_scorer[name] for name in deciding if name in by_scorer]
    correct, decided = _first_word(
        [rows["verdict"] for rows in judges], num_rows, words=set(Verdict) - {Verdict.ERROR}, yes=Verdict.CORRECT
    )
    steps, _ = _first_word([rows["steps"] for rows in by_scorer.values()], num_rows, words=set(Steps), yes=Steps.VALID)
    answer: pa.Array = pa.nulls(num_rows, pa.string())
    for rows, is_decided in zip(judges, decided, strict=True):
        if with_answers:
            answer = pc.if_else(pa.array(is_decided), rows["predicted_answer"].combine_chunks(), answer)
    columns_of_keys = {key: np.zeros(num_rows, dtype=np.uint64) for key in ("solution_key", "equations_key")}
    for rows in by_scorer.values():  # every scorer's rows repeat the keys of their sample
        columns_of_keys = {key: rows[key].to_numpy() for key in columns_of_keys}
        break
    return {
        "is_scored": np.full(num_rows, is_scored, dtype=bool),
        "correct": correct,
        "steps": steps,
        "answer": answer,
        **columns_of_keys,
    }


def _first_word(
    columns: list[pa.ChunkedArray], num_rows: int, *, words: Collection[str], yes: str
) -> tuple[npt.NDArray[np.int8], list[Bools]]:
    """YES, NO or UNKNOWN a row, as the first column says that has one of `words` there; and the rows each decides."""
    codes = np.full(num_rows, UNKNOWN, dtype=np.int8)
    is_open = np.ones(num_rows, dtype=bool)
    decided: list[Bools] = []
    for column in columns:
        decides = is_open & _is(column, *words)
        codes[decides] = NO
        codes[decides & _is(column, yes)] = YES
        codes[decides & _is(column, *_UNDECIDED)] = UNKNOWN
        is_open &= ~decides
        decided.append(decides)
    return codes, decided


def _aligned(scores: pa.Table, scorer: str, sample_ids: pa.ChunkedArray, shard: Shard) -> pa.Table:
    """What one scorer says of each sample, in the samples' order."""
    rows = scores.filter(pc.equal(scores["scorer"], scorer))
    if rows["sample_id"].equals(sample_ids):
        return rows
    at = pc.index_in(sample_ids, value_set=rows["sample_id"])
    if at.null_count:
        raise CorruptFile(f"{shard.scores_path}: {scorer} lacks {at.null_count} of the samples of {shard.path}")
    return rows.take(at)


def _is(column: pa.ChunkedArray, *values: str) -> Bools:
    mask: Bools = pc.is_in(column, value_set=pa.array([str(value) for value in values])).to_numpy()
    return mask


def identities(sample_ids: pa.ChunkedArray) -> Keys:
    """64 bits of each sample id. Ids are hashes in hex; whatever is not, is hashed."""
    ids = sample_ids.combine_chunks()
    if not pc.all(pc.match_substring_regex(ids, "^[0-9a-f]{32}$")).as_py():
        return np.array([exact_key(text) for text in ids.to_pylist()], dtype=np.uint64)
    fixed = ids.cast(pa.binary()).cast(pa.binary(32))
    text = np.frombuffer(fixed.buffers()[1], dtype=np.uint8).reshape(-1, 32)[
        fixed.offset : fixed.offset + len(ids), :16
    ]
    nibbles = np.where(text >= ord("a"), text - (ord("a") - 10), text - ord("0")).astype(np.uint64)
    return (nibbles << np.arange(60, -4, -4, dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
