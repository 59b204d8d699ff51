"""What attempts of jobs mean: receipts are settled, ended ones close their credit, lost ones are charged.

Consumes what `heard` makes of the observation; produces transfers, usage and score tasks. Reports of attempts that are
not current are told to stop and forgotten without a commit.
"""

import dataclasses
import math

from service.cluster import Acknowledge, AttemptReport, AttemptState, HostState, Stop, StopMode
from service.currency import Currency, from_amount, in_currency, to_amount
from service.jobs import Desired
from service.ledger import TransferKind
from service.planner.draft import Draft
from service.planner.failing import fail_job
from service.planner.heard import Meaning, end_attempt, fold, go_again, lose_attempt
from service.planner.imports import commit_import
from service.planner.meters import devices_of, lost_time
from service.planner.plan import JobView, Prepared, StateChange
from service.planner.settling import settle
from service.planner.submit import attempt_spec
from service.receipts import Receipt, ScoreDelta, Usage
from service.tasks import MAX_ENGINE_DEATHS, ShardRef, Task, TaskState, move
from service.work import AttemptSpec, TaskKind

END_OF_ATTEMPT = -1
"""Number of the settlement that closes an attempt; parts count from 0."""


def fold_reports(draft: Draft) -> None:
    """Brings every task of a job that is in flight up to date with its host's last report."""
    fold(draft, draft.jobs, Meaning(attempt=job_attempt, commit=_commit, end=_end, lose=_lose))
    _refuse_strangers(draft)


def _refuse_strangers(draft: Draft) -> None:
    """Stops and forgets attempts that are not current: their rows are refused, what they used is waste already."""
    current = {task.attempt_id for task in draft.tasks.values() if task.state.is_in_flight}
    for name, host in draft.seen.observation.hosts.items():
        for report in host.attempts:
            if report.attempt_id in current or host.state is HostState.dead:
                continue
            if report.state is AttemptState.running:
                draft.stop(name, Stop(attempt_id=report.attempt_id, mode=StopMode.abort))
            else:
                draft.acknowledge(name, Acknowledge(attempt_id=report.attempt_id, num_parts=1 << 30, is_forgotten=True))


def job_attempt(draft: Draft, task: Task) -> AttemptSpec:
    """The current attempt of a job's task."""
    return attempt_spec(task, draft.jobs[task.job_id], draft.options)


def _commit(draft: Draft, task: Task, receipt: Receipt) -> None:
    job = draft.jobs[task.job_id]
    match task.kind:
        case TaskKind.generate:
            _settle(draft, task, job, receipt)
        case TaskKind.score:
            draft.record_usage(task, "useful", receipt.usage)
            delta = _delta(task, receipt)
            draft.change_state(StateChange(job_id=job.id, arm=job.spec.arm_index(task.arm), delta=delta))
            draft.change_job(job.id, num_correct=job.num_correct + int(delta.is_correct.sum()))
        case TaskKind.prepare:
            _commit_prepared(draft, task, receipt)
        case TaskKind.import_:
            commit_import(draft, task, receipt)
            create_score(draft, task, receipt)
        case TaskKind.select | TaskKind.finetune:
            raise ValueError(f"task {task.id}: a {task.kind} task belongs to no generation job")


def _settle(draft: Draft, task: Task, job: JobView, receipt: Receipt) -> None:
    used = in_currency(job.account.currency, receipt.usage)
    task = settle(draft, task, task.settled_value + used, number=receipt.part)
    useful, truncated = split_truncated(receipt.usage)
    draft.record_usage(task, "useful", useful)
    if truncated.truncated:
        draft.record_usage(task, "truncated", truncated)
    draft.change_job(
        job.id,
        num_samples=draft.jobs[job.id].num_samples + receipt.rows,
        num_errors=draft.jobs[job.id].num_errors + receipt.usage.errors,
    )
    arm = job.spec.arm_index(task.arm)
    spent = (receipt.usage.samples, receipt.usage.errors, used)
    draft.change_state(StateChange(job_id=job.id, arm=arm, spent=spent))
    create_score(draft, task, receipt)


