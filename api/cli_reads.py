"""Verbs that say what jobs did: events, samples, metrics, usage."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from api.cli_output import JobArgument, JsonFlag, client_of, print_json, print_lines, table
from service import wording

MAX_TEXT = 500


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    for verb in (events, samples, metrics, usage):
        app.command()(verb)


def events(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Only this job's.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only events after this id.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Show what has happened."""
    with client_of(context, is_json=as_json) as client:
        found = client.events(after=after, job=job)
        if as_json:
            print_json(found)
            return
        rows = [(e["id"], e["at"][:19], e["job_id"] or "", e["kind"], e["message"]) for e in found]
        print_lines(table(("id", "at (UTC)", "job", "kind", "what"), rows, right=(0,)))


def samples(
    context: typer.Context,
    job: JobArgument,
    verdict: Annotated[
        str | None, typer.Option(help="correct, incorrect, false_positive, truncated, failed, ...")
    ] = None,
    problem: Annotated[str | None, typer.Option(help="Only this problem id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 10,
    as_json: JsonFlag = False,
) -> None:
    """Show samples with their verdicts. With --json one sample a line."""
    with client_of(context, is_json=as_json) as client:
        for sample in client.jobs.samples(job, verdict=verdict, problem=problem, limit=limit):
            print_json(sample) if as_json else print_lines(_sample_lines(sample))


def metrics(context: typer.Context, job: JobArgument, as_json: JsonFlag = False) -> None:
    """Show coverage, diversity, false positives. Each with its cost."""
    with client_of(context, is_json=as_json) as client:
        found = client.jobs.metrics(job)
        print_json(found) if as_json else print_lines(_metric_lines(found))


def usage(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Only this job's.")] = None,
    by: Annotated[
        str, typer.Option(help="Any of job, model, arm, stage, outcome, by commas.")
    ] = "job,model,stage,outcome",
    as_json: JsonFlag = False,
) -> None:
    """Show what was used."""
    with client_of(context, is_json=as_json) as client:
        found = client.usage(by=by.split(","), job=job)
        if as_json:
            print_json(found)
            return
        keys = [key for key in by.split(",") if key]
        rows = [
            [
                *(entry[key] for key in keys),
                wording.count(entry["samples"]),
                wording.count(entry["completion_tokens"]),
                wording.flops(entry["flops"]),
                wording.usd(entry["usd"]),
                wording.duration(entry["busy_s"]),
                wording.device_hours(entry["gpu_s"], entry["cpu_s"]),
            ]
            for entry in found
        ]
        header = (*keys, "samples", "completion tokens", "FLOPs", "price", "busy", "device time")
        print_lines(table(header, rows, right=range(len(keys), len(keys) + 6)))


def _sample_lines(sample: dict[str, Any]) -> list[str]:
    verdicts = ", ".join(
        f"{score['scorer']} {score['verdict'] or score['steps']}"
        + (f" (answer {score['predicted_answer']})" if score["predicted_answer"] else "")
        for score in sample["scores"]
    )
    text = sample["error"] or sample["completion"]
    shown = text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
    head = (
        f"{sample['problem_id']} #{sample['sample_index']}  {sample['model']}  {verdicts or 'no scores'}  "
        f"{sample['completion_tokens']} tokens, {wording.flops(sample['flops'])} FLOPs, {sample['finish_reason']}"
    )
    return [head, *(f"    {line}" for line in shown.splitlines()), ""]


def _measured(value: dict[str, Any], write: Callable[[float], str] = "{:.4g}".format) -> str:
    if "reason" in value:
        return f"not measured: {value['reason']}"
    return f"{write(value['value'])} [{write(value['low'])}, {write(value['high'])}]"


def _metric_lines(found: dict[str, Any]) -> list[str]:
    summary = found["summary"]
    if not found["scorers"]:
        return ["not measured: the job has no scorers"]
    if summary is None:
        return ["nothing is scored yet; metrics appear with the first scored part"]
    correct = summary["num_correct"]
    names = {
        "realised_coverage": "pass@k (coverage), all samples",
        "realised_verified_coverage": "verified pass@k, all samples",
        "realised_unique_exact": "unique correct per problem",
        "false_positive_rate": "false positives among correct",
        "truncated_share": "truncated",
        "flops_per_problem": "FLOPs per problem",
        "flops_per_correct": "FLOPs per correct sample",
        "flops_per_unique_correct": "FLOPs per unique correct",
    }
    rows: list[tuple[str, str]] = [
        ("problems", f"{summary['num_problems']:,}"),
        ("samples", f"{found['num_scored']:,} of {found['num_samples']:,} scored"),
        ("correct samples", f"{correct:,}" if isinstance(correct, int) else _measured(correct)),
        ("FLOPs", wording.flops(summary["total_flops"])),
    ]
    rows += [(f"pass@{point['k']}", _measured(point["estimate"])) for point in summary["coverage"]]
    for name, label in names.items():
        write = wording.flops if name.startswith("flops") else "{:.4g}".format
        rows.append((label, _measured(summary[name], write)))
    return table(("metric", "value [95 % interval]"), rows)
