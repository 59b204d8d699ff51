"""`isoflop bench`: how fast this machine is. Each verb starts what it measures itself; docs/performance.md explains.

Numbers are for an otherwise idle machine; every result carries the load it began with.
"""

import dataclasses
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli_output import JsonFlag, print_json, print_lines, state_of, table

bench = typer.Typer(no_args_is_help=True, help="Measure speed on this machine.")
Keep = Annotated[Path | None, typer.Option("--keep", help="New directory for data and logs; a temporary one without.")]


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    app.add_typer(bench, name="bench")


@bench.command()
def throughput(
    context: typer.Context,
    pairs: Annotated[int, typer.Option(min=1, help="Times both sides run.")] = 5,
    seconds: Annotated[float, typer.Option(min=1, help="About how long each side draws.")] = 120.0,
    problems: Annotated[int, typer.Option(min=1, max=2000, help="Problems of the tiny world's training set.")] = 2000,
    scoring: Annotated[
        bool, typer.Option("--scoring/--no-scoring", help="Whether the job is scored meanwhile.")
    ] = True,
    keep: Keep = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure the service against plain vLLM: completion tokens a second."""
    state_of(context).is_json = as_json
    from api.local.bench_throughput import bench_throughput

    with _directory(keep) as directory:
        result = bench_throughput(directory, num_pairs=pairs, seconds=seconds, num_problems=problems, is_scored=scoring)
    if as_json:
        _print_result(result)
        return
    typer.echo(result.machine.to_line())
    rows = [
        (
            number,
            f"{pair.service.tokens / pair.service.seconds:,.0f}",
            f"{pair.plain.tokens / pair.plain.seconds:,.0f}",
            f"{pair.ratio:.3f}",
            f"{pair.drawing_ratio:.3f}",
            f"{pair.service.seconds:.0f}",
            f"{pair.service.scored_s:.0f}",
        )
        for number, pair in enumerate(result.pairs, start=1)
    ]
    header = ("pair", "service tok/s", "plain tok/s", "ratio", "without start", "seconds", "scored after")
    print_lines(table(header, rows, right=range(7)))
    how = f"scored by {', '.join(result.scorers)}" if result.scorers else "not scored"
    how += f", niceness {result.niceness} on both sides"
    typer.echo(f"service        {result.service_tokens_per_s.to_text(0)} completion tokens/s, {how}")
    typer.echo(f"plain vLLM     {result.plain_tokens_per_s.to_text(0)} completion tokens/s")
    typer.echo(f"ratio          {result.ratio.to_text(3)}; goal 0.95")
    typer.echo(f"without start  {result.drawing_ratio.to_text(3)}")


@bench.command()
def start(
    context: typer.Context,
    repeats: Annotated[int, typer.Option(min=1, help="Times to start.")] = 3,
    keep: Keep = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure seconds until the service answers and until an engine is ready."""
    state_of(context).is_json = as_json
    from api.local.bench_start import bench_start

    with _directory(keep) as directory:
        result = bench_start(directory, repeats)
    if as_json:
        _print_result(result)
        return
    typer.echo(result.machine.to_line())
    typer.echo(f"service answers  {result.healthz.to_text()} s; goal 5 s")
    typer.echo(f"engine ready     {result.actor.to_text()} s after it was asked for; goal 20 s")
    typer.echo(f"of which load    {result.load.to_text()} s")


@bench.command("control-plane")
def control_plane(
    context: typer.Context,
    samples: Annotated[int, typer.Option(min=1000, help="Samples of the largest job.")] = 1_000_000,
    keep: Keep = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure what the control loop costs a sample, and its memory, with a simulated model."""
    state_of(context).is_json = as_json
    from api.local.bench_control_plane import bench_control_plane

    with _directory(keep) as directory:
        result = bench_control_plane(directory, samples)
    if as_json:
        _print_result(result)
        return
    typer.echo(result.machine.to_line())
    rows = [
        (
            f"{row.samples:,}",
            f"{row.seconds:.1f}",
            f"{row.tick_us_per_sample:.1f}",
            f"{row.process_cpu_s / row.samples * 1e6:.1f}",
            f"{row.ticks:,}",
            f"{row.tick_cpu_s / row.ticks * 1e3:.1f}",
            f"{row.rss_mib:.0f}",
            f"{row.scoring_busy_s / row.samples * 1e6:.1f}",
        )
        for row in result.rows
    ]
    header = (
        "samples",
        "seconds",
        "loop us/sample",
        "process us/sample",
        "ticks",
        "ms/tick",
        "RSS MiB",
        "scoring us/sample",
    )
    print_lines(table(header, rows, right=range(8)))
    typer.echo(
        f"RSS before {result.rss_idle_mib:.0f} MiB; goals: 50 us of the loop a sample, memory that does not grow"
    )


@bench.command()
def scoring(
    context: typer.Context,
    rows: Annotated[int, typer.Option(min=1, help="Synthetic solutions to grade.")] = 50_000,
    repeats: Annotated[int, typer.Option(min=1, help="Times to grade them.")] = 3,
    marked: Annotated[
        bool, typer.Option("--marked/--in-words", help="Completions end in `#### 18`, or say the answer in words.")
    ] = True,
    as_json: JsonFlag = False,
) -> None:
    """Measure the answer scorer on one core."""
    state_of(context).is_json = as_json
    from api.local.bench_machine import Spread, this_machine
    from api.local.bench_scoring import bench_math_answer

    machine = this_machine()
    result = bench_math_answer(rows, repeats, is_marked=marked)
    if as_json:
        print_json(dataclasses.asdict(result) | {"machine": dataclasses.asdict(machine)})
        return
    speed = Spread.of([rows / seconds for seconds in result.seconds])
    typer.echo(machine.to_line())
    typer.echo(
        f"{result.scorer}  {speed.to_text(0)} rows/s on one core, {result.rows:,} rows of {result.mean_chars:.0f} "
        "characters; goal 30,000"
    )


@bench.command()
def selection(
    context: typer.Context,
    samples: Annotated[int, typer.Option(min=1000, help="Synthetic samples of two jobs together.")] = 1_000_000,
    keep: Keep = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure seconds and memory to make training sets of many samples."""
    state_of(context).is_json = as_json
    from api.local.bench_selection import bench_selection

    with _directory(keep) as directory:
        result = bench_selection(directory, samples)
    if as_json:
        _print_result(result)
        return
    typer.echo(result.machine.to_line())
    typer.echo(
        f"{result.samples:,} samples of {result.problems:,} problems, {result.num_bytes / 2**20:,.0f} MiB of files"
    )
    rows = [
        (
            run.variant,
            f"{run.seconds:.1f}",
            f"{run.cpu_s:.1f}",
            f"{run.peak_mib:,.0f}",
            f"{(run.peak_mib - run.idle_mib) * 2**20 / result.samples:,.0f}",
            f"{run.filters['keep']:,}",
            f"{run.rows:,}",
        )
        for run in result.runs
    ]
    header = ("selection", "seconds", "CPU s", "peak MiB", "bytes/sample", "after keep", "rows")
    print_lines(table(header, rows, right=range(1, 7)))
    typer.echo("goals for 1,000,000 samples: 60 s, 2,048 MiB")


def _print_result(result: Any) -> None:
    print_json(dataclasses.asdict(result))


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    """Where a benchmark puts its data: kept if it was named, else gone afterwards.

    SIGTERM becomes an exit, so that a benchmark that is ended takes the service that it started with it.
    """
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="isoflop-bench-") as name:
        yield Path(name)
