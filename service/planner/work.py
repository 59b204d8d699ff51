"""Creates tasks and leases them to hosts; winds down what a job no longer wants.

Consumes jobs, allocation states and free places on hosts; produces new tasks and submissions. One generate task an
arm and tick: the allocation state counts it only after the commit, so a second one would plan the same samples.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable

from service import wording
from service.allocation import AllocationState, Strategy, strategy_for
from service.cluster import HostKind, HostState, Stop, StopMode
from service.currency import from_amount, stated, stated_amount
from service.jobs import Arm, Desired, Phase
from service.models import ModelSpec
from service.planner.attempts import is_over, job_attempt
from service.planner.demand import pool_of
from service.planner.draft import Draft
from service.planner.failing import fail_job
from service.planner.grouping import grouped
from service.planner.imports import advance_import
from service.planner.isolation import take_apart
from service.planner.leases import is_early, lease, name_waiting
from service.planner.places import missing_places
from service.planner.plan import HostView, JobView, StateChange
from service.tasks import Task, TaskState, count_samples, move
from service.work import Runs, TaskKind


def wind_down(draft: Draft) -> None:
    """Stops attempts and drops tasks: of jobs paused, cancelled, failing or out of budget, or all when draining."""
    for job in list(draft.jobs.values()):
        has_ended = is_over(job)
        is_aborting = job.desired is Desired.cancel or job.error is not None
        if not (has_ended or is_aborting or job.desired is Desired.pause or draft.seen.is_draining):
            continue
        for task in draft.job_tasks(job.id):
            if task.kind is TaskKind.score:
                continue  # what is kept is scored, however its job ended
            if task.state is TaskState.pending and has_ended:
                draft.put_task(move(task, TaskState.cancelled))
            elif task.state.is_in_flight and task.kind is TaskKind.generate and not (has_ended and not is_aborting):
                mode = StopMode.abort if is_aborting else StopMode.finish
                draft.stop(str(task.host), Stop(attempt_id=task.attempt_id, mode=mode))
            elif task.state.is_in_flight and is_aborting:
                draft.stop(str(task.host), Stop(attempt_id=task.attempt_id, mode=StopMode.abort))


def create_tasks(draft: Draft) -> None:
    """Prepare tasks for new jobs, generate tasks for those with a free engine."""
    # as of the last commit: problems excluded in this tick are not in the allocation state yet
    prepared = {job.id for job in draft.snapshot.jobs if job.is_prepared}
    for job in list(draft.jobs.values()):
        if job.desired is not Desired.run or is_over(job) or draft.seen.is_draining:
            continue
        if job.spec.imported is not None:
            advance_import(draft, job)
        elif job.next_order == 0:  # not by its phase, which a pause before the first tick has changed
            for arm in job.spec.prompt_arms:
                _new_task(draft, job.id, TaskKind.prepare, arm)
            draft.change_job(job.id, phase=Phase.preparing)
        elif job.id in prepared and job.closing is None:
            _check_affordable(draft, job)
            _create_generate(draft, draft.jobs[job.id])


def _check_affordable(draft: Draft, job: JobView) -> None:
    """Fails a job that could not pay a single sample, saying what one costs."""
    if draft.account(job.id).spent or job.num_samples:
        return
    currency = job.account.currency
    cheapest = [facts.facts.get(f"min_worst_{currency}", 0.0) for facts in job.prepared.values()]
    limit = job.account.limit
    if all(facts.facts.get("num_valid", 1.0) == 0.0 for facts in job.prepared.values()):
        reasons = dict.fromkeys(_lengths_text(job.model_of(arm), found.facts) for arm, found in job.prepared.items())
        fail_job(
            draft,
            job.id,
            f"none of the {job.num_problems:,} problems can be sampled: {'; '.join(reasons)}; shorten the prompt or "
            "name a model with a longer context",
        )
    elif limit is not None and min(cheapest) > from_amount(currency, limit):
        fail_job(
            draft,
            job.id,
            f"budget of {wording.amount(stated_amount(currency, limit), currency)} is smaller than one sample: the "
            f"cheapest may cost {wording.amount(stated(currency, min(cheapest)), currency)}",
        )


def _lengths_text(model: ModelSpec, facts: dict[str, float]) -> str:
    shortest, longest = (int(facts[f"{which}_prompt_tokens"]) for which in ("shortest", "longest"))
    return (
        f"{model.name} takes prompts of 1 to {model.context_len - 1:,} tokens, these have {shortest:,} to {longest:,}"
    )


def _create_generate(draft: Draft, job: JobView) -> None:
    state = draft.states[job.id]
    strategy = grouped(draft, job, strategy_for(job.spec, job.num_problems))
    scores = draft.job_tasks(job.id, TaskKind.score)
    if job.error is not None or len(scores) >= draft.options.max_unscored_parts:
        return
    is_waiting = False
    pools = {arm.name: job.model_of(arm.name).pool for arm in job.spec.all_arms}
    num_sharing, left = Counter(pools.values()), strategy.most_now(state)
    arms = job.spec.all_arms
    for num_asked, index in enumerate(_order_of_arms(state, strategy)):
        arm = arms[index]
        pool = pools[arm.name]
        num_engines = max(1, len(draft.staying_hosts(HostKind.generator, pool)))
        open_tasks = [task for task in draft.job_tasks(job.id, TaskKind.generate) if task.arm == arm.name]
        # arms that share engines share their places, one at least each: what waits in line is planned too early
        if len(supplying(draft, open_tasks)) >= -(-draft.options.tasks_per_engine * num_engines // num_sharing[pool]):
            is_waiting = True
            continue
        # a checkpoint that has drawn nothing yet is about as fast as its base
        rate = draft.seen.rates.get(arm.model, draft.seen.rates.get(pool))
        batch = job.model_of(arm.name).engine.max_num_seqs
        size = _task_size(draft, job, rate, num_engines, strategy.is_adaptive, batch)
        share = left if strategy.is_cascade else -(-left // (len(arms) - num_asked))
        runs = strategy.next_runs(state, arm=index, max_samples=min(size, share))
        left -= count_samples(runs)
        if count_samples(runs):
            _new_task(draft, job.id, TaskKind.generate, arm, runs)
            draft.change_state(StateChange(job_id=job.id, arm=index, planned=runs))
            is_waiting = True
    has_open_work = bool(draft.job_tasks(job.id, TaskKind.generate)) or bool(scores)
    if not is_waiting and strategy.is_done(state):
        draft.change_job(job.id, closing="plan complete")
    elif not is_waiting and not has_open_work and not draft.has_state_change(job.id):
        # Nothing is out, nothing just came in, and the strategy asks for nothing: it would wait for ever.
        draft.change_job(job.id, closing="plan complete")


def _order_of_arms(state: AllocationState, strategy: Strategy) -> list[int]:
    """Who is asked first where there may not be enough for all: whoever has least, or the first of a cascade."""
    arms = range(state.num_arms)
    return list(arms) if strategy.is_cascade else sorted(arms, key=lambda arm: int(state.num_planned_by_arm[arm]))


def supplying(draft: Draft, tasks: Iterable[Task]) -> list[Task]:
    """Tasks that have something to give to an engine, or whose host has not said yet that they have not.

    The others wait for their last samples, which takes as long as the longest completion, and fill nothing meanwhile.
    """
    return [task for task in tasks if not _is_draining(draft, task)]


def _is_draining(draft: Draft, task: Task) -> bool:
    host = draft.report(task.host)
    if task.kind is not TaskKind.generate or task.state is not TaskState.running or host is None:
        return False
    return any(report.attempt_id == task.attempt_id and not report.waiting for report in host.attempts)


def _task_size(draft: Draft, job: JobView, rate: float | None, num_engines: int, is_adaptive: bool, batch: int) -> int:
    options = draft.options
    seconds = options.adaptive_task_s if is_adaptive else options.uniform_task_s
    size = options.first_task_samples if rate is None else int(rate * seconds)
    left = _samples_left(draft, job)
    if is_adaptive:
        # at most 1/50 of what is left, or the budget is planned before the feedback that should shape it arrives
        size = min(max(size, int(batch * options.adaptive_batch_share)), max(options.min_adaptive_samples, left // 50))
    else:
        # half of an engine's share of what is left: the last tasks are small, so engines end together and a budget
        # that ends within a round ends in order
        size = min(size, max(options.min_uniform_samples, left // (2 * num_engines)))
    return max(1, min(size, options.max_task_samples))


def _samples_left(draft: Draft, job: JobView) -> int:
    """Samples the budget still buys at the mean cost so far, less those that are planned already."""
    account = draft.account(job.id)
    planned = int(draft.states[job.id].num_planned_by_arm.sum())
    if not job.num_samples or not account.spent:
        return 1 << 30
    mean_cost = account.spent / job.num_samples
    return max(0, int((account.spent + account.reserved + account.available) / mean_cost) - planned)


def _new_task(draft: Draft, job_id: str, kind: TaskKind, arm: Arm, runs: Runs | None = None) -> Task:
    order = draft.new_task_order(job_id)
    return draft.put_task(
        Task(
            id=f"{job_id}-{order}",
            job_id=job_id,
            kind=kind,
            order=order,
            model=arm.model,
            arm=arm.name,
            runs=runs,
            num_planned=count_samples(runs),
            created_at=draft.now,
        )
    )


def lease_tasks(draft: Draft) -> None:
    """Gives pending tasks to hosts with a free place, oldest job and lowest order first."""
    if draft.seen.is_draining:
        return
    kept_free: set[str] = set()
    position = {job.id: number for number, job in enumerate(draft.snapshot.jobs)}
    pending = [task for task in draft.tasks.values() if task.state is TaskState.pending and task.job_id in position]
    for task in sorted(pending, key=lambda task: (position[task.job_id], task.order)):
        job = draft.jobs[task.job_id]
        is_generate = task.kind is TaskKind.generate
        is_held = is_generate and job.desired is Desired.pause
        # `remaining` of a task handed back this tick is known only after the commit
        is_stale = is_generate and task.attempt > 1 and task.remaining is None
        if is_held or is_early(draft, task) or is_stale or take_apart(draft, task):
            continue
        host = _free_host(draft, task, kept_free)
        if host is None:
            name_waiting(draft, task, _engine_of(draft, task) if is_generate else "a dispatcher")
            # a suspect waits for an engine to itself; younger tasks must not keep it from becoming free
            kept_free |= {host.name for host in _serving(draft, task)[:1] if task.is_suspect}
        else:
            lease(draft, task, host, job_attempt)


def _engine_of(draft: Draft, task: Task) -> str:
    """What a generate task waits for, for people."""
    return f"an engine for {task.model}{missing_places(draft, pool_of(draft, task))}"


def _free_host(draft: Draft, task: Task, kept_free: Collection[str]) -> HostView | None:
    limit = draft.options.tasks_per_engine if task.kind is TaskKind.generate else draft.options.scores_in_flight
    for host in _serving(draft, task):
        tasks = draft.tasks_on(host.name)
        # a suspect has an engine to itself, or its neighbours would share the blame
        is_shy = bool(tasks) and (task.is_suspect or any(other.is_suspect for other in tasks))
        supply = supplying(draft, tasks)
        is_full = len(supply) >= limit or len(tasks) - len(supply) >= draft.options.draining_per_engine
        if not is_full and not is_shy and host.name not in kept_free:
            return host
    return None


def _serving(draft: Draft, task: Task) -> list[HostView]:
    """Hosts that can run the task, those with the least to do first."""
    is_generate = task.kind is TaskKind.generate
    kind = HostKind.generator if is_generate else HostKind.dispatcher
    hosts = draft.staying_hosts(kind, pool_of(draft, task) if is_generate else None)
    ready = [host for host in hosts if host.state is HostState.ready]
    return sorted(ready, key=lambda host: _load(draft, host))


def _load(draft: Draft, host: HostView) -> tuple[int, int]:
    tasks = draft.tasks_on(host.name)
    return len(supplying(draft, tasks)), len(tasks)


def end_jobs(draft: Draft) -> None:
    """Derives every job's phase; ends jobs that have nothing left to do."""
    before = {task.job_id for task in draft.snapshot.tasks}
    for job in list(draft.jobs.values()):
        open_tasks = draft.job_tasks(job.id)
        is_closing = job.closing is not None or job.desired is Desired.cancel
        # one tick after its last task everything of the job is committed, and its last manifest can be written
        has_nothing_left = is_closing and not open_tasks and job.id not in before
        if has_nothing_left and job.id in draft.seen.sealed_jobs:
            draft.change_job(job.id, phase=_final_phase(job))
        elif has_nothing_left:
            draft.seal_job(job.id)
        else:
            phase = _phase(job, open_tasks)
            if phase is not job.phase:
                draft.jobs[job.id] = dataclasses.replace(job, phase=phase)


def _final_phase(job: JobView) -> Phase:
    if job.error is not None:
        return Phase.failed
    if job.desired is Desired.cancel:
        return Phase.cancelled
    return Phase.finished_with_errors if job.num_errors else Phase.succeeded


def _phase(job: JobView, open_tasks: list[Task]) -> Phase:
    is_drawing = any(task.state.is_in_flight and task.kind is TaskKind.generate for task in open_tasks)
    if job.desired is Desired.cancel or job.error is not None:
        return Phase.cancelling
    if job.desired is Desired.pause:
        return Phase.pausing if is_drawing else Phase.paused
    if job.phase is Phase.queued:
        return Phase.queued
    if job.spec.imported is not None:
        return Phase.running
    return Phase.running if job.is_prepared else Phase.preparing
