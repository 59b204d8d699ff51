"""`isoflop verify`: re-derives a job from its files alone and says what does not agree.

Needs no service and no database: the manifest, the plan, the shards and the score shards must tell one story. Hashes
prove the files, token counts the FLOPs, the plan the rows, and the sums the ledger.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.currency import Currency, in_currency, to_amount
from service.errors import CorruptFile, InvalidInput
from service.forward_cost import ForwardCost
from service.manifest import MANIFEST_VERSION
from service.pricing import Price, Pricing
from service.receipts import Usage
from service.sampling import FIELDS, OFF
from service.shards import check_file, file_sha256, read_receipt
from service.spec_ids import document_id
from service.tasks import expand_runs
from service.work import Runs

_ROW_COLUMNS = [
    "problem_index",
    "sample_index",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "flops",
    "flops_paper",
    "finish_reason",
    "sample_id",
    "model",
    "prompt_id",
    "sampling_id",
]
_PLAN_OF_VERSION_1 = "plan.parquet"  # never hashed; such jobs ended under an earlier release
_NO_RUNS = np.zeros((0, 3), dtype=np.int32)
Keys = npt.NDArray[np.int64]

_TOLERANCE = 1e-9
"""Relative; sums of floats in another order differ in the last digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was checked and what is wrong. `faults` is empty when everything agrees.

    Args:
        rows: sample rows read.
        withdrawn: planned samples that ended without a row because the job ended first.
        recomputed_flops: FLOPs of all rows from their token counts; NaN where a model's coefficients are unknown.
        spent: the ledger's spent amount.
    """

    job_id: str
    directory: str
    faults: tuple[str, ...]
    rows: int
    error_rows: int
    planned: int
    withdrawn: int
    shards: int
    score_rows: int
    recomputed_flops: float
    spent: int
    limit: int | None
    currency: str

    @property
    def is_ok(self) -> bool:
        """Whether files, plan and ledger agree."""
        return not self.faults


@dataclass(slots=True, kw_only=True)
class _Found:
    faults: list[str] = field(default_factory=list[str])
    value_by_attempt: dict[str, float] = field(default_factory=dict[str, float])
    keys_by_task: dict[str, list[Keys]] = field(default_factory=dict[str, list[Keys]])
    drawn_with: dict[str, set[tuple[str, str, str]]] = field(default_factory=dict[str, set[tuple[str, str, str]]])
    ids_by_path: dict[str, pa.ChunkedArray] = field(default_factory=dict[str, pa.ChunkedArray])
    rows: int = 0
    error_rows: int = 0
    score_rows: int = 0
    flops: float = 0.0


def verify_directory(directory: Path) -> VerifyReport:
    """Checks one job's directory.

    Raises:
        InvalidInput: the directory has no manifest, or one of another version.
    """
    manifest = _read_manifest(directory)
    try:
        return _verify(directory, manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"{directory / 'manifest.json'}: damaged, or not written by isoflop: {type(error).__name__} {error}"
        ) from error


def _verify(directory: Path, manifest: dict[str, Any]) -> VerifyReport:
    found = _Found()
    pricings = {model["name"]: _pricing(model) for model in manifest["models"]}
    currency = Currency(manifest["account"]["currency"])
    # first: of a running job the plan lasts as long as the next two manifests
    plan = _read_plan(directory, manifest, found)
    for shard in manifest["shards"]:
        _verify_shard(directory, shard, pricings[shard["model"]], currency, found)
    for prepared in manifest["prepared"]:
        _check(directory / prepared["path"], prepared["sha256"], found)
    _verify_ids(found)
    if manifest["job"].get("imported") is None:  # whose samples say for themselves how they were drawn
        _verify_arms(manifest, found)
    planned, withdrawn = _verify_plan(manifest, plan, found)
    _verify_scores(directory, manifest, found)
    _verify_ledger(manifest, currency, found)
    account = manifest["account"]
    return VerifyReport(
        job_id=manifest["job_id"],
        directory=str(directory),
        faults=tuple(found.faults),
        rows=found.rows,
        error_rows=found.error_rows,
        planned=planned,
        withdrawn=withdrawn,
        shards=len(manifest["shards"]),
        score_rows=found.score_rows,
        recomputed_flops=found.flops,
        spent=_used(account),
        limit=account["limit"],
        currency=currency.value,
    )


def _pricing(model: dict[str, Any]) -> Pricing:
    price = model.get("price")
    return Pricing(cost=ForwardCost.from_json(model["cost"]), price=None if price is None else Price(**price))


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / "manifest.json"
    if not path.is_file():
        raise InvalidInput(
            f"{directory}: no manifest.json, which is written while a job runs, every minute, and at its end; allowed: "
            "the directory of a job, <data-dir>/jobs/<job>"
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{path}: not JSON: {error}") from error
    if not isinstance(manifest, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"{path}: got {type(manifest).__name__}, allowed: an object")
    if manifest.get("manifest_version") == 1 and (directory / _PLAN_OF_VERSION_1).is_file():
        plan = {"path": _PLAN_OF_VERSION_1, "sha256": file_sha256(directory / _PLAN_OF_VERSION_1)}
        return manifest | {"plan": plan, "is_sealed": False, "error": None}
    if manifest.get("manifest_version") != MANIFEST_VERSION:
        raise InvalidInput(
            f"{path}: manifest_version: got {manifest.get('manifest_version')}, allowed: {MANIFEST_VERSION}"
        )
    return manifest


def _check(path: Path, sha256: str, found: _Found) -> bool:
    try:
        check_file(path, sha256)
    except CorruptFile as error:
        found.faults.append(str(error))
        return False
    return True


def _checked_table(directory: Path, entry: dict[str, Any], columns: list[str], found: _Found) -> pa.Table | None:
    path = directory / entry["path"]
    if not _check(path, entry["sha256"], found):
        return None
    try:
        table = pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowInvalid) as error:
        found.faults.append(str(error))
        return None
    if table.num_rows != entry["rows"]:
        found.faults.append(f"{path}: {table.num_rows} rows, the manifest says {entry['rows']}")
    return table


def _verify_shard(directory: Path, shard: dict[str, Any], pricing: Pricing, currency: Currency, found: _Found) -> None:
    table = _checked_table(directory, shard, _ROW_COLUMNS, found)
    if table is None:
        return
    is_error = np.asarray(table["finish_reason"].to_numpy(zero_copy_only=False) == "error")
    prompt, cached, completion = (
        table[name].to_numpy() for name in ("prompt_tokens", "cached_tokens", "completion_tokens")
    )
    flops, paper, nano_usd = (
        np.where(is_error & ~np.isnan(amounts), 0.0, amounts)
        for amounts in (
            pricing.flops(prompt, cached, completion),
            pricing.flops_paper(completion),
            pricing.nano_usd(prompt, cached, completion),
        )
    )
    for name, expected in (("flops", flops), ("flops_paper", paper)):
        wrong = ~np.isclose(table[name].to_numpy(), expected, rtol=_TOLERANCE, equal_nan=True)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            found.faults.append(
                f"{shard['path']}: {int(wrong.sum())} rows whose {name} do not follow from their tokens; row {row} "
                f"says {table[name][row].as_py():.6g}, its tokens give {expected[row]:.6g}"
            )
    usage = Usage(
        samples=table.num_rows,
        errors=int(is_error.sum()),
        prompt_tokens=int(prompt[~is_error].sum()),
        completion_tokens=int(completion[~is_error].sum()),
        flops=float(flops.sum()),
        flops_paper=float(paper.sum()),
        nano_usd=float(nano_usd.sum()),
    )
    attempt = shard["attempt"]
    if currency.is_soft:
        # time follows from no row: the receipt in the file's footer has it
        usage = read_receipt(directory / shard["path"]).usage
    found.value_by_attempt[attempt] = found.value_by_attempt.get(attempt, 0.0) + in_currency(currency, usage)
    keys = _keys(table["problem_index"].to_numpy(), table["sample_index"].to_numpy())
    found.keys_by_task.setdefault(shard["task"], []).append(keys)
    named = table.group_by(["model", "prompt_id", "sampling_id"]).aggregate([])
    pairs = zip(*(named[name].to_pylist() for name in ("model", "prompt_id", "sampling_id")), strict=True)
    found.drawn_with.setdefault(_arm_of(shard), set()).update(pairs)
    found.ids_by_path[shard["path"]] = table["sample_id"]
    found.rows += table.num_rows
    found.error_rows += int(is_error.sum())
    found.flops += float(flops.sum())


def _arm_of(entry: dict[str, Any]) -> str:
    """Arm of a task or shard; before there were arms each model was one."""
    return str(entry.get("arm", entry["model"]))


def _asked(manifest: dict[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Model, prompt_id and sampling_id of each arm that the job spells out; none of a job whose arms are its models."""
    own = {model["name"]: model.get("sampling", {}) for model in manifest["models"]}
    asked: dict[str, tuple[str, str, str]] = {}
    for arm in manifest["job"].get("arms", ()):
        values = {
            name: next(
                each[name] for each in (arm["sampling"], own[arm["model"]], asdict(OFF)) if each.get(name) is not None
            )
            for name in FIELDS
        }
        asked[arm["name"]] = (arm["model"], document_id(arm["prompt"]), document_id(arm["sampling"] | values))
    return asked


