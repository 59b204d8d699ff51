"""Verbs about jobs, and about whatever else is under way: submit, status, watch, cancel, pause, resume."""

from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli_artifacts import FINETUNES, SELECTIONS
from api.cli_compare import COMPARISONS
from api.cli_evaluate import EVALUATIONS
from api.cli_output import (
    DryRunFlag,
    JobArgument,
    JsonFlag,
    KeyOption,
    LimitOption,
    WatchFlag,
    client_of,
    device_words,
    print_json,
    print_lines,
    state_of,
    table,
)
from api.cli_shown import watch_artifact
from api.cli_watch import ending_line, progress_words, spent_words, watch_job
from service import wording

SHOWN = {"select": SELECTIONS, "finetune": FINETUNES, "evaluate": EVALUATIONS, "compare": COMPARISONS}
"""What is watched by what its id begins with, if it is no job."""


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    for verb in (submit, status, watch, cancel, pause, resume):
        app.command()(verb)


def submit(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="JOB.YAML", help="The job file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="e.g. budget.flops=2e12 seed=1")
    ] = None,
    watch: WatchFlag = False,
    dry_run: DryRunFlag = False,
    key: KeyOption = None,
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
    limit: LimitOption = 20,
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
        header = ("job", "phase", "samples", "used", "left", "device time", "name")
        print_lines(table(header, [_job_row(document) for document in jobs], right=(2, 3, 4, 5)))


def watch(context: typer.Context, job: JobArgument, as_json: JsonFlag = False) -> None:
    """Show a job, selection or finetune until it ends. Ctrl-C detaches; it goes on."""
    with client_of(context, is_json=as_json) as client:
        if (shown := SHOWN.get(job.partition("-")[0])) is not None:
            raise typer.Exit(watch_artifact(shown, shown.of(client).get(job), is_json=as_json))
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
        document = (client.artifacts_of(job_id) or client.jobs).act(job_id, verb).document
        if as_json:
            print_json(document)
        else:
            typer.echo(f"{document['id']}  asked to {document['desired']}, is {document['phase']}")


def _job_row(document: dict[str, Any]) -> tuple[str, ...]:
    progress = document["progress"]
    return (
        document["id"],
        wording.state_word(wording.JOB_WORDS, document["phase"]).word,
        wording.count(progress["samples"]),
        wording.percent(progress["budget"]["used_fraction"], digits=0) if progress["budget"]["limit"] else "imported",
        "" if progress["eta_s"] is None else wording.duration(progress["eta_s"]),
        device_words(progress["devices"]),
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
        f"  device time  {device_words(progress['devices'], by_stage=True)}",
        f"  tokens       {progress['prompt_tokens']:,} prompt, {progress['completion_tokens']:,} completion",
        f"  price        {wording.usd(progress['usd'])}",
        f"  scored       {_scored_words(document)}",
    ]
    lines += _arm_lines(document)
    lines += _import_lines(document["imported"])
    if document["error"]:
        lines.append(f"  error        {document['error']}")
    return lines if document["ended_at"] is None else [*lines, f"  ended        {ending_line(document)}"]


def _arm_lines(document: dict[str, Any]) -> list[str]:
    """What each arm of several has drawn."""
    arms, currency = document["arms"], document["progress"]["budget"]["currency"]
    if not arms:
        return []
    rows = [
        (
            arm["name"],
            wording.count(arm["samples"]),
            "unknown" if arm["spent"] is None else wording.amount(arm["spent"], currency),
            wording.percent(arm["truncated"] / arm["samples"]) if arm["samples"] else "",
        )
        for arm in arms
    ]
    lines = table(("arm", "samples", "spent", "cut"), rows, right=(1, 2, 3))
    return [f"  {line}" for line in lines]


def _import_lines(imported: dict[str, Any] | None) -> list[str]:
    """Where an import's samples come from, and what they once cost."""
    if imported is None:
        return []
    files = [f"  imported     {file['name']}, sha256 {file['sha256']}" for file in imported["files"]]
    return [*files, f"  FLOPs, once  {wording.flops(imported['flops'])}, tokens by {imported['tokens']}"]


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
    if currency == "gpu_hours":
        lines.append("               soft: what runs when it is used up is finished; a sample has no price in it")
    adapted = {arm["model"]: arm["adapter_on"] for arm in plan["arms"] if arm["adapter_on"]}
    lines += [f"  adapter      {model}, merged into {base}: a token costs the same" for model, base in adapted.items()]
    for cost in plan["cost_per_sample"]:
        lengths = (
            f"{cost['nominal_prompt_tokens']:,} prompt and {cost['nominal_completion_tokens']:,} completion tokens"
        )
        lines += [
            f"  {cost['arm']}",
            f"    price        {_price_words(cost)}",
            f"    worst case   {_price(cost['worst_case_to'], currency)} at most; "
            f"the budget buys at least {_bought(cost['samples_at_worst_case'])}",
            f"    nominal      {_price(cost['nominal'], currency)} for about {lengths} ({cost['nominal_basis']}); "
            f"about {_bought(cost['samples_at_nominal'])}",
        ]
    for arm in plan["arms"]:
        told = ", ".join(f"{name} {value}" for name, value in arm["sampling"].items() if value not in (None, []))
        lines.append(f"  sampling     {arm['name']}: {told}")
    lines += _first_prompts(plan["arms"])
    return [*lines, "nothing is stored; without --dry-run it is submitted"]


def _bought(number: int | None) -> str:
    return "any number of samples" if number is None else wording.plural(number, "sample")


def _price_words(cost: dict[str, Any]) -> str:
    """What a million tokens cost, and the dearest sample."""
    price = cost["price"]
    if price is None:
        return "none was stated"
    cached = "" if price["cached_usd"] is None else f", {price['cached_usd']:g} cached"
    return (
        f"{price['input_usd']:g} USD for a million prompt tokens{cached}, {price['output_usd']:g} for completion; "
        f"a sample at most {wording.usd(cost['worst_case_usd'])}"
    )


def _first_prompts(arms: list[dict[str, Any]]) -> list[str]:
    """Each text once, with the arms that begin with it."""
    lines: list[str] = []
    for text, reason in dict.fromkeys((arm["first_prompt"], arm["not_shown"]) for arm in arms):
        names = [arm["name"] for arm in arms if (arm["first_prompt"], arm["not_shown"]) == (text, reason)]
        whose = "  first prompt" if len(names) == len(arms) else f"  first prompt of {', '.join(names)}"
        lines.append(whose if reason is None else f"{whose} not shown: {reason}")
        lines += [f"    | {line}" for line in (text or "").splitlines()]
    return lines


def _price(cost: float, currency: str) -> str:
    """What a sample takes of the budget; where the budget counts samples, each counts as itself."""
    return "1 of the budget's samples" if currency == "samples" else f"{wording.amount(cost, currency)} a sample"
