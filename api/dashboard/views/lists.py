"""Workers, models, problem sets and usage: pages that are mostly one table."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

import pyarrow.parquet as pq

from api.context import AppContext
from api.dashboard import pages
from api.dashboard.views import charts
from api.dashboard.views.jobs import shell_of
from api.dashboard.views.links import link_to
from api.dashboard.views.training import names_of
from api.progress import amount_of
from api.routes.pools import etag
from service import wording
from service.cluster import HostKind, HostState
from service.currency import Currency
from service.flops import decode_flops
from service.models import ModelSpec
from service.planner.plan import HostView
from service.problems import ProblemSet
from service.store.reads import UsageRow

REFERENCE_LEN = 64
_EXAMPLE_CHARACTERS = 120
_FIGURE_WINDOW = timedelta(days=7)
_NOT_READY = (HostState.starting, HostState.loading)


def workers_page(context: AppContext, now: datetime) -> pages.WorkersPage:
    """Pools and hosts."""
    hosts = context.store.reads.hosts()
    engines = [host for host in hosts if host.kind is HostKind.generator and host.ended_at is None]
    by_model: dict[str, list[HostState]] = {}
    turn_since: dict[str, datetime] = {}
    for engine in engines:
        by_model.setdefault(engine.model or "", []).append(engine.state)
        if engine.ready_at is not None:
            turn_since[engine.model or ""] = min(engine.ready_at, turn_since.get(engine.model or "", now))
    pools = tuple(
        pages.PoolLine(
            model=pool.model,
            replicas=pool.replicas,
            ready=by_model.get(pool.model, []).count(HostState.ready),
            starting=sum(state in _NOT_READY for state in by_model.get(pool.model, [])),
            minimum=pool.minimum,
            idle_s=pool.idle_s,
            failures=pool.failures,
            waiting_since=pool.waiting_since,
            turn_since=turn_since.get(pool.model),
            num_turns=pool.num_turns,
            etag=etag(pool),
        )
        for pool in context.store.catalogue.pools()
    )
    return pages.WorkersPage(
        shell=shell_of(context, "workers", now),
        headline=_workers_headline(engines),
        cluster=context.controller_status().cluster,
        pools=pools,
        hosts=tuple(_host_line(host) for host in hosts),
    )


def _workers_headline(engines: Sequence[HostView]) -> str:
    if not engines:
        return "No engine is running; engines start with the first job that needs them."
    ready = sum(engine.state is HostState.ready for engine in engines)
    others = [engine.state.value for engine in engines if engine.state is not HostState.ready]
    words = ", ".join(f"{others.count(state)} {state}" for state in sorted(set(others)))
    start = f"{ready} of {wording.plural(len(engines), 'engine')} ready" if ready else "No engine is ready yet"
    return f"{start}{f', {words}' if words else ''}."


def _host_line(host: HostView) -> pages.HostLine:
    return pages.HostLine(
        name=host.name,
        kind=host.kind.value,
        model=host.model or "",
        state=host.state.value,
        is_stopping=host.is_stopping,
        node=host.node or "",
        pid=host.pid,
        load_s=host.load_s,
        created_at=host.created_at,
        idle_since=host.idle_since,
        ended_at=host.ended_at,
        error=host.error,
    )


def models_page(context: AppContext, now: datetime) -> pages.ModelsPage:
    """The catalogue of models."""
    models = context.store.catalogue.models()
    specs = [model for model in models if not model.is_student]
    names = names_of(context.store)
    colours = charts.colours_of(context.store)
    return pages.ModelsPage(
        shell=shell_of(context, "models", now),
        headline=_models_headline(specs, len(models) - len(specs)),
        reference_len=REFERENCE_LEN,
        models=tuple(
            pages.ModelLine(
                name=spec.name,
                colour=colours[spec.name],
                source=_source(spec),
                adapted=None if spec.adapter is None else spec.adapter.base,
                revision=spec.revision,
                parameters=spec.cost.parameters if spec.cost.is_known else None,
                context_len=spec.context_len,
                price=spec.price,
                flops_per_token=_flops_per_token(spec),
                dtype=spec.engine.dtype,
                students=_students([each for each in models if each.is_student and each.base == spec.name], names),
            )
            for spec in specs
        ),
    )


def _source(spec: ModelSpec) -> str:
    if spec.endpoint is not None:
        return f"{spec.endpoint.model} at {spec.endpoint.base_url}"
    return spec.path if spec.adapter is None else spec.adapter.path


def _flops_per_token(spec: ModelSpec) -> float:
    """NaN where nobody knows."""
    return decode_flops(spec.cost, REFERENCE_LEN) if spec.cost.is_traced else math.nan


def _students(checkpoints: Sequence[ModelSpec], names: dict[str, str]) -> tuple[pages.StudentLine, ...]:
    """Checkpoints by the finetune that wrote them, newest first."""
    steps_by_run: dict[str, list[int]] = {}
    for checkpoint in checkpoints:
        run, _, step = checkpoint.name.rpartition("/step-")
        steps_by_run.setdefault(run, []).append(int(step))
    return tuple(
        pages.StudentLine(run=link_to(run, names.get(run)), steps=tuple(sorted(steps)))
        for run, steps in reversed(steps_by_run.items())
    )


def _models_headline(specs: Sequence[ModelSpec], num_checkpoints: int) -> str:
    students = f" and {wording.plural(num_checkpoints, 'checkpoint')}" if num_checkpoints else ""
    if len(specs) < 2:
        return f"{wording.plural(len(specs), 'model').capitalize()} registered{students}."
    costs = {spec.name: _flops_per_token(spec) for spec in specs if spec.cost.is_traced}
    if len(costs) < 2:
        return f"{len(specs)} models{students}."
    if len(set(costs.values())) == 1:
        return f"{len(specs)} models{students}; a token of each costs the same."
    dearest, cheapest = max(costs, key=lambda name: costs[name]), min(costs, key=lambda name: costs[name])
    ratio = costs[dearest] / costs[cheapest]
    return f"{len(specs)} models{students}; a token of {dearest} costs {ratio:.1f} times one of {cheapest}."


def problems_page(context: AppContext, now: datetime) -> pages.ProblemsPage:
    """Registered problem sets."""
    sets = context.store.catalogue.problem_sets()
    total = sum(item.num_problems for item in sets)
    return pages.ProblemsPage(
        shell=shell_of(context, "problems", now),
        headline=f"{wording.plural(len(sets), 'problem set').capitalize()} with {wording.plural(total, 'problem')}.",
        problem_sets=tuple(_problem_set_line(item) for item in sets),
    )


def _problem_set_line(item: ProblemSet) -> pages.ProblemSetLine:
    table = pq.read_table(item.path, columns=["question", "level", "structure"])
    levels = {level for level in table["level"].to_pylist() if level is not None}
    question = str(table["question"][0])
    is_long = len(question) > _EXAMPLE_CHARACTERS
    return pages.ProblemSetLine(
        name=item.name,
        num_problems=item.num_problems,
        num_levels=len(levels) or None,
        has_structure=table["structure"].null_count < table.num_rows,
        fingerprint=item.fingerprint,
        source=item.source,
        example=f"{question[:_EXAMPLE_CHARACTERS].rstrip()} …" if is_long else question,
    )


def usage_page(context: AppContext, now: datetime) -> pages.UsagePage:
    """The ledger, summed."""
    store = context.store
    rows = store.reads.usage()
    names = names_of(store)
    known = [row for row in rows if not math.isnan(row.flops)]
    useful = sum(row.flops for row in known if row.outcome == "useful")
    total = sum(row.flops for row in known)
    wasted = f", {wording.percent(1 - useful / total)} of the FLOPs wasted" if total else ""
    unknown = dict.fromkeys(row.model for row in rows if math.isnan(row.flops))
    without = f"; those of {', '.join(unknown)} are unknown" if unknown else ""
    worked = wording.device_hours(sum(row.gpu_s for row in rows), sum(row.cpu_s for row in rows))
    return pages.UsagePage(
        shell=shell_of(context, "usage", now),
        headline=f"{wording.flops(total)} FLOPs and {worked} since the start{wasted}{without}.",
        period="since the start",
        figure_period=f"the last {_FIGURE_WINDOW.days} days",
        csv_path="/v1/usage?format=csv",
        lines=_usage_lines(rows, names),
        figures=(
            charts.spend(
                charts.by_base(store, store.reads.usage(by_minute=True, since=now - _FIGURE_WINDOW)),
                charts.colours_of(store),
                now,
            ),
        ),
    )


def _usage_lines(rows: Sequence[UsageRow], names: dict[str, str]) -> tuple[pages.UsageLine, ...]:
    groups: dict[tuple[str, str, str], list[UsageRow]] = {}
    for row in rows:
        groups.setdefault((row.job_id, row.model, row.stage), []).append(row)
    return tuple(
        pages.UsageLine(
            owner=link_to(job_id, names.get(job_id)),
            model=model,
            stage=stage,
            useful_flops=sum(row.flops for row in group if row.outcome == "useful"),
            wasted_flops=sum(row.flops for row in group if row.outcome != "useful"),
            usd=amount_of(Currency.usd, group),
            prompt_tokens=sum(row.prompt_tokens for row in group),
            completion_tokens=sum(row.completion_tokens for row in group),
            gpu_s=sum(row.gpu_s for row in group),
            cpu_s=sum(row.cpu_s for row in group),
        )
        for (job_id, model, stage), group in sorted(
            groups.items(), key=lambda item: -sum(row.flops for row in item[1] if not math.isnan(row.flops))
        )
    )
