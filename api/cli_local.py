"""Verbs that run in this process: up, verify, grade, flops, doctor. Each imports what it needs when it runs."""

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli_output import ExitCode, JsonFlag, print_json, print_lines, state_of, table
from service import wording
from service.errors import InvalidInput


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    for verb in (up, verify, grade, flops, doctor):
        app.command()(verb)


def up(
    context: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on; loopback only.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")] = None,
    root: Annotated[
        list[Path] | None, typer.Option("--root", help="Directory that models and problems may come from; repeatable.")
    ] = None,
    num_cpus: Annotated[int | None, typer.Option(min=1, help="Logical CPUs of the embedded cluster.")] = None,
    engine_places: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most engines of a node at the same time; without it one a GPU, or one a logical CPU where there is "
            "no GPU. Never more than that.",
        ),
    ] = None,
    use_ray: Annotated[
        bool, typer.Option("--ray/--no-ray", help="Without Ray, engines are threads of this process, for debugging.")
    ] = True,
) -> None:
    """Run the service: database, Ray, API and dashboard, until Ctrl-C."""
    settings = settings_of(
        data_dir=state_of(context).data_dir,
        host=host,
        port=port,
        roots=tuple(root) if root else None,
        engine_places=engine_places,
    )
    check_places(settings.data_dir, settings.roots)
    from api import main

    raise typer.Exit(main.up(settings, use_ray=use_ray, num_cpus=num_cpus))


def check_places(data_dir: Path, roots: tuple[Path, ...]) -> None:
    """Makes the data directory, and sees that everything a service reads and writes is there.

    Raises:
        InvalidInput: a place that is none, or that this user may not use.
    """
    for root in roots:
        if not root.is_dir():
            raise InvalidInput(f"root: got {str(root)!r}: no such directory; allowed: directories that exist")
    if data_dir.exists() and not data_dir.is_dir():
        raise InvalidInput(
            f"data directory: got {str(data_dir)!r}, which is no directory; allowed: one that can be written"
        )
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"data directory: got {str(data_dir)!r}: {error.strerror}; allowed: a directory that can be written"
        ) from error
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise InvalidInput(f"data directory: got {str(data_dir)!r}, allowed: a directory that can be written")


_ENDPOINTS = (
    "ISOFLOP_ENDPOINTS: got something else, which is not repeated here, for a key may be in it; allowed: JSON of "
    'addresses with the names of the variables that hold their keys, e.g. {"https://api.example.com/v1": "API_KEY"}'
)


def settings_of(**fields: Any) -> Any:
    """Settings from the environment with options over them.

    Raises:
        InvalidInput: a setting that is not allowed.
    """
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from service.config import Settings

    try:
        return Settings(**{name: value for name, value in fields.items() if value is not None})
    except SettingsError:  # no JSON, where there should be some
        raise InvalidInput(_ENDPOINTS) from None
    except ValidationError as error:
        from api.problem import field_problems, field_text

        errors = error.errors()
        others = [each for each in errors if each["loc"][:1] != ("endpoints",)]
        texts = [_ENDPOINTS] if len(others) < len(errors) else []
        raise InvalidInput("; ".join([*texts, *([field_text(field_problems(others))] if others else [])])) from None


def verify(
    context: typer.Context,
    job: Annotated[str, typer.Argument(metavar="JOB|DIRECTORY", help="A job's id, or its directory.")],
    as_json: JsonFlag = False,
) -> None:
    """Check a job from its files alone: hashes, plan, FLOPs, ledger."""
    state_of(context).is_json = as_json
    from service.verify import verify_directory

    report = verify_directory(job_directory(job, state_of(context).data_dir))
    if as_json:
        print_json(dataclasses.asdict(report) | {"is_ok": report.is_ok})
    else:
        for fault in report.faults:
            typer.echo(f"fault     {fault}")
        word = "ok" if report.is_ok else wording.plural(len(report.faults), "fault")
        agrees = "ledger agrees with files" if report.is_ok else "files, plan and ledger do not agree"
        typer.echo(
            f"verify    {word}: {report.rows:,} rows in {wording.plural(report.shards, 'shard')}, "
            f"{report.score_rows:,} scores, {wording.flops(report.recomputed_flops)} FLOPs from token counts, {agrees}"
        )
    raise typer.Exit(ExitCode.done if report.is_ok else ExitCode.failed)


def job_directory(job: str, data_dir: Path | None) -> Path:
    """Where a job's files are: the directory itself, or that of the id under the data directory.

    Raises:
        InvalidInput: neither exists.
    """
    if Path(job).is_dir():
        return Path(job)
    from service.planner.submit import job_dir

    base = settings_of(data_dir=data_dir).data_dir
    found = Path(job_dir(str(base), job))
    if "/" in job or not found.is_dir():
        raise InvalidInput(
            f"verify: got {job!r}, allowed: a directory, or a job with files in {base / 'jobs'} (--data-dir)"
        )
    return found


def grade(
    context: typer.Context,
    input: Annotated[Path, typer.Option("--input", help="JSONL with completion and reference in each row.")],
    output: Annotated[Path, typer.Option("--output", help="JSONL to write: the same rows with verdicts.")],
    scorer: Annotated[str, typer.Option(help="math_answer, math_latex, steps or yes_no.")] = "math_answer",
    as_json: JsonFlag = False,
) -> None:
    """Grade completions of a file; needs no service."""
    state_of(context).is_json = as_json
    from api.local.grade import grade_file

    summary = grade_file(scorer=scorer, input=input, output=output)
    if as_json:
        print_json(dataclasses.asdict(summary) | {"output": str(summary.output)})
        return
    found = ", ".join(f"{number:,} {word}" for word, number in sorted((summary.verdicts | summary.steps).items()))
    typer.echo(f"{summary.rows:,} rows: {found or 'none'}; written to {summary.output}")


def flops(
    context: typer.Context,
    config: Annotated[
        Path, typer.Option("--config", help="A config.json, or the directory of a model or a LoRA adapter.")
    ],
    prompt_tokens: Annotated[int, typer.Option("--prompt-tokens", help="Length of the prompt.")],
    completion_tokens: Annotated[int, typer.Option("--completion-tokens", help="Length of each sample.")],
    samples: Annotated[int, typer.Option("--samples", help="Samples of the problem.")] = 1,
    base: Annotated[Path | None, typer.Option("--base", help="Base of an adapter, if not the one it names.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Price one problem on a model from its config alone. Needs no weights and no service."""
    state_of(context).is_json = as_json
    from api.local.flops import flops_report

    report = flops_report(config, prompt_tokens, completion_tokens, samples, base=base)
    print_json(report.to_json()) if as_json else typer.echo(report.to_text())


def doctor(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Check what this machine has and lacks. Takes half a minute, for engines are slow to import."""
    state_of(context).is_json = as_json
    settings = settings_of(data_dir=state_of(context).data_dir)
    from api.local.doctor import examine

    checks = examine(data_dir=settings.data_dir, host=settings.host, port=settings.port)
    if as_json:
        print_json([dataclasses.asdict(check) for check in checks])
    else:
        print_lines(table(("check", "state", ""), [(check.name, check.state, check.sentence) for check in checks]))
    raise typer.Exit(ExitCode.failed if any(check.state == "failed" for check in checks) else ExitCode.done)
