"""The record of a GPU benchmark: JSON with everything, and a Markdown table for people.

Model FLOPs utilisation (MFU) is counted FLOPs a second over a peak. Two peaks are given, because they answer two
questions: the data sheet's is what others compare with, a large matrix product's is what this card reaches.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from api.local.bench_gpu import DrawingResult, GpuResult
from api.local.bench_gpu_training import TrainingComparison
from api.local.bench_machine import Spread

RECORD_FILE = "record.json"
TABLE_FILE = "table.md"


def write_record(directory: Path, result: GpuResult) -> None:
    """Writes both files."""
    record = json.dumps(dataclasses.asdict(result), indent=1)
    (directory / RECORD_FILE).write_text(record + "\n")
    (directory / TABLE_FILE).write_text("\n".join(to_markdown(result)) + "\n")


def to_markdown(result: GpuResult) -> list[str]:
    """Lines of the table, and of what it was measured on."""
    card = result.card
    peak = "no peak known" if card.peak_flops_per_second is None else f"peak {card.peak_flops_per_second / 1e12:.0f}"
    lines = [
        f"{card.name}, {card.memory_gib:.0f} GiB, driver {card.driver}; bfloat16 TFLOP/s: {peak} by the data sheet "
        f"(dense), {result.matmul_flops_per_second / 1e12:.0f} measured in a product of 8192 x 8192.",
        "",
        result.machine.to_line() + ".",
        "",
    ]
    lines += _table(_DRAWING_HEADER, [row for drawn in result.drawing for row in _drawing_rows(drawn, result)])
    if result.training:
        lines += ["", *_table(_TRAINING_HEADER, [_training_row(trained, result) for trained in result.training])]
    return lines


_DRAWING_HEADER = ("shape", "side", "tokens/s", "of plain", "MFU, data sheet", "MFU, measured peak", "load s", "GPU s")
_TRAINING_HEADER = (
    "shape", "method", "step s", "plain TRL step s", "ratio", "tokens/s", "MFU, data sheet", "peak GiB",
    "plain peak GiB",
)  # fmt: skip


def _drawing_rows(drawn: DrawingResult, result: GpuResult) -> list[tuple[str, ...]]:
    name = f"{drawn.shape} ({drawn.like}, {drawn.parameters / 1e9:.2f} B)"
    whole_rate = Spread.of([pair.service.flops / pair.service.seconds for pair in drawn.pairs]).median
    return [
        (
            name,
            "isoflop, from submission",
            drawn.tokens_per_s.to_text(0),
            drawn.ratio.to_text(3),
            *_utilisation(whole_rate, result),
            f"{drawn.load_s:.1f}",
            f"{drawn.gpu_s:.1f}",
        ),
        (
            name,
            "isoflop, from the first task",
            drawn.drawing_tokens_per_s.to_text(0),
            drawn.drawing_ratio.to_text(3),
            *_utilisation(drawn.flops_per_s.median, result),
            "",
            "",
        ),
        (
            name,
            "plain vLLM",
            drawn.plain_tokens_per_s.to_text(0),
            "1",
            *_utilisation(drawn.plain_flops_per_s.median, result),
            f"{drawn.plain_load_s:.1f}",
            "",
        ),
    ]


def _training_row(trained: TrainingComparison, result: GpuResult) -> tuple[str, ...]:
    step_s = trained.step_s.median
    return (
        f"{trained.shape} ({trained.like})",
        trained.method.value,
        trained.step_s.to_text(3),
        trained.plain_step_s.to_text(3),
        trained.ratio.to_text(3),
        f"{trained.step_tokens / step_s:,.0f}",
        _utilisation(trained.step_flops / step_s, result)[0],
        f"{max(pair.ours.peak_gib for pair in trained.pairs):.1f}",
        f"{max(pair.plain.peak_gib for pair in trained.pairs):.1f}",
    )


def _utilisation(flops_per_second: float, result: GpuResult) -> tuple[str, str]:
    """Shares of the data sheet's peak and of the measured one."""
    peak = result.card.peak_flops_per_second
    of_peak = "not known" if peak is None else f"{flops_per_second / peak:.1%}"
    return of_peak, f"{flops_per_second / result.matmul_flops_per_second:.1%}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows]]