def _verify_arms(manifest: dict[str, Any], found: _Found) -> None:
    """An arm draws with the one model, prompt and sampling of its document, and no other arm does with the same."""
    asked = _asked(manifest)
    arm_of: dict[tuple[str, str, str], str] = {}
    for arm, drawn_with in found.drawn_with.items():
        if len(drawn_with) > 1:
            found.faults.append(f"arm {arm}: drawn in {len(drawn_with)} ways, by model, prompt_id and sampling_id")
        if asked and (others := drawn_with - {asked.get(arm)}):
            found.faults.append(
                f"arm {arm}: drawn with {', '.join(map(str, sorted(others)))}, its document says {asked.get(arm)}, by "
                "model, prompt_id and sampling_id"
            )
        for one in drawn_with:
            if (other := arm_of.setdefault(one, arm)) != arm:
                found.faults.append(f"arms {other} and {arm}: drawn with the same model, prompt_id and sampling_id")


def _verify_ids(found: _Found) -> None:
    chunks = [chunk for ids in found.ids_by_path.values() for chunk in ids.chunks]
    counts = pc.value_counts(pa.chunked_array(chunks, type=pa.string()))
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    for path, ids in found.ids_by_path.items() if len(twice) else ():
        if num := pc.sum(pc.is_in(ids, value_set=twice)).as_py():
            found.faults.append(f"{path}: {num} sample ids that occur twice")


