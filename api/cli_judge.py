"""The verb judge: rows of a selection as questions, and a job in which a model answers them.

Two submissions in a row that could be made one by one; the selection has to be there before the job can name it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli_artifacts import SELECTIONS
from api.cli_output import ExitCode, JsonFlag, KeyOption, WatchFlag, client_of, print_json, state_of
from api.cli_shown import watch_artifact
from api.cli_watch import watch_job
from service.errors import InvalidInput
from service.selection.spec import Keep

if TYPE_CHECKING:
    from api.client import Client
    from api.client_artifacts import Artifact

_KEEPS = (Keep.correct, Keep.verified, Keep.all)


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command()(judge)


def judge(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="JOB... [FIELD=VALUE]...", help="Fields of the judging job, e.g. sampling.max_tokens=8"),
    ],
    model: Annotated[str, typer.Option(help="The judge, a registered model.")],
    votes: Annotated[int, typer.Option(min=1, help="Verdicts a sample; an even number can tie.")] = 1,
    keep: Annotated[Keep, typer.Option(help="Samples to ask about: correct, verified or all.")] = Keep.correct,
    template: Annotated[
        Path | None, typer.Option(help="A text with {question} and {completion}; without it, a general one.")
    ] = None,
    watch: WatchFlag = False,
    key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Have a model judge the samples of finished jobs, for `isoflop select ... keep=judged`."""
    from api.job_files import apply_override

    state_of(context).is_json = as_json
    jobs = [word for word in words if "=" not in word]
    document = _judging_job(model, votes)
    for word in words:
        if "=" in word:
            if word.partition("=")[0] in ("problems", "models"):
                raise InvalidInput(f"{word}: the verb names problems and models itself; allowed: other fields")
            apply_override(document, word)
    if keep not in _KEEPS:
        raise InvalidInput(f"keep: got {keep.value!r}, allowed: {', '.join(_KEEPS)}")
    asked = {
        "name": f"questions to {model}",
        "sources": [{"job": job} for job in jobs],
        "keep": keep.value,
        "ask": "default" if template is None else _text_of(template),
        "held_out": [],
    }
    with client_of(context, is_json=as_json) as client:
        client.models.get(model)  # refused here, before anything is made for it
        selection = _made(client, asked, None if key is None else f"{key}.questions", is_json=as_json)
        name = f"{model} judges {', '.join(jobs)}"[:200]
        job = client.jobs.create({"name": name} | document | {"problems": selection.id}, idempotency_key=key)
        if as_json and not watch:
            print_json(job.document)
        if not as_json:
            typer.echo(f"{job.id}  {model} judges {selection.document['rows']:,} samples of {', '.join(jobs)}")
        code = watch_job(client, job.id, is_json=as_json) if watch else ExitCode.done
        if not as_json:
            typer.echo(f"next: isoflop select {' '.join(jobs)} keep=judged 'judges=[{job.id}]'")
        raise typer.Exit(code)


def _made(client: "Client", document: dict[str, Any], key: str | None, *, is_json: bool) -> "Artifact":
    """The selection, once it is made.

    Raises:
        typer.Exit: it is not, and why is said.
    """
    selection = client.selections.create(document, idempotency_key=key)
    if is_json:
        selection.wait()
    else:
        watch_artifact(SELECTIONS, selection, is_json=False)
    if selection.phase != "succeeded":
        if is_json:
            print_json(selection.document)
        raise typer.Exit(ExitCode.failed)
    return selection


def _judging_job(model: str, votes: int) -> dict[str, Any]:
    return {
        "models": [model],
        "budget": {"samples_per_problem": votes},
        "prompt": {"template": "{question}\n"},
        # one verdict is the model's likeliest, several are opinions
        "sampling": {"temperature": 0.0 if votes == 1 else 0.7},
        "scorers": ["yes_no"],
        "stage": "judge",
    }


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"template: cannot read {path}: {error}") from error
