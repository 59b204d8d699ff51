"""Selections, finetunes, evaluations and comparisons on the terminal: submitted, watched, listed, one in full.

What differs between kinds is a `Shown`, which is beside the verbs of the kind; how it is shown is here.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from api.cli_output import EXIT_BY_PHASE, ExitCode, client_of, is_terminal, print_json, print_lines, table
from api.cli_watch import PLAIN_INTERVAL_S
from service import wording

if TYPE_CHECKING:
    from api.client import Client
    from api.client_artifacts import Artifact, Artifacts
    from api.transport import Document

_FILES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How one kind reads.

    Args:
        noun: what one is called.
        of: the client's collection of them.
        words: what one line says after id and phase.
        columns: of a list, between phase and name; they are aligned right.
        cells: what stands in these columns.
        fields: what one in full says below its line: a word and what is behind it.
        results: what is found so far as lines, of kinds that find something.
    """

    noun: str
    of: Callable[["Client"], "Artifacts"]
    words: Callable[["Document"], list[str]]
    columns: tuple[str, ...] = ()
    cells: Callable[["Document"], tuple[object, ...]] = lambda _: ()
    fields: Callable[["Document"], list[tuple[str, object]]]
    results: Callable[["Document"], list[str]] | None = None


def submit_artifact(
    context: typer.Context,
    shown: Shown,
    document: dict[str, Any],
    *,
    key: str | None,
    is_watching: bool,
    is_json: bool,
) -> None:
    """Submits one and says so, or shows it until it ends, and then what it has found; the exit code says how it ended.

    Raises:
        typer.Exit: always.
    """
    with client_of(context, is_json=is_json) as client:
        made = shown.of(client).create(document, idempotency_key=key)
        if not is_watching:
            if is_json:
                print_json(made.document)
            else:
                typer.echo(f"{_line(shown, made.document)}  {made.document['name']}")
                typer.echo(f"next: isoflop watch {made.id}")
            raise typer.Exit(ExitCode.done)
        code = watch_artifact(shown, made, is_json=is_json)
        if shown.results is not None and made.is_over:
            found = shown.of(client).results(made.id)
            print_json(made.document | {"results": found}) if is_json else print_lines(shown.results(found))
        raise typer.Exit(code)


def watch_artifact(shown: Shown, artifact: "Artifact", *, is_json: bool) -> ExitCode:
    """Shows one until it ends; the exit code says how it ended."""
    last, shown_at = "", float("-inf")
    try:
        for document in artifact.watch():
            text, now = _line(shown, document), time.monotonic()
            if is_json:
                print_json(document)
            elif text != last and (artifact.is_over or now - shown_at >= (0.0 if is_terminal() else PLAIN_INTERVAL_S)):
                typer.echo(text)
                last, shown_at = text, now
    except KeyboardInterrupt:
        typer.echo(f"\ndetached; it goes on. `isoflop watch {artifact.id}` shows it again", err=True)
        return ExitCode.cancelled
    return EXIT_BY_PHASE[artifact.phase]


def show_artifacts(context: typer.Context, shown: Shown, one: str | None, *, limit: int, is_json: bool) -> None:
    """One in full with what it has found so far, or the latest."""
    with client_of(context, is_json=is_json) as client:
        if one is not None:
            _show_one(shown, shown.of(client), one, is_json=is_json)
            return
        listed = [item.document for item in shown.of(client).list(limit=limit)]
        if is_json:
            print_json(listed)
            return
        header = (shown.noun, "phase", *shown.columns, "name")
        rows = [(d["id"], phase_word(d), *shown.cells(d), d["name"]) for d in listed]
        print_lines(table(header, rows, right=range(2, 2 + len(shown.columns))))


def _show_one(shown: Shown, artifacts: "Artifacts", one: str, *, is_json: bool) -> None:
    document = artifacts.get(one).document
    results = None if shown.results is None else artifacts.results(one)
    if is_json:
        print_json(document if results is None else document | {"results": results})
        return
    fields = [("name", document["name"]), *shown.fields(document)]
    lines = [_line(shown, document), *(f"  {word:<12} {text}" for word, text in fields)]
    if shown.results is not None and results is not None:
        lines += ["", *shown.results(results)]
    print_lines(lines)


def _line(shown: Shown, document: "Document") -> str:
    """`finetune-5-a1b2c3 running: 40 of 200 steps, loss 0.53, 1.20e12 FLOPs`."""
    parts = [f"{document['id']} {phase_word(document)}", ", ".join(shown.words(document)), document["error"]]
    return ": ".join(part for part in parts if part)


def phase_word(document: "Document") -> str:
    """The phase as people read it."""
    return wording.state_word(wording.JOB_WORDS, document["phase"]).word


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


def document_of_two(words: list[str], fields: tuple[str, str], allowed: str) -> dict[str, Any]:
    """The document of words that name two fields, or neither and a file instead.

    Raises:
        typer.BadParameter: another number of names.
    """
    names, document = split_words(words)
    if len(names) not in (0, 2):
        raise typer.BadParameter(f"got {len(names)} names, allowed: {allowed}, or a file")
    return document | dict(zip(fields, names, strict=False))