def _read_plan(directory: Path, manifest: dict[str, Any], found: _Found) -> pa.Table | None:
    path = directory / manifest["plan"]["path"]
    if not _check(path, manifest["plan"]["sha256"], found):
        found.faults.append(f"{path}: not as it was written, so no row can be held against the plan")
        return None
    return pq.read_table(path)


def _verify_plan(manifest: dict[str, Any], plan: pa.Table | None, found: _Found) -> tuple[int, int]:
    """Every planned sample has one row, or its task ended early; returns planned and withdrawn."""
    if plan is None:
        return 0, 0
    runs = np.column_stack([plan[name].to_numpy() for name in ("problem_index", "first_sample", "num_samples")])
    runs_by_task = _by_name(plan["task"].combine_chunks(), runs.astype(np.int32))
    # a task that was taken apart and its halves plan the same samples, so an arm's plan is the union of its tasks'
    planned: dict[str, list[Keys]] = {}
    written: dict[str, list[Keys]] = {}
    for task in manifest["tasks"]:
        indices = expand_runs(runs_by_task.get(task["id"], _NO_RUNS))
        wanted = _keys(indices[:, 0], indices[:, 1])
        rows = np.concatenate(found.keys_by_task.pop(task["id"], [np.zeros(0, dtype=np.int64)]))
        if len(rows) != len(np.unique(rows)):
            found.faults.append(f"task {task['id']}: {len(rows) - len(np.unique(rows))} samples twice")
        if (extra := np.setdiff1d(rows, wanted)).size:
            found.faults.append(f"task {task['id']}: {extra.size} rows that were never planned")
        missing = np.setdiff1d(wanted, rows).size
        if missing and task["state"] == "succeeded":
            found.faults.append(f"task {task['id']}: succeeded, but {missing} planned samples have no row")
        planned.setdefault(_arm_of(task), []).append(wanted)
        written.setdefault(_arm_of(task), []).append(rows)
    found.faults += [f"task {name}: has rows, but is not in the plan" for name in found.keys_by_task]
    unions = {arm: np.unique(np.concatenate(keys)) for arm, keys in planned.items()}
    withdrawn = sum(np.setdiff1d(keys, np.concatenate(written[arm])).size for arm, keys in unions.items())
    return sum(map(len, unions.values())), withdrawn