def create_score(draft: Draft, task: Task, receipt: Receipt) -> None:
    """Has a part of samples scored, if the job has scorers."""
    job = draft.jobs[task.job_id]
    if receipt.rows and job.spec.scorers:
        order = draft.new_task_order(job.id)
        draft.put_task(
            Task(
                id=f"{job.id}-{order}",
                job_id=job.id,
                kind=TaskKind.score,
                order=order,
                model=task.model,
                arm=task.arm,
                num_planned=receipt.rows,
                created_at=draft.now,
                source=ShardRef(
                    attempt_id=task.attempt_id, part=receipt.part, path=receipt.path, sha256=receipt.sha256
                ),
            )
        )


def _commit_prepared(draft: Draft, task: Task, receipt: Receipt) -> None:
    job = draft.jobs[task.job_id]
    draft.record_prepared(
        Prepared(
            job_id=job.id,
            arm=task.arm,
            path=receipt.path,
            sha256=receipt.sha256,
            facts=receipt.facts,
            excluded=receipt.indices,
        )
    )
    draft.record_usage(task, "useful", receipt.usage)
    if receipt.indices is not None and len(receipt.indices):
        draft.change_state(StateChange(job_id=job.id, arm=job.spec.arm_index(task.arm), excluded=receipt.indices))
        draft.event(job.id, "prompts_refused", f"{task.arm}: {len(receipt.indices)} problems cannot be sampled")


def _end(draft: Draft, task: Task, report: AttemptReport) -> None:
    job = draft.jobs[task.job_id]
    if task.kind is TaskKind.generate:
        task = _close_credit(draft, task, used=report.used, outcome="dropped", waste=report.wasted)
    error = end_attempt(draft, task, report, is_dropped=_is_dropped(task, job))
    if error is not None:
        fail_job(draft, job.id, f"{task.kind} {task.id}: {error}")


def _lose(draft: Draft, task: Task) -> None:
    """The attempt's process is gone for certain: charge the rest of its credit, and find out whose fault it was."""
    job = draft.jobs[task.job_id]
    time = lost_time(draft, task)
    if task.kind is TaskKind.generate and job.account.currency.is_soft:
        task = _lose_time(draft, task, job)
    elif task.kind is not TaskKind.generate or task.credit <= task.settled:
        if time != Usage():
            draft.record_usage(task, "lost", time)
    else:
        currency = job.account.currency
        # Nobody can say what the engine did after its last word, only that it kept within its credit: the whole
        # rest is charged, so that the limit holds whatever happened. Samples are rows, and rows can be counted.
        at_risk = from_amount(currency, task.credit) - task.settled_value
        used = task.settled_value + (0.0 if currency is Currency.samples else at_risk)
        lost = time + _at_worst(currency, at_risk, job.prompts_of(task.arm).facts)
        task = _close_credit(draft, task, used=used, outcome="lost", waste=lost)
    host = draft.hosts.get(str(task.host))
    # an engine that loaded and then said why it died may have died of this task; that is a failure, not bad luck
    has_spoken = host is not None and host.has_been_ready and host.error is not None
    is_engine_death = has_spoken and task.kind is TaskKind.generate
    if is_engine_death or task.is_suspect:
        draft.count_engine_death(job.id, str(task.host))
    counts = {"num_failed": task.num_failed + 1} if is_engine_death else {"num_lost": task.num_lost + 1}
    task = lose_attempt(draft, task, **counts)
    num_deaths = draft.jobs[job.id].num_engine_deaths
    is_dropped = _is_dropped(task, job)
    if num_deaths >= MAX_ENGINE_DEATHS and not is_dropped:
        draft.put_task(move(task, TaskState.failed))
        fail_job(draft, job.id, f"{num_deaths} engines died, the last one because {task.error}")
    elif (error := go_again(draft, task, is_dropped=is_dropped)) is not None:
        fail_job(draft, job.id, f"{task.kind} {task.id}: {error}")


