"""/v1/usage: what was used, by job, model, arm, stage and outcome, also by minute and as CSV."""

import csv
import io
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from api.context import Context
from api.wire.jobs import UsageList, UsageOut
from service.currency import Currency, stated
from service.errors import UnknownName
from service.store.reads import UsageRow

router = APIRouter(prefix="/v1/usage", tags=["usage"])

KEYS = {"job": "job_id", "model": "model", "arm": "arm", "stage": "stage", "outcome": "outcome"}
AMOUNTS = (
    "samples",
    "errors",
    "truncated",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "flops",
    "flops_paper",
    "busy_s",
    "gpu_s",
    "cpu_s",
    "nano_usd",
)


@router.get(
    "",
    response_model=UsageList,
    response_model_exclude_unset=True,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def get_usage(
    context: Context,
    by: Annotated[str, Query(max_length=100, description="Any of job, model, arm, stage, outcome, by commas.")] = (
        "job,model,stage,outcome"
    ),
    job: Annotated[str | None, Query(max_length=40, description="Only this job.")] = None,
    bucket: Annotated[Literal["minute"] | None, Query(description="Also by minute of commitment.")] = None,
    format: Annotated[Literal["json", "csv"], Query()] = "json",
) -> UsageList | Response:
    """Samples, tokens, FLOPs, USD, busy seconds and device-seconds. Outcomes: useful, truncated, lost, dropped."""
    keys = [key for key in by.split(",") if key]
    for key in keys:
        if key not in KEYS:
            raise UnknownName(kind="usage key", got=key, allowed=KEYS)
    if job is not None:
        context.store.jobs.get(job)
    rows = context.store.reads.usage(job_id=job, by_minute=bucket == "minute", by_arm="arm" in keys)
    sums = sum_usage(rows, keys, by_minute=bucket == "minute")
    if format == "csv":
        return Response(_as_csv(sums), media_type="text/csv; charset=utf-8")
    return UsageList(items=[UsageOut(**entry) for entry in sums])


def sum_usage(rows: Iterable[UsageRow], keys: Iterable[str], *, by_minute: bool = False) -> list[dict[str, Any]]:
    """Usage summed over everything but `keys` (names in KEYS), in the order of the keys; NaN is not known."""
    chosen = list(dict.fromkeys(keys))
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        names = {key: getattr(row, KEYS[key]) for key in chosen} | ({"minute": row.bucket} if by_minute else {})
        entry = sums.setdefault(tuple(names.values()), names | dict.fromkeys(AMOUNTS, 0))
        for amount in AMOUNTS:
            entry[amount] += getattr(row, amount)
    for entry in sums.values():
        entry["usd"] = stated(Currency.usd, entry.pop("nano_usd"))
    return [sums[key] for key in sorted(sums)]


def _as_csv(sums: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    if sums:
        writer = csv.DictWriter(out, fieldnames=list(sums[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: "" if value != value else value for name, value in entry.items()} for entry in sums)
    return out.getvalue()
