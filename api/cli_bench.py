"""`isoflop bench`: how fast this machine is. Each verb starts what it measures itself; docs/performance.md explains.

Numbers are for an otherwise idle machine; every result carries the load it began with. Here are the verbs that start
the service; those that measure a part of it are in `cli_bench_parts`.
"""

from typing import Annotated

import typer

from api import cli_bench_gpu, cli_bench_parts
from api.cli_bench_output import Keep, measured
from api.cli_output import JsonFlag, print_lines, table

bench = typer.Typer(no_args_is_help=True, help="Measure speed on this machine.")


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    cli_bench_parts.register(bench)
    cli_bench_gpu.register(bench)
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
    from api.local.bench_throughput import bench_throughput

    result = measured(
        context,
        keep,
        as_json=as_json,
        measure=lambda directory: bench_throughput(
            directory, num_pairs=pairs, seconds=seconds, num_problems=problems, is_scored=scoring
        ),
    )
    if result is None:
        return
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
def peer(
    context: typer.Context,
    pairs: Annotated[int, typer.Option(min=1, help="Times both sides run.")] = 3,
    problems: Annotated[int, typer.Option(min=1, max=2000, help="Problems, each drawn 16 times.")] = 400,
    batch_size: Annotated[
        list[int] | None, typer.Option(min=1, help="Batch sizes of the peer to try; repeat it. 64 and 256 without.")
    ] = None,
    keep: Keep = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure the service against `ray.data.llm`: completion tokens a second from the first to the last row."""
    from api.local.bench_peer import bench_peer

    result = measured(
        context,
        keep,
        as_json=as_json,
        measure=lambda directory: bench_peer(
            directory, num_pairs=pairs, num_problems=problems, batch_sizes=tuple(batch_size or (64, 256))
        ),
    )
    if result is None:
        return
    rows = [
        (
            number,
            f"{pair.service.tokens / pair.service.drawing_s:,.0f}",
            f"{pair.peer.tokens / pair.peer.seconds:,.0f}",
            f"{pair.ratio:.3f}",
            f"{pair.peer.tokens / pair.peer.total_s:,.0f}",
        )
        for number, pair in enumerate(result.pairs, start=1)
    ]
    print_lines(table(("pair", "service tok/s", "peer tok/s", "ratio", "peer with start"), rows, right=range(5)))
    tried = ", ".join(f"{size}: {rate:,.0f}" for size, rate in result.tried.items())
    typer.echo(f"batches  {tried} tokens/s; {result.batch_size} is used")
    typer.echo(f"ratio    {result.ratio.to_text(3)}; goal 1.5")


@bench.command()
def start(
    context: typer.Context,
    repeats: Annotated[int, typer.Option(min=1, help="Times to start.")] = 3,
    keep: Keep = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure seconds until the service answers and until an engine is ready."""
    from api.local.bench_start import bench_start

    result = measured(context, keep, as_json=as_json, measure=lambda directory: bench_start(directory, repeats))
    if result is None:
        return
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
    from api.local.bench_control_plane import bench_control_plane

    result = measured(context, keep, as_json=as_json, measure=lambda directory: bench_control_plane(directory, samples))
    if result is None:
        return
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
