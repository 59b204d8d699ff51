"""Verbs of `isoflop bench` that measure a part without the service: files, scorers, reports, training, engines."""

import dataclasses
from typing import Annotated

import typer

from api.cli_bench_output import Keep, measured
from api.cli_output import JsonFlag, print_json, print_lines, state_of, table


def register(bench: typer.Typer) -> None:
    """Adds the verbs."""
    for verb in (scoring, latex, selection, report, finetune, swap):
        bench.command()(verb)
    bench.command("import")(import_files)
    bench.command("long-samples")(long_samples)


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


def latex(
    context: typer.Context,
    rows: Annotated[int, typer.Option(min=1, help="Completions in each repeat's mix.")] = 4000,
    repeats: Annotated[int, typer.Option(min=1, help="Mixes to grade.")] = 5,
    solutions: Annotated[
        bool, typer.Option("--solutions/--bare", help="Completions are solutions, or the boxed answer alone.")
    ] = True,
    as_json: JsonFlag = False,
) -> None:
    """Measure the LaTeX scorer against math-verify alone on one core."""
    state_of(context).is_json = as_json
    from api.local.bench_latex import bench_latex
    from api.local.bench_machine import Spread, this_machine

    machine = this_machine()
    result = bench_latex(rows, repeats, is_bare=not solutions)
    if as_json:
        print_json(dataclasses.asdict(result) | {"machine": dataclasses.asdict(machine)})
        return
    typer.echo(machine.to_line())
    typer.echo(
        f"{result.rows:,} completions of {result.mean_chars:.0f} characters; {result.judged_share:.1%} were judged"
    )
    rates = {"math_latex": result.scorer_rows_per_second, "math-verify": result.math_verify_rows_per_second}
    wrong = {"math_latex": result.scorer_wrong, "math-verify": result.math_verify_wrong}
    table_rows = [(name, Spread.of(values).to_text(0), f"{wrong[name]}") for name, values in rates.items()]
    print_lines(table(("", "rows/s on one core", "wrong verdicts"), table_rows))
    typer.echo(f"ratio {Spread.of(result.ratios).to_text(1)}; goal 10")
    for row in result.disagreements:
        typer.echo(f"differ: {row.reference}  {row.answer}  {row.scorer}, math-verify {row.math_verify}")


