"""Database rows as domain objects."""

import math
from typing import Any

from sqlalchemy import Column, ColumnElement, case, func

from service.currency import Currency
from service.jobs import JobSpec
from service.ledger import Account
from service.planner.plan import PoolView
from service.shards import unpack_array
from service.store import schema
from service.store.codec import aware
from service.tasks import ShardRef, Task, TaskState
from service.work import TaskKind

GENERATION = "generate"
IS_GENERATION = schema.jobs.c.kind == GENERATION
"""Rows of the jobs' table that are generation jobs; selections and finetunes are kept there as well."""


def task_from_row(row: Any, *, with_runs: bool = True) -> Task:
    """A row of `tasks`; without runs where nobody will look at them, for they are the large column."""
    source = None
    if row["source_attempt"] is not None:
        source = ShardRef(
            attempt_id=row["source_attempt"],
            part=row["source_part"],
            path=row["source_path"],
            sha256=row["source_sha256"],
        )
    return Task(
        id=row["id"],
        job_id=row["job_id"],
        kind=TaskKind(row["kind"]),
        order=row["order"],
        model=row["model"],
        arm=row["arm"],
        state=TaskState(row["state"]),
        attempt=row["attempt"],
        host=row["host"],
        runs=unpack_array(row["runs"], columns=3) if with_runs else None,
        source=source,
        num_planned=row["num_planned"],
        credit=row["credit"],
        settled=row["settled"],
        settled_value=row["settled_value"],
        grant_version=row["grant_version"],
        is_final_sent=row["is_final_sent"],
        num_parts=row["num_parts"],
        busy_s=row["busy_s"],
        written_s=row["written_s"],
        num_lost=row["num_lost"],
        num_failed=row["num_failed"],
        not_before=aware(row["not_before"]),
        submitted_at=aware(row["submitted_at"]),
        created_at=aware(row["created_at"]),
        error=row["error"],
    )


def account_from_row(row: Any) -> Account:
    """A row of `accounts`."""
    return Account(
        id=row["id"],
        currency=Currency(row["currency"]),
        limit=row["limit"],
        spent=row["spent"],
        reserved=row["reserved"],
        exceeded=row["exceeded"],
    )


def pool_from_row(row: Any) -> PoolView:
    """A row of `pools`."""
    values: dict[str, Any] = dict(row)
    values["waiting_since"] = aware(row["waiting_since"])
    return PoolView(**values)


def account_id(job_id: str, spec: JobSpec) -> str:
    """Name of the account a job's budget is kept in."""
    return f"{job_id}:{spec.budget.currency}"


def sum_if_known(column: Column[Any]) -> ColumnElement[Any]:
    """The sum of a column, or null where any of it is null: SQL itself would pass over those."""
    return case((func.count() > func.count(column), None), else_=func.sum(column))


def known(value: float | None) -> float:
    """A number of the database, NaN for null."""
    return math.nan if value is None else value
