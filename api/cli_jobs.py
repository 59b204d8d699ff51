"""Verbs about jobs: submit, status, watch, cancel, pause, resume, events, samples, metrics, usage."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli_artifacts import watch_artifact
from api.cli_output import JsonFlag, client_of, print_json, print_lines, state_of, table
from api.cli_watch import ending_line, progress_words, spent_words, watch_job
from service import wording

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, from `isoflop status`.")]
MAX_TEXT = 500


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    for verb in (submit, status, watch, cancel, pause, resume, events, samples, metrics, usage):
        app.command()(verb)


def submit(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="JOB.YAML", help="The job file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="e.g. budget.flops=2e12 seed=1")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show the job until it ends.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan and price only; nothing is stored.")] = False,
    key: Annotated[
        str | None, typer.Option("--key", help="Idempotency key: the same key and file make one job.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Submit a job file."""
    from api.job_files import read_job_file

    state_of(context).is_json = as_json
    document = read_job_file(file, overrides or [])
    with client_of(context, is_json=as_json) as client:
        if dry_run:
            plan = client.jobs.plan(document)
            print_json(plan) if as_json else print_lines(_plan_lines(plan))
            return
        job = client.jobs.create(document, idempotency_key=key)
        if as_json and not watch:
            print_json(job.document)
        elif not as_json:
            typer.echo(f"{job.id}  {job.document['name']}  {spent_words(job.document['progress'])}")
            if not watch:
                typer.echo(f"next: isoflop watch {job.id}")
        if watch:
            raise typer.Exit(watch_job(client, job.id, is_json=as_json))


def status(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="One job in full.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Jobs to list.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show how the service and its jobs are."""
    with client_of(context, is_json=as_json) as client:
        if job is not None:
            document = client.jobs.get(job).document
            print_json(document) if as_json else print_lines(_job_lines(document))
            return
        health = client.health()
        jobs = [found.document for found in client.jobs.list(limit=limit)]
        if as_json:
            print_json({"url": client.base_url, "health": health, "jobs": jobs})
            return
        pulse = f"last tick {wording.duration(health['tick_age_s'])} ago"
        typer.echo(f"{client.base_url}  {health['status']}, {pulse}, {health['cluster']}")
        if not jobs:
            typer.echo("no job yet; `isoflop submit job.yaml` makes one")
            return
        header = ("job", "phase", "samples", "used", "left", "name")
        print_lines(table(header, [_job_row(document) for document in jobs], right=(2, 3, 4)))


def watch(context: typer.Context, job: JobArgument, as_json: JsonFlag = False) -> None:
    """Show a job, selection or finetune until it ends. Ctrl-C detaches; it goes on."""
    with client_of(context, is_json=as_json) as client:
        if (artifacts := client.artifacts_of(job)) is not None:
            raise typer.Exit(watch_artifact(artifacts.get(job), is_json=as_json))
        raise typer.Exit(watch_job(client, client.jobs.get(job).id, is_json=as_json))


def cancel(context: typer.Context, job: JobArgument, as_json: JsonFlag = False) -> None:
    """End a job, selection or finetune: what runs is dropped, what is finished is kept."""
    _act(context, job, "cancel", as_json)


def pause(context: typer.Context, job: JobArgument, as_json: JsonFlag = False) -> None:
    """Finish running samples and start no new ones; stop a finetune at its next step."""
    _act(context, job, "pause", as_json)


def resume(context: typer.Context, job: JobArgument, as_json: JsonFlag = False) -> None:
    """Go on with a paused job or finetune; no sample is drawn twice."""
    _act(context, job, "resume", as_json)


def _act(context: typer.Context, job_id: str, verb: str, as_json: bool) -> None:
    with client_of(context, is_json=as_json) as client:
        artifacts = client.artifacts_of(job_id)
        document = (artifacts.act(job_id, verb) if artifacts else getattr(client.jobs, verb)(job_id)).document
        if as_json:
            print_json(document)
        else:
            typer.echo(f"{document['id']}  asked to {document['desired']}, is {document['phase']}")


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
    by: Annotated[str, typer.Option(help="Any of job, model, stage, outcome, by commas.")] = "job,model,stage,outcome",
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
                wording.duration(entry["busy_s"]),
            ]
            for entry in found
        ]
        header = (*keys, "samples", "completion tokens", "FLOPs", "busy")
        print_lines(table(header, rows, right=range(len(keys), len(keys) + 4)))


def _job_row(document: dict[str, Any]) -> tuple[str, ...]:
    progress = document["progress"]
    return (
        document["id"],
        wording.state_word(wording.JOB_WORDS, document["phase"]).word,
        wording.count(progress["samples"]),
        wording.percent(progress["budget"]["used_fraction"], digits=0),
        "" if progress["eta_s"] is None else wording.duration(progress["eta_s"]),
        document["name"],
    )


def _job_lines(document: dict[str, Any]) -> list[str]:
    progress, flops = document["progress"], document["progress"]["flops"]
    waste = ", ".join(f"{reason} {wording.flops(amount)}" for reason, amount in flops["wasted_by_reason"].items())
    word = wording.state_word(wording.JOB_WORDS, document["phase"])
    lines = [
        f"{document['id']}  {document['name']}",
        f"  phase        {word.word}: {word.sentence}",
        f"  problems     {document['document']['problems']}, {document['num_problems']:,} of them",
        f"  models       {', '.join(document['document']['models'])}",
        f"  progress     {progress_words(progress | {'phase': document['phase']})}",
        f"  FLOPs        {wording.flops(flops['spent'])} spent, {wording.flops(flops['useful'])} useful, "
        f"{wording.flops(flops['wasted'])} wasted{f' ({waste})' if waste else ''}",
        f"  tokens       {progress['prompt_tokens']:,} prompt, {progress['completion_tokens']:,} completion",
        f"  scored       {_scored_words(document)}",
    ]
    if document["error"]:
        lines.append(f"  error        {document['error']}")
    return lines if document["ended_at"] is None else [*lines, f"  ended        {ending_line(document)}"]


def _scored_words(document: dict[str, Any]) -> str:
    if not document["document"]["scorers"]:
        return "nothing, the job has no scorers"
    progress = document["progress"]
    return f"{progress['parts_scored']:,} of {wording.plural(progress['parts'], 'part')}"


def _plan_lines(plan: dict[str, Any]) -> list[str]:
    currency = plan["currency"]
    lines = [
        f"dry run: {plan['document']['name']}",
        f"  problems     {plan['document']['problems']}, {plan['num_problems']:,} of them",
        f"  budget       {wording.amount(plan['limit'], currency)}",
    ]
    for cost in plan["cost_per_sample"]:
        lengths = (
            f"{cost['nominal_prompt_tokens']:,} prompt and {cost['nominal_completion_tokens']:,} completion tokens"
        )
        lines += [
            f"  {cost['model']}",
            f"    worst case   {_price(cost['worst_case_to'], currency)} at most; "
            f"the budget buys at least {wording.plural(cost['samples_at_worst_case'], 'sample')}",
            f"    nominal      {_price(cost['nominal'], currency)} for about {lengths} ({cost['nominal_basis']}); "
            f"about {wording.plural(cost['samples_at_nominal'], 'sample')}",
        ]
    return [*lines, "nothing is stored; without --dry-run it is submitted"]


def _price(cost: float, currency: str) -> str:
    """What a sample takes of the budget; where the budget counts samples, each counts as itself."""
    return "1 of the budget's samples" if currency == "samples" else f"{wording.amount(cost, currency)} a sample"


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