def _lose_time(draft: Draft, task: Task, job: JobView) -> Task:
    """Charges a lost attempt the time it was heard of, and the credit it may have used since."""
    currency, account = job.account.currency, draft.account(job.id)
    devices = devices_of(draft, task)
    used = max(from_amount(currency, task.credit), 1000.0 * devices.count * task.busy_s, task.settled_value)
    at_risk = used - task.settled_value
    lost = Usage.of_time(at_risk / 1000.0 / devices.count, devices)
    if job.num_samples and account.used:
        # how many samples that time would have made, at the mean so far; with none to go by nobody can say
        num_samples = at_risk * job.num_samples / from_amount(currency, account.used)
        lost += _at_worst(Currency.samples, num_samples, job.prompts_of(task.arm).facts)
    return _close_credit(draft, task, used=used, outcome="lost", waste=lost)


def _close_credit(draft: Draft, task: Task, *, used: float, outcome: str, waste: Usage) -> Task:
    """Settles what the attempt used beyond its committed parts and voids the rest of its reservation."""
    currency = draft.account(task.job_id).currency
    if to_amount(currency, used) > to_amount(currency, task.settled_value):
        task = settle(draft, task, used, number=END_OF_ATTEMPT)
    if waste != Usage():
        draft.record_usage(task, outcome, waste)
    version = task.grant_version + 1
    if task.credit > task.settled:
        draft.transfer(task, TransferKind.void, number=version, amount=task.credit - task.settled)
    return draft.put_task(dataclasses.replace(task, credit=task.settled, grant_version=version))


def _is_dropped(task: Task, job: JobView) -> bool:
    """Whether handed-back or lost work is not wanted any more. What is kept is scored, however its job ended."""
    return task.kind is not TaskKind.score and is_over(job)


def is_over(job: JobView) -> bool:
    """Whether the job draws no more samples, so that handed-back work is dropped."""
    return job.desired is Desired.cancel or job.error is not None or job.closing == "budget spent"


def split_truncated(usage: Usage) -> tuple[Usage, Usage]:
    """The usage as useful and truncated parts that add up to it; prompts and time stay with the useful one."""
    truncated = Usage(
        samples=usage.truncated,
        truncated=usage.truncated,
        completion_tokens=usage.truncated_tokens,
        flops=usage.truncated_flops,
        flops_paper=usage.truncated_flops_paper,
        nano_usd=usage.truncated_nano_usd,
    )
    useful = dataclasses.replace(
        usage,
        samples=usage.samples - usage.truncated,
        truncated=0,
        completion_tokens=usage.completion_tokens - usage.truncated_tokens,
        flops=usage.flops - usage.truncated_flops,
        flops_paper=usage.flops_paper - usage.truncated_flops_paper,
        nano_usd=usage.nano_usd - usage.truncated_nano_usd,
    )
    return useful, truncated


def _at_worst(currency: Currency, amount: float, facts: dict[str, float]) -> Usage:
    """Unfinished work of a lost attempt in every currency, from its amount in the budget's, at the mean worst case."""
    num_samples = amount / facts[f"mean_worst_{currency}"]
    prompt_tokens = num_samples * facts.get("mean_prompt_tokens", 0.0)  # prepared by an earlier release

    def at_worst(other: Currency) -> float:
        return num_samples * facts.get(f"mean_worst_{other}", math.nan)

    return Usage(
        samples=math.ceil(num_samples),
        prompt_tokens=math.ceil(prompt_tokens),
        completion_tokens=math.ceil(at_worst(Currency.tokens) - prompt_tokens),
        flops=at_worst(Currency.flops),
        flops_paper=at_worst(Currency.flops_paper),
        nano_usd=at_worst(Currency.usd),
    )


def _delta(task: Task, receipt: Receipt) -> ScoreDelta:
    if receipt.delta is None:
        raise ValueError(f"score task {task.id}: a receipt without a delta")
    return receipt.delta
