"""`isoflop import`: completions that exist already become a job."""

from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli_output import JsonFlag, KeyOption, WatchFlag, client_of, print_json, print_lines
from api.cli_watch import watch_job
from service import wording
from service.errors import InvalidInput


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command("import")(import_files)


def import_files(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="JSONL or Parquet files of completions.")],
    problems: Annotated[str, typer.Option("--problems", help="The registered problem set they answer.")],
    model: Annotated[str | None, typer.Option("--model", help="The registered model that wrote them.")] = None,
    model_name: Annotated[
        str | None, typer.Option("--model-name", help="Or the name of one that is not registered.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map", metavar="OURS=THEIRS[,...]", help="e.g. completion=answer,problem_id=task; others are guessed."
        ),
    ] = None,
    scorers: Annotated[list[str] | None, typer.Option("--scorer", help="Repeatable; math_answer without this.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="e.g. sampling.temperature=0.7 prompt.template=...; repeatable."
        ),
    ] = None,
    allow_unmatched: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of rows that may belong to no problem; 0.05.")
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Make error rows of empty completions, which are refused otherwise.")
    ] = False,
    name: Annotated[str | None, typer.Option("--name", help="For people.")] = None,
    watch: WatchFlag = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at every row and say what would be; nothing is stored.")
    ] = False,
    key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a finished job of completions that exist already. Nothing is drawn."""
    from api.job_files import apply_override

    stated = {
        "model": model,
        "model_name": model_name,
        "name": name,
        "scorers": scorers,
        "allow_unmatched": allow_unmatched,
        "allow_empty": allow_empty or None,
    }
    document: dict[str, Any] = {name: value for name, value in stated.items() if value is not None}
    document |= {"files": [str(file.absolute()) for file in files], "problems": problems, "columns": _columns(columns)}
    for override in sets or []:
        apply_override(document, override)
    with client_of(context, is_json=as_json) as client:
        if dry_run:
            plan = client.imports.plan(document)
            print_json(plan) if as_json else print_lines(_plan_lines(plan))
            return
        job = client.imports.create(document, idempotency_key=key)
        made = job.document
        if as_json and not watch:
            print_json(made)
        elif not as_json:
            verb = "importing" if made["is_new"] else "was imported before"
            print_lines([f"{job.id}  {made['name']}  {verb}", *_note_lines(made)])
            if not watch:
                typer.echo(f"next: isoflop watch {job.id}")
        if watch:
            raise typer.Exit(watch_job(client, job.id, is_json=as_json))


def _columns(texts: list[str] | None) -> dict[str, str]:
    """`completion=answer,problem_id=task` as a mapping, ours to theirs."""
    found: dict[str, str] = {}
    for pair in (pair for text in texts or [] for pair in text.split(",")):
        ours, separator, theirs = pair.partition("=")
        if not (separator and ours and theirs):
            raise InvalidInput(f"--map: got {pair!r}, allowed: OURS=THEIRS, several separated by commas")
        found[ours.strip()] = theirs.strip()
    return found


def _note_lines(made: dict[str, Any]) -> list[str]:
    return [f"  {note}" for note in made["notes"]]


def _plan_lines(plan: dict[str, Any]) -> list[str]:
    lines = [
        f"dry run: {plan['document']['name']}",
        f"  {wording.plural(plan['rows'], 'sample')} of {plan['problems_with_samples']:,} of {plan['num_problems']:,} "
        "problems",
        f"  {wording.plural(plan['unmatched'], 'row')} of no problem, {plan['empty']:,} without a completion",
        f"  {wording.plural(plan['repeats'], 'row')} with a completion that another sample of the problem has too",
    ]
    return [*lines, *_note_lines(plan), "nothing is stored; without --dry-run it is imported"]
