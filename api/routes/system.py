"""/metrics, /healthz, /readyz: for machines that watch the service."""

import math
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from api.context import AppContext, Context
from api.routes.usage import sum_usage
from api.version import VERSION
from api.wire.jobs import HealthOut

router = APIRouter(tags=["service"])
_USAGE_FAMILIES = {
    "samples": ("isoflop_samples", "Samples."),
    "prompt_tokens": ("isoflop_prompt_tokens", "Prompt tokens."),
    "completion_tokens": ("isoflop_completion_tokens", "Completion tokens."),
    "flops": ("isoflop_flops", "Forward FLOPs, exact accounting."),
    "busy_s": ("isoflop_busy_seconds", "Seconds of engines, trainers and scorers."),
    "gpu_s": ("isoflop_gpu_seconds", "Busy seconds times GPUs held."),
    "cpu_s": ("isoflop_cpu_seconds", "Busy seconds times cores held, of what held no GPU."),
    "usd": ("isoflop_usd", "Price of tokens in USD, of models that have one."),
}


@router.get("/healthz", responses={503: {"model": HealthOut, "description": "The control loop is silent."}})
def get_health(context: Context, response: Response) -> HealthOut:
    """The control loop's pulse: 503 when it has been silent for too long. Engines may still be loading."""
    health = health_of(context)
    if health.status == "silent":
        response.status_code = 503
    return health


@router.get("/readyz", responses={503: {"model": HealthOut, "description": "Not ready."}})
def get_ready(context: Context, response: Response) -> HealthOut:
    """Whether jobs would be worked on: the loop has ticked, is not draining, and the database answers."""
    health = health_of(context)
    context.store.reads.events(limit=1)
    if health.status != "ok" or health.is_draining:
        response.status_code = 503
    return health


def health_of(context: AppContext) -> HealthOut:
    """The loop's pulse now."""
    status, settings = context.controller_status(), context.settings
    age_s = (datetime.now(UTC) - context.started_at).total_seconds()
    if status.last_tick_at is None:
        word = "starting" if age_s < settings.start_grace_s else "silent"
    else:
        word = "ok" if status.tick_age_s <= settings.max_tick_age_s else "silent"
    return HealthOut(
        status=word,
        tick_age_s=status.tick_age_s,
        num_ticks=status.num_ticks,
        num_errors=status.num_errors,
        is_draining=status.is_draining,
        cluster=status.cluster,
        version=VERSION,
    )


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def get_prometheus(context: Context) -> Response:
    """Everything for Prometheus, read from the ledger's rollups when asked."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StoreCollector(context))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class _StoreCollector(Collector):
    def __init__(self, context: AppContext) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        yield from self._loop()
        yield from self._usage()
        yield from self._jobs()
        yield from self._hosts()

    def _loop(self) -> Iterator[Metric]:
        status = self._context.controller_status()
        yield GaugeMetricFamily("isoflop_tick_age_seconds", "Since the control loop last looked.", status.tick_age_s)
        yield CounterMetricFamily("isoflop_ticks", "Ticks of the control loop.", status.num_ticks)
        yield CounterMetricFamily("isoflop_tick_errors", "Ticks that failed.", status.num_errors)
        yield CounterMetricFamily("isoflop_tick_cpu_seconds", "Processor time of ticks.", status.cpu_s)
        yield GaugeMetricFamily("isoflop_draining", "1 while the controller hands work back.", status.is_draining)

    def _usage(self) -> Iterator[Metric]:
        sums = sum_usage(self._context.store.reads.usage(), ["model", "stage", "outcome"])
        for amount, (name, text) in _USAGE_FAMILIES.items():
            family = CounterMetricFamily(name, text, labels=["model", "stage", "outcome"])
            for entry in sums:
                if math.isnan(entry[amount]):
                    continue  # what is not known has no series
                family.add_metric([entry["model"], entry["stage"], entry["outcome"]], entry[amount])
            yield family

    def _jobs(self) -> Iterator[Metric]:
        by_phase = GaugeMetricFamily("isoflop_jobs", "All jobs, by phase.", labels=["phase"])
        for phase, number in self._context.store.reads.count_jobs().items():
            by_phase.add_metric([phase], number)
        yield by_phase
        accounts = GaugeMetricFamily(
            "isoflop_budget", "Accounts of jobs that run, in ledger units.", labels=["job", "currency", "part"]
        )
        for job_id, account in self._context.store.reads.active_accounts().items():
            parts = {"limit": account.limit or 0, "spent": account.spent, "reserved": account.reserved}
            parts |= {"exceeded": account.exceeded} if account.currency.is_soft else {}
            for part, amount in parts.items():
                accounts.add_metric([job_id, account.currency, part], amount)
        yield accounts

    def _hosts(self) -> Iterator[Metric]:
        wanted = GaugeMetricFamily("isoflop_pool_replicas", "Engines wanted while there is work.", labels=["model"])
        for pool in self._context.store.catalogue.pools():
            wanted.add_metric([pool.model], pool.replicas)
        yield wanted
        living = Counter(
            (host.kind.value, host.model or "", host.state.value)
            for host in self._context.store.reads.hosts()
            if host.ended_at is None
        )
        hosts = GaugeMetricFamily("isoflop_hosts", "Living hosts.", labels=["kind", "model", "state"])
        for labels, number in sorted(living.items()):
            hosts.add_metric(list(labels), number)
        yield hosts
        held = CounterMetricFamily(
            "isoflop_held_device_seconds",
            "Time that hosts held devices, by what they did with it; as of their last reading.",
            labels=["kind", "model", "device", "part"],
        )
        for time in self._context.store.reads.device_time():
            for part, seconds in time.parts().items():
                held.add_metric([time.kind.value, time.model or "", time.device, part], seconds)
        yield held
