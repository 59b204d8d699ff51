"""Verbs about training sets and students: select, selections, finetune, finetunes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli_output import EXIT_BY_PHASE, ExitCode, JsonFlag, client_of, is_terminal, print_json, print_lines, table
from api.cli_watch import PLAIN_INTERVAL_S
from service import wording

if TYPE_CHECKING:
    from api.client_artifacts import Artifact

WatchFlag = Annotated[bool, typer.Option("--watch", help="Show it until it ends.")]
KeyOption = Annotated[str | None, typer.Option("--key", help="Idempotency key: the same key makes one.")]
_FILES = (".yaml", ".yml", ".json")


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    for verb in (select, selections, finetune, finetunes):
        app.command()(verb)


def select(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="JOB|FILE... [FIELD=VALUE]...", help="e.g. job-3-a1b2c3 keep=verified per_problem=4"),
    ],
    watch: WatchFlag = False,
    key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a training set of the samples of finished jobs."""
    jobs, document = split_words(words)
    if jobs:
        document["sources"] = [*document.get("sources", []), *({"job": job} for job in jobs)]
    with client_of(context, is_json=as_json) as client:
        made = client.selections.create(document, idempotency_key=key)
        raise typer.Exit(show_artifact(made, is_watching=watch, is_json=as_json))