def selection(
    context: typer.Context,
    samples: Annotated[int, typer.Option(min=1000, help="Synthetic samples of two jobs together.")] = 1_000_000,
    keep: Keep = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure seconds and memory to make training sets of many samples."""
    from api.local.bench_selection import bench_selection

    result = measured(context, keep, as_json=as_json, measure=lambda directory: bench_selection(directory, samples))
    if result is None:
        return
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


def import_files(
    context: typer.Context,
    samples: Annotated[int, typer.Option(min=1000, help="Synthetic completions in each kind of file.")] = 1_000_000,
    keep: Keep = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure seconds and memory to import many completions, and which part of it counting tokens takes."""
    from api.local.bench_import import bench_import

    result = measured(context, keep, as_json=as_json, measure=lambda directory: bench_import(directory, samples))
    if result is None:
        return
    typer.echo(
        f"{result.samples:,} completions of {result.mean_chars:.0f} characters, {result.problems:,} problems, "
        f"{result.num_bytes / 2**20:,.0f} MiB of JSONL"
    )
    rows = [
        (
            run.variant,
            f"{run.seconds:.1f}",
            f"{run.read_s:.1f}",
            f"{run.tokens_s:.1f}",
            f"{run.tokens_s / run.seconds:.0%}",
            f"{run.cpu_s:.1f}",
            f"{run.peak_mib:,.0f}",
            f"{run.tokens:,}",
        )
        for run in result.runs
    ]
    header = ("files", "seconds", "first pass s", "tokens s", "of all", "CPU s", "peak MiB", "tokens")
    print_lines(table(header, rows, right=range(1, 8)))
    typer.echo("goals for 1,000,000 completions: 60 s, 2,048 MiB")


def report(
    context: typer.Context,
    samples: Annotated[int, typer.Option(min=1000, help="Synthetic samples of each of two jobs.")] = 1_000_000,
    repeats: Annotated[int, typer.Option(min=1, help="Times to make the report.")] = 3,
    keep: Keep = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure seconds and memory to make the report of two large jobs."""
    from api.local.bench_report import bench_report

    result = measured(
        context, keep, as_json=as_json, measure=lambda directory: bench_report(directory, samples, repeats)
    )
    if result is None:
        return
    typer.echo(
        f"2 jobs of {result.samples:,} samples over {result.problems:,} problems, "
        f"{result.num_bytes / 2**20:,.0f} MiB of files; page of {result.runs[0].html_bytes / 2**20:.1f} MiB"
    )
    typer.echo(f"seconds   {result.seconds.to_text(1)}; goal for 1,000,000 samples 60")
    typer.echo(f"CPU s     {result.cpu_s.to_text(1)}")
    typer.echo(f"peak MiB  {result.peak_mib.to_text(0)}, {result.runs[0].idle_mib:.0f} of it imports; goal 2,048")


def finetune(
    context: typer.Context,
    pairs: Annotated[int, typer.Option(min=1, help="Times both sides train.")] = 5,
    steps: Annotated[int, typer.Option(min=8, help="Optimizer steps of a run.")] = 60,
    keep: Keep = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure a finetune against TRL's trainer used plainly: processor time of a step and of a run."""
    from api.local.bench_finetune import bench_finetune

    result = measured(
        context,
        keep,
        as_json=as_json,
        measure=lambda directory: bench_finetune(directory, num_pairs=pairs, steps=steps),
    )
    if result is None:
        return
    rows = [
        (
            number,
            f"{pair.ours.step_cpu_s * 1e3:.1f}",
            f"{pair.plain.step_cpu_s * 1e3:.1f}",
            f"{pair.ours.step_cpu_s / pair.plain.step_cpu_s:.3f}",
            f"{pair.ours.cpu_s:.1f}",
            f"{pair.plain.cpu_s:.1f}",
            f"{pair.ours.cpu_s / pair.plain.cpu_s:.3f}",
        )
        for number, pair in enumerate(result.pairs, start=1)
    ]
    header = ("pair", "step ms", "plain step ms", "ratio", "run CPU s", "plain run CPU s", "ratio")
    print_lines(table(header, rows, right=range(7)))
    typer.echo(f"{result.model}, {result.steps} steps and {result.checkpoints} checkpoints a run, ours over plain TRL:")
    typer.echo(f"step   {result.step_ratio.to_text(3)} of processor time; goal 1.05")
    typer.echo(f"run    {result.run_ratio.to_text(3)} of processor time, {result.clock_ratio.to_text(3)} on the clock")


def swap(
    context: typer.Context,
    swaps: Annotated[int, typer.Option(min=1, help="Swaps of each model.")] = 20,
    keep: Keep = None,
    as_json: JsonFlag = False,
) -> None:
    """Measure seconds to give a running engine the weights of another checkpoint."""
    from api.local.bench_swap import bench_swap

    result = measured(context, keep, as_json=as_json, measure=lambda directory: bench_swap(directory, swaps))
    if result is None:
        return
    rows = [
        (run.model, f"{run.weight_bytes / 2**20:.2f}", f"{run.load_s:.1f}", run.spread.to_text(3))
        for run in result.runs
    ]
    print_lines(table(("model", "MiB", "new engine s", "swap s"), rows, right=range(1, 3)))


def long_samples(
    context: typer.Context,
    engines: Annotated[int, typer.Option(min=1, max=64, help="Engines.")] = 8,
    sequences: Annotated[int, typer.Option(min=1, help="Sequences that run in an engine at once.")] = 256,
    mean: Annotated[float, typer.Option(min=2, help="Mean tokens of a completion.")] = 6000.0,
    limit: Annotated[int, typer.Option(min=3, help="Most tokens of a completion.")] = 32_768,
    budget: Annotated[
        float, typer.Option(min=0.01, help="Budget in worst cases of all that runs in the engines at once.")
    ] = 30.0,
    step: Annotated[int, typer.Option(min=1, help="Tokens of a sequence between two looks of the control loop.")] = 256,
    models: Annotated[int, typer.Option(min=1, max=8, help="Models, each with so many engines.")] = 1,
    keep: Keep = None,
    as_json: JsonFlag = False,
) -> None:
    """Simulate how full engines stay while a budget is spent on long samples: real control loop, virtual clock."""
    from api.local.bench_long_samples import LongSamples, bench_long_samples

    given = LongSamples(
        engines=engines,
        max_num_seqs=sequences,
        mean_tokens=mean,
        max_tokens=limit,
        budget_worst=budget,
        step_tokens=step,
        models=tuple(f"model-{number}" for number in range(1, models + 1)),
    )
    result = measured(context, keep, as_json=as_json, measure=lambda directory: bench_long_samples(directory, given))
    if result is None:
        return
    typer.echo(f"{result.samples:,} samples in {result.hours:.1f} simulated hours, {result.looks:,} looks")
    typer.echo(f"busy    {result.busy:.1%} of the sequences until 95 % of the budget were spent; goal 95 %")
    typer.echo(f"        by twentieths: {' '.join(f'{share:.0%}' for share in result.busy_bands)}")
    typer.echo(f"end     the last 5 % take {result.last_share_of_time:.0%} of the time")
    typer.echo(f"spent   {result.spent:.3%} of the budget")
    typer.echo(
        f"length  {result.mean_tokens:,.0f} ± {1.96 * result.standard_error:,.0f} tokens (95 %), "
        f"truly {result.true_mean_tokens:,.0f}"
    )
