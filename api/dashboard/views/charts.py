"""Figures of the pages from rollups, parts and metrics.

Cost follows minutes and parts; the one figure that needs rows (completion lengths) reads each committed file once and
keeps its counts. Computes no statistics: intervals come with the metrics.
"""

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from api.progress import amount_of
from service import figures
from service.currency import Currency, in_currency, stated
from service.devices import DeviceTime
from service.errors import CorruptFile
from service.jobs import Job
from service.metrics import MetricsSummary
from service.stats import Estimate
from service.store import Store
from service.store.reads import Part, UsageRow
from service.work import TaskKind

MAX_POINTS = 200
NUM_BINS = 24
_MINUTES_SHOWN = 120

Counts = npt.NDArray[np.int64]
"""Samples by completion length, shape [2, longest + 1]: those that ended by themselves, and truncated ones."""


def colours_of(store: Store) -> dict[str, str]:
    """The colour of every model. A student has that of its pool, and so have all students of a base together."""
    models = store.catalogue.models()
    colours = figures.assign_colours([model.name for model in models if not model.is_student])
    students = {model.name: colours.get(model.pool, figures.NEUTRAL) for model in models if model.is_student}
    return students | {students_of(name): colour for name, colour in colours.items()} | colours


def students_of(base: str) -> str:
    """What all checkpoints of a base are called together, where there may be hundreds."""
    return f"students of {base}"


def by_base(store: Store, usage: Iterable[UsageRow]) -> list[UsageRow]:
    """The same usage with one name for all students of a base."""
    names = {model.name: students_of(model.pool) for model in store.catalogue.models() if model.is_student}
    return [replace(row, model=names.get(row.model, row.model)) for row in usage]


def spend(usage: Iterable[UsageRow], colours: Mapping[str, str], now: datetime) -> figures.Figure:
    """FLOPs by minute while that fits, else by hour; always the whole history it is given."""
    rows = [row for row in usage if row.bucket is not None and row.flops > 0]
    oldest = min((row.bucket for row in rows if row.bucket is not None), default=now)
    is_by_minute = now - oldest <= timedelta(minutes=_MINUTES_SHOWN)
    buckets = [
        figures.SpendBucket(
            start=row.bucket if is_by_minute else row.bucket.replace(minute=0, second=0, microsecond=0),
            model=row.model,
            stage=row.stage,
            flops=row.flops,
        )
        for row in rows
        if row.bucket is not None
    ]
    return figures.spend_figure(buckets, colours, bucket="minute" if is_by_minute else "hour")


def time_today(usage: Iterable[UsageRow], now: datetime) -> DeviceTime:
    """What devices worked since midnight UTC."""
    today = [row for row in usage if row.bucket is not None and row.bucket.date() == now.date()]
    return DeviceTime(gpu_s=sum(row.gpu_s for row in today), cpu_s=sum(row.cpu_s for row in today))


def burn_down(
    job: Job, parts: Sequence[Part], *, currency: Currency, reserved: float, limit: float, unit: str
) -> figures.Figure:
    """What was spent at each commit, thinned to `MAX_POINTS`."""
    amounts = np.cumsum([stated(currency, in_currency(currency, part.usage)) for part in parts])
    chosen = np.unique(np.linspace(0, len(parts) - 1, min(MAX_POINTS, len(parts))).astype(int)) if parts else []
    start = [figures.BudgetPoint(at=job.created_at, spent=0.0)] if parts else []
    points = [figures.BudgetPoint(at=parts[i].committed_at, spent=float(amounts[i])) for i in chosen]
    return figures.burn_down_figure([*start, *points], reserved=reserved, limit=limit, unit=unit)


def quality(
    job: Job, summary: MetricsSummary | None, colours: Mapping[str, str], *, has_steps: bool
) -> tuple[figures.Figure, figures.Figure]:
    """Coverage (with verified coverage where steps are judged) and diversity against FLOPs.

    A uniform job shows what k samples give on average; another one what it had at each moment.
    """
    model = job.spec.models[0] if len(job.spec.models) == 1 else ""
    metrics = ["coverage", *(["verified_coverage"] if has_steps else [])]
    if summary is None:
        curves: dict[str, figures.Curve] = {}
    elif job.spec.allocation.is_even:
        curves = {metric: expected(metric, model, summary) for metric in (*metrics, "diversity")}
    else:
        curves = {metric: realised(metric, model, summary) for metric in (*metrics, "diversity")}
    return (
        figures.coverage_figure([curves[m] for m in metrics if m in curves], colours, accounting="exact"),
        figures.diversity_figure(
            [curves["diversity"]] if "diversity" in curves else [], colours, accounting="exact", rule="exact text"
        ),
    )