def selections(
    context: typer.Context,
    selection: Annotated[str | None, typer.Argument(metavar="[SELECTION]", help="One in full.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show training sets."""
    with client_of(context, is_json=as_json) as client:
        if selection is not None:
            found = client.selections.get(selection).document
            print_json(found) if as_json else print_lines(_selection_lines(found))
            return
        listed = [item.document for item in client.selections.list(limit=limit)]
        rows = [(d["id"], _word(d), "" if d["rows"] is None else f"{d['rows']:,}", d["name"]) for d in listed]
        header = ("selection", "phase", "rows", "name")
        print_json(listed) if as_json else print_lines(table(header, rows, right=(2,)))


def finetune(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="BASE DATASET|FILE [FIELD=VALUE]...", help="e.g. lab/small select-4-d4e5f6 preset=tiny"),
    ],
    watch: WatchFlag = False,
    key: KeyOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Train a student on a selection; its checkpoints become models that jobs can name."""
    names, document = split_words(words)
    if len(names) not in (0, 2):
        raise typer.BadParameter(f"got {len(names)} names, allowed: a base and a selection, or a file")
    if names:
        document |= {"base": names[0], "dataset": names[1]}
    with client_of(context, is_json=as_json) as client:
        made = client.finetunes.create(document, idempotency_key=key)
        raise typer.Exit(show_artifact(made, is_watching=watch, is_json=as_json))


def finetunes(
    context: typer.Context,
    run: Annotated[str | None, typer.Argument(metavar="[FINETUNE]", help="One in full.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show students."""
    with client_of(context, is_json=as_json) as client:
        if run is not None:
            found = client.finetunes.get(run).document
            print_json(found) if as_json else print_lines(_finetune_lines(found))
            return
        listed = [item.document for item in client.finetunes.list(limit=limit)]
        rows = [
            (
                d["id"],
                _word(d),
                f"{d['steps_done']:,} of {d['steps']:,}",
                _loss(d),
                wording.flops(d["flops"]),
                d["name"],
            )
            for d in listed
        ]
        header = ("finetune", "phase", "steps", "loss", "FLOPs", "name")
        print_json(listed) if as_json else print_lines(table(header, rows, right=(2, 3, 4)))


def watch_artifact(artifact: "Artifact", *, is_json: bool) -> ExitCode:
    """Shows an artifact until it ends; the exit code says how it ended."""
    last, shown_at = "", float("-inf")
    try:
        for document in artifact.watch():
            text, now = _line(artifact), time.monotonic()
            if is_json:
                print_json(document)
            elif text != last and (artifact.is_over or now - shown_at >= (0.0 if is_terminal() else PLAIN_INTERVAL_S)):
                typer.echo(text)
                last, shown_at = text, now
    except KeyboardInterrupt:
        typer.echo(f"\ndetached; it goes on. `isoflop watch {artifact.id}` shows it again", err=True)
        return ExitCode.cancelled
    return EXIT_BY_PHASE[artifact.phase]


def selection_line(document: dict[str, Any]) -> str:
    """`select-4-d4e5f6 succeeded: 1,012 rows of 20,000`."""
    parts = [f"{document['id']} {_word(document)}"]
    if document["rows"] is not None:
        considered = next(iter(document["rows_after"].values()), document["rows"])
        parts.append(f"{document['rows']:,} rows of {considered:,.0f}")
    return ": ".join(parts) + (f": {document['error']}" if document["error"] else "")


def finetune_line(document: dict[str, Any]) -> str:
    """`finetune-5-a1b2c3 running: 40 of 200 steps, loss 0.53, 1.20e12 FLOPs`."""
    parts = [f"{document['steps_done']:,} of {wording.plural(document['steps'], 'step')}"]
    if document["loss"] is not None:
        parts.append(f"loss {_loss(document)}")
    if document["checkpoints"]:
        parts.append(wording.plural(len(document["checkpoints"]), "checkpoint"))
        parts.append(f"{wording.flops(document['flops'])} FLOPs")
    line = f"{document['id']} {_word(document)}: {', '.join(parts)}"
    return f"{line}: {document['error']}" if document["error"] else line


def show_artifact(artifact: "Artifact", *, is_watching: bool, is_json: bool) -> ExitCode:
    """Says what was submitted, or shows it until it ends."""
    if is_watching:
        return watch_artifact(artifact, is_json=is_json)
    if is_json:
        print_json(artifact.document)
    else:
        typer.echo(f"{_line(artifact)}  {artifact.document['name']}")
        typer.echo(f"next: isoflop watch {artifact.id}")
    return ExitCode.done


def evaluation_line(document: dict[str, Any]) -> str:
    """`evaluate-5-a1b2c3 running: greedy .632`."""
    found = [f"{result['measure']} {wording.share(result['accuracy']['value'])}" for result in document["results"]]
    line = f"{document['id']} {_word(document)}" + (f": {', '.join(found)}" if found else "")
    return f"{line}: {document['error']}" if document["error"] else line


def comparison_line(document: dict[str, Any]) -> str:
    """`compare-5-a1b2c3 running: 12 of 44 nodes, 3.10e12 FLOPs, train/self/small@4/seed-0`."""
    active = [child["key"] for child in document["children"] if child["phase"] in ("preparing", "running")]
    spent = wording.flops(sum(document["flops_by_stage"].values()))
    parts = [f"{document['nodes_done']:,} of {wording.plural(document['nodes'], 'node')}", f"{spent} FLOPs"]
    line = f"{document['id']} {_word(document)}: {', '.join([*parts, *active[:2]])}"
    return f"{line}: {document['error']}" if document["error"] else line


def _line(artifact: "Artifact") -> str:
    lines: dict[str, Callable[[dict[str, Any]], str]] = {
        "select": selection_line,
        "finetune": finetune_line,
        "evaluate": evaluation_line,
        "compare": comparison_line,
    }
    return lines[artifact.id.partition("-")[0]](artifact.document)


def split_words(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Names, and the document that a file and FIELD=VALUE words make together; the latter win."""
    from api.job_files import apply_override, read_job_file

    names: list[str] = []
    document: dict[str, Any] = {}
    for word in words:
        if "=" in word:
            continue
        if word.endswith(_FILES):
            document |= read_job_file(Path(word))
        else:
            names.append(word)
    for word in words:
        if "=" in word:
            apply_override(document, word)
    return names, document


def _selection_lines(document: dict[str, Any]) -> list[str]:
    made = document["document"]
    lines = [
        selection_line(document),
        f"  name         {document['name']}",
        f"  sources      {', '.join(source['job'] for source in made['sources'])}",
    ]
    lines += [f"  {name:<12} {rows:,.0f} rows left" for name, rows in document["rows_after"].items()]
    return lines if document["path"] is None else [*lines, f"  file         {document['path']}"]


def _finetune_lines(document: dict[str, Any]) -> list[str]:
    made = document["document"]
    training = ", ".join(f"{name} {value}" for name, value in made["training"].items() if value is not None)
    return [
        finetune_line(document),
        f"  name         {document['name']}",
        f"  base         {made['base']}",
        f"  dataset      {made['dataset']}",
        f"  training     {training}",
        *(f"  checkpoint   {c['model']}  loss {_loss(c) or 'unknown'}  {c['path']}" for c in document["checkpoints"]),
    ]


def _loss(document: dict[str, Any]) -> str:
    return "" if document["loss"] is None else f"{document['loss']:.4g}"


def _word(document: dict[str, Any]) -> str:
    return wording.state_word(wording.JOB_WORDS, document["phase"]).word
