"""Reads for pages, reports and the manifest. Sizes follow tasks and parts, never samples."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Executable, case, func, select

from service.cluster import HostKind
from service.currency import Currency
from service.devices import DeviceTime
from service.errors import NotFound
from service.experiments.nodes import Child
from service.jobs import Phase
from service.ledger import Account
from service.planner.plan import HostView
from service.receipts import Usage
from service.store import schema
from service.store.children import ChildReader, read_phases
from service.store.codec import aware
from service.store.database import reading
from service.store.rows import IS_GENERATION, account_from_row, known, sum_if_known, task_from_row
from service.store.snapshots import committed_indices, host_from_row, part_usage
from service.tasks import Task
from service.work import TaskKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A line people read; `id` grows and is the cursor."""

    id: int
    job_id: str | None
    kind: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """What was used in one minute, or in all where `bucket` is None.

    Args:
        outcome: useful, truncated, lost or dropped.
        arm: of the job, where it was asked for and is known; else "".
    """

    job_id: str
    model: str
    stage: str
    outcome: str
    bucket: datetime | None
    samples: int
    errors: int
    truncated: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    flops: float
    flops_paper: float
    busy_s: float
    nano_usd: float
    gpu_s: float = 0.0
    cpu_s: float = 0.0
    arm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldTime:
    """What hosts of one sort and model did with the devices they held, over their lives [device-seconds].

    Args:
        device: "gpu" or "cpu".
        start_s: until they could work for the first time: start of the process, weights, compilation.
        swap_s: in which engines got other weights.
    """

    kind: HostKind
    model: str | None
    device: str
    num_hosts: int
    held_s: float
    start_s: float
    busy_s: float
    swap_s: float

    @property
    def idle_s(self) -> float:
        """What is left: ready and without work, or on the way out."""
        return max(0.0, self.held_s - self.start_s - self.busy_s - self.swap_s)

    def parts(self) -> dict[str, float]:
        """Each part by its name; together what was held."""
        return {"busy": self.busy_s, "load": self.start_s, "swap": self.swap_s, "idle": self.idle_s}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A committed file. `number` is its place in the order of commitment."""

    attempt_id: str
    part: int
    number: int
    task_id: str
    job_id: str
    kind: TaskKind
    model: str
    arm: str
    path: str
    sha256: str
    rows: int
    usage: Usage
    source_attempt: str | None
    source_part: int | None
    committed_at: datetime


class Reads:
    """Queries, each one transaction unless they come from `at_one_instant`.

    Args:
        connection: a transaction that all queries share.
    """

    def __init__(self, engine: Engine, connection: Connection | None = None) -> None:
        self._engine, self._connection = engine, connection

    @contextmanager
    def at_one_instant(self) -> Generator["Reads"]:
        """Reads that all see the database as of the same moment. For one thread."""
        with reading(self._engine) as connection:
            yield Reads(self._engine, connection)

    @contextmanager
    def _connect(self) -> Generator[Connection]:
        if self._connection is not None:
            yield self._connection
        else:
            with reading(self._engine) as connection:
                yield connection

    def _all(self, query: Executable) -> list[Any]:
        with self._connect() as connection:
            return list(connection.execute(query).mappings())

    def account(self, job_id: str) -> Account:
        """The budget account of a job.

        Raises:
            NotFound: no such job.
        """
        accounts = schema.accounts
        rows = self._all(select(accounts).where(accounts.c.id.startswith(f"{job_id}:")))
        if not rows:
            raise NotFound(f"no job {job_id!r}; GET /v1/jobs lists them")
        return account_from_row(rows[0])

    def accounts(self, job_ids: Sequence[str]) -> dict[str, Account]:
        """Budget accounts by job, of those jobs that exist."""
        accounts = schema.accounts
        wanted = [f"{job_id}:{currency}" for job_id in job_ids for currency in Currency]
        rows = self._all(select(accounts).where(accounts.c.id.in_(wanted)))
        return {account.id.rpartition(":")[0]: account for account in map(account_from_row, rows)}

    def active_accounts(self) -> dict[str, Account]:
        """Budget accounts of the jobs that have not ended, by job, in the order of submission."""
        jobs = schema.jobs
        rows = self._all(select(jobs.c.id).where(jobs.c.ended_at.is_(None)).order_by(jobs.c.number))
        job_ids = [row["id"] for row in rows]
        found = self.accounts(job_ids)
        return {job_id: found[job_id] for job_id in job_ids if job_id in found}

    def exists(self, any_id: str) -> bool:
        """Whether it is the id of a job, selection, finetune or comparison."""
        return bool(self._all(select(schema.jobs.c.id).where(schema.jobs.c.id == any_id)))

    def children(self, comparison_id: str) -> dict[str, Child]:
        """What a comparison has submitted, by key."""
        with self._connect() as connection:
            return ChildReader().read(connection, comparison_id)

    def child_phases(self, comparison_id: str) -> list[tuple[str, str, Phase]]:
        """Key, id and phase of everything that a comparison has submitted, by key: `children` without results."""
        with self._connect() as connection:
            return read_phases(connection, comparison_id)

    def flops_by_stage(self, job_ids: Sequence[str]) -> dict[str, float]:
        """FLOPs of all these jobs together in exact accounting, useful and wasted, by stage."""
        usage = schema.usage
        query = select(usage.c.stage, sum_if_known(usage.c.flops).label("flops")).where(usage.c.job_id.in_(job_ids))
        found = {row["stage"]: known(row["flops"]) for row in self._all(query.group_by(usage.c.stage))}
        return {stage: flops for stage, flops in found.items() if flops}

    def time_by_stage(self, job_ids: Sequence[str]) -> dict[str, DeviceTime]:
        """Device time of all these jobs together, by stage, of stages that took some."""
        usage = schema.usage
        sums = [func.sum(usage.c[name]).label(name) for name in ("gpu_s", "cpu_s")]
        rows = self._all(select(usage.c.stage, *sums).where(usage.c.job_id.in_(job_ids)).group_by(usage.c.stage))
        return {
            row["stage"]: DeviceTime(gpu_s=row["gpu_s"], cpu_s=row["cpu_s"])
            for row in rows
            if row["gpu_s"] or row["cpu_s"]
        }

    def count_jobs(self) -> dict[str, int]:
        """How many jobs are in each phase, of all there ever were."""
        phase = schema.jobs.c.phase
        query = select(phase, func.count().label("number")).where(IS_GENERATION).group_by(phase).order_by(phase)
        return {row["phase"]: int(row["number"]) for row in self._all(query)}

    def parts(self, job_id: str, kind: TaskKind) -> list[Part]:
        """Committed files of a job in the order of commitment."""
        parts = schema.parts
        columns = [column for column in parts.c if column.name != "indices"]
        query = select(*columns).where((parts.c.job_id == job_id) & (parts.c.kind == kind.value))
        return [_part(row) for row in self._all(query.order_by(parts.c.number))]

    def count_parts(self, job_id: str, kind: TaskKind) -> int:
        """How many files of a kind are committed: changes exactly when `parts` does."""
        parts = schema.parts
        query = select(func.count()).where((parts.c.job_id == job_id) & (parts.c.kind == kind.value))
        return int(self._all(query)[0]["count_1"])

    def count_parts_of(self, job_ids: Sequence[str]) -> dict[tuple[str, TaskKind], int]:
        """How many files of each kind the jobs have committed; those that have none are left out."""
        parts = schema.parts
        keys = (parts.c.job_id, parts.c.kind)
        query = select(*keys, func.count().label("number")).where(parts.c.job_id.in_(job_ids)).group_by(*keys)
        return {(row["job_id"], TaskKind(row["kind"])): int(row["number"]) for row in self._all(query)}

    def count_rows(self, job_id: str, kind: TaskKind) -> int:
        """Rows of all committed files of a kind."""
        parts = schema.parts
        query = select(func.sum(parts.c.rows).label("rows"))
        rows = self._all(query.where((parts.c.job_id == job_id) & (parts.c.kind == kind.value)))
        return int(rows[0]["rows"] or 0)

    def tasks(self, job_id: str, *, with_runs: bool = False) -> list[Task]:
        """Every task of a job, in order.

        Args:
            with_runs: read what each one plans too: by far the largest column, so only for those who look at it.
        """
        tasks = schema.tasks
        columns = [column for column in tasks.c if with_runs or column.name != "runs"]
        query = select(*columns).where(tasks.c.job_id == job_id).order_by(tasks.c.order)
        return [task_from_row(row, with_runs=with_runs) for row in self._all(query)]

    def committed(self, task_id: str) -> Any:
        """Committed samples of a task, [n, 2]."""
        with self._connect() as connection:
            return committed_indices(connection, task_id)

    def prepared(self, job_id: str) -> list[dict[str, Any]]:
        """Prepared prompts of a job: arm, path, sha256."""
        prepared = schema.prepared
        return [dict(row) for row in self._all(select(prepared).where(prepared.c.job_id == job_id))]

    def usage(
        self,
        *,
        job_id: str | None = None,
        job_ids: Sequence[str] | None = None,
        by_minute: bool = False,
        by_arm: bool = False,
        since: datetime | None = None,
    ) -> list[UsageRow]:
        """Rolled-up usage, of one job, of some or of all.

        Args:
            since: leave out minutes that began before; the minute that contains it is left out too.
        """
        table = schema.usage
        keys = [table.c.job_id, table.c.model, table.c.stage, table.c.outcome]
        keys += [table.c.arm] if by_arm else []
        keys += [table.c.bucket] if by_minute else []
        sums = [func.sum(table.c[name]).label(name) for name in _SUMMED]
        sums += [sum_if_known(table.c[name]).label(name) for name in _MAY_BE_UNKNOWN]
        query = select(*keys, *sums).group_by(*keys).order_by(*keys)
        if job_id is not None:
            query = query.where(table.c.job_id == job_id)
        if job_ids is not None:
            query = query.where(table.c.job_id.in_(job_ids))
        if since is not None:
            query = query.where(table.c.bucket >= since)
        return [_usage_row(row) for row in self._all(query)]

    def events(self, *, job_id: str | None = None, after: int = 0, limit: int = 200) -> list[Event]:
        """Events with an id above `after`, oldest first."""
        events = schema.events
        query = select(events).where(events.c.id > after).order_by(events.c.id).limit(limit)
        if job_id is not None:
            query = query.where(events.c.job_id == job_id)
        return [_event(row) for row in self._all(query)]

    def newest_events(self, *, job_id: str | None = None, limit: int = 200) -> list[Event]:
        """The last events, newest first: for people, who read from the end. Cursors are for `events`."""
        events = schema.events
        query = select(events).order_by(events.c.id.desc()).limit(limit)
        if job_id is not None:
            query = query.where(events.c.job_id == job_id)
        return [_event(row) for row in self._all(query)]

    def hosts(self, *, limit: int = 200) -> list[HostView]:
        """Hosts, living ones first, then the latest that ended."""
        hosts = schema.hosts
        query = select(hosts).order_by(hosts.c.ended_at.is_not(None), hosts.c.created_at.desc()).limit(limit)
        return [host_from_row(row) for row in self._all(query)]

    def device_time(self, *, since: datetime | None = None) -> list[HeldTime]:
        """What engines and trainers held devices for, by sort of host, model and device, those that held most first.

        Args:
            since: leave out hosts that ended before; of the others their whole lives count.
        """
        hosts = schema.hosts
        device = case((hosts.c.gpus > 0, "gpu"), else_="cpu")
        keys = [hosts.c.kind, hosts.c.model, device.label("device")]
        number = hosts.c.gpus + hosts.c.cores
        sums = [func.sum(hosts.c[name] * number).label(name) for name in ("held_s", "start_s", "busy_s", "swap_s")]
        query = select(*keys, func.count().label("num_hosts"), *sums).where(number > 0)
        if since is not None:
            query = query.where(hosts.c.ended_at.is_(None) | (hosts.c.ended_at >= since))
        rows = self._all(query.group_by(hosts.c.kind, hosts.c.model, device))
        found = [_held_time(row) for row in rows]
        return sorted(found, key=lambda time: (-time.held_s, time.kind, time.model or ""))

    def transfers_total(self, account_id: str) -> dict[str, int]:
        """Sum of all transfers of an account by kind."""
        transfers = schema.transfers
        query = select(transfers.c.kind, func.sum(transfers.c.amount).label("amount"))
        rows = self._all(query.where(transfers.c.account == account_id).group_by(transfers.c.kind))
        return {row["kind"]: int(row["amount"]) for row in rows}

    def transfers(self, account_id: str) -> list[dict[str, Any]]:
        """Every transfer of an account in order."""
        transfers = schema.transfers
        return [dict(row) for row in self._all(select(transfers).where(transfers.c.account == account_id))]


_SUMMED = (
    "samples",
    "errors",
    "truncated",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "busy_s",
    "gpu_s",
    "cpu_s",
)
_MAY_BE_UNKNOWN = ("flops", "flops_paper", "nano_usd")


def _times(row: Any, *names: str) -> dict[str, datetime | None]:
    return {name: aware(row[name]) for name in names if name in row}


def _usage_row(row: Any) -> UsageRow:
    values: dict[str, Any] = {"bucket": None, **row, **_times(row, "bucket")}
    values |= {name: known(row[name]) for name in _MAY_BE_UNKNOWN}
    return UsageRow(**values)


def _held_time(row: Any) -> HeldTime:
    values: dict[str, Any] = {**row, "kind": HostKind(row["kind"])}
    return HeldTime(**values)


def _event(row: Any) -> Event:
    values: dict[str, Any] = {**row, **_times(row, "at")}
    return Event(**values)


def _part(row: Any) -> Part:
    values = dict(row)
    values |= {"kind": TaskKind(row["kind"]), "usage": part_usage(row["usage"])}
    values |= {"committed_at": aware(row["committed_at"])}
    return Part(**values)