_NAMES = {"coverage": "coverage", "verified_coverage": "verified", "diversity": "unique correct"}
_REALISED_FIELDS = {
    "coverage": "coverage",
    "verified_coverage": "verified_coverage",
    "diversity": "unique_solutions_per_problem",
}


def expected(metric: str, model: str, summary: MetricsSummary) -> figures.Curve:
    """What k samples a problem give on average, and cost."""
    points: list[figures.CurvePoint] = []
    for point in summary.curve:
        value = getattr(point, metric)
        if isinstance(value, Estimate):
            points.append(
                figures.CurvePoint(
                    flops=point.flops_per_problem,
                    value=value.value,
                    low=value.low,
                    high=value.high,
                    k=point.k,
                    num_problems=value.n,
                )
            )
    return figures.Curve(name=_NAMES[metric], model=model, points=tuple(points))


def realised(metric: str, model: str, summary: MetricsSummary) -> figures.Curve:
    """What there was at each moment."""
    points = tuple(
        figures.CurvePoint(
            flops=point.flops_per_problem,
            value=getattr(point, _REALISED_FIELDS[metric]),
            low=None,
            high=None,
            k=round(point.num_samples / summary.num_problems),
            num_problems=summary.num_problems,
        )
        for point in summary.realised_curve
    )
    return figures.Curve(name=f"{_NAMES[metric]}, realised", model=model, points=points)


class LengthCache:
    """Completion lengths of committed files. A committed file never changes, so each is read once. Thread-safe."""

    def __init__(self, *, capacity: int = 50_000) -> None:
        self._counts: dict[str, Counts] = {}
        self._capacity = capacity
        self._lock = threading.Lock()

    def figure(self, parts: Sequence[Part], colours: Mapping[str, str], *, arms: Sequence[str] = ()) -> figures.Figure:
        """The histogram of a job's generate parts.

        Args:
            colours: of models, or of the arms that are named.
            arms: those to tell apart, in their order, and no others; by model if none is.

        Raises:
            CorruptFile: a committed file is missing or unreadable.
        """
        by_name: dict[str, list[Counts]] = {name: [] for name in arms}
        for part in parts:
            if not arms or part.arm in arms:
                by_name.setdefault(part.arm if arms else part.model, []).append(self._of(part))
        longest = max((counts.shape[1] for found in by_name.values() for counts in found), default=1)
        width = max(1, -(-longest // NUM_BINS))
        bins: list[figures.LengthBin] = []
        for name, found in by_name.items():
            total = np.zeros((2, width * NUM_BINS), dtype=np.int64)
            for counts in found:
                total[:, : counts.shape[1]] += counts
            binned = total.reshape(2, NUM_BINS, width).sum(axis=2)
            bins += [
                figures.LengthBin(
                    name=name,
                    low=i * width,
                    high=(i + 1) * width,
                    stopped=int(binned[0, i]),
                    truncated=int(binned[1, i]),
                )
                for i in range(NUM_BINS)
                if i * width < longest
            ]
        return figures.length_figure(bins, colours, of="arm" if arms else "model")

    def _of(self, part: Part) -> Counts:
        with self._lock:
            known = self._counts.get(part.path)
        if known is not None:
            return known
        fresh = _read_lengths(part.path)
        with self._lock:
            while len(self._counts) >= self._capacity:
                del self._counts[next(iter(self._counts))]
            self._counts[part.path] = fresh
        return fresh


def _read_lengths(path: str) -> Counts:
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(columns=["completion_tokens", "finish_reason"])
    except (OSError, pa.ArrowInvalid) as error:
        raise CorruptFile(f"{path}: committed but not readable: {error}; run `isoflop verify`") from error
    lengths = table["completion_tokens"].to_numpy()
    is_cut = np.asarray(pc.equal(table["finish_reason"], "length").to_numpy(zero_copy_only=False), dtype=bool)
    size = int(lengths.max(initial=0)) + 1
    return np.stack([np.bincount(lengths[~is_cut], minlength=size), np.bincount(lengths[is_cut], minlength=size)])


def spent_today(usage: Iterable[UsageRow], now: datetime) -> tuple[float, float]:
    """FLOPs settled since midnight UTC as far as they are known, and the share of them that was waste."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    today = [row for row in usage if row.bucket is not None and row.bucket >= midnight]
    today = [row for row in today if not math.isnan(row.flops)]
    total = amount_of(Currency.flops, today)
    wasted = amount_of(Currency.flops, (row for row in today if row.outcome != "useful"))
    return total, wasted / total if total else 0.0


def generate_parts(store: Store, job_id: str) -> list[Part]:
    """Committed sample files of a job, in the order of commitment."""
    return store.reads.parts(job_id, TaskKind.generate)