def _by_name(names: pa.DictionaryArray, runs: Runs) -> dict[str, Runs]:
    """Runs by task, order kept."""
    codes = names.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    borders = np.searchsorted(codes[order], np.arange(1, len(names.dictionary)))
    return dict(zip(names.dictionary.to_pylist(), np.split(runs[order], borders), strict=True)) if len(runs) else {}


def _verify_scores(directory: Path, manifest: dict[str, Any], found: _Found) -> None:
    scorers = manifest["job"]["scorers"]
    shards = {(shard["attempt"], shard["part"]): shard for shard in manifest["shards"]}
    seen: set[tuple[str, int]] = set()
    for score in manifest["scores"]:
        source = (score["source_attempt"], score["source_part"])
        if source in seen or source not in shards:
            found.faults.append(
                f"{score['path']}: scores {'twice' if source in seen else 'a shard that is not listed'}"
            )
            continue
        seen.add(source)
        table = _checked_table(directory, score | {"rows": shards[source]["rows"] * len(scorers)}, ["sample_id"], found)
        if table is None:
            continue
        found.score_rows += table.num_rows
        known = found.ids_by_path.get(shards[source]["path"])
        if known is not None and (unknown := pc.sum(pc.invert(pc.is_in(table["sample_id"], value_set=known))).as_py()):
            found.faults.append(f"{score['path']}: {unknown} scores of samples that its shard does not have")
    # while a job runs, scores follow; of a job that failed, what is missing is part of the failure
    if scorers and manifest["is_sealed"] and manifest["error"] is None:
        found.faults += [f"{shards[source]['path']}: was never scored" for source in shards if source not in seen]


def _used(account: dict[str, Any]) -> int:
    """All that was used; manifests of an earlier release know no excess."""
    return account["spent"] + account.get("exceeded", 0)


def _verify_ledger(manifest: dict[str, Any], currency: Currency, found: _Found) -> None:
    account = manifest["account"]
    settlements = manifest["settlements"]
    total = sum(entry["parts"] + entry["waste"] for entry in settlements.values())
    if total != _used(account):
        found.faults.append(f"ledger: settlements add up to {total:,}, the account says {_used(account):,}")
    if account.get("exceeded", 0) and not currency.is_soft:
        found.faults.append(f"ledger: {account['exceeded']:,} beyond the limit of a hard budget")
    if account["limit"] is not None and account["spent"] + account["reserved"] > account["limit"]:
        found.faults.append(f"ledger: spent and reserved pass the limit of {account['limit']:,}")
    # samples that were imported cost something once, and nothing of this ledger
    is_import = manifest["job"].get("imported") is not None
    for attempt in settlements if is_import else {**settlements, **found.value_by_attempt}:
        value = found.value_by_attempt.get(attempt, 0.0)
        settled = settlements.get(attempt, {}).get("parts", 0)
        # one unit either way: a float sum in another order may fall on the other side of a rounding border
        if abs(to_amount(currency, value) - settled) > 1 + _TOLERANCE * settled:
            found.faults.append(
                f"attempt {attempt}: its rows are worth {to_amount(currency, value):,}, the ledger settled {settled:,}"
            )


def _keys(problem: npt.NDArray[np.integer[Any]], sample: npt.NDArray[np.integer[Any]]) -> Keys:
    return (problem.astype(np.int64) << 32) | sample.astype(np.int64)
