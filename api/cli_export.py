"""The verb that takes a training set out of the service: a folder to keep, and its upload where one is asked for.

The folder is written by the command, on its own machine and as its user, from the files that the service names: no
request carries a path to write to. What would fail at the end, such as an upload without a token, is refused before
anything is written.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli_output import JsonFlag, client_of, print_json, print_lines
from service import wording
from service.errors import InvalidInput

if TYPE_CHECKING:
    from api.client_artifacts import Artifact
    from service.selection.export import Exported, Hub


class ReasoningChoice(StrEnum):
    """What becomes of a thinking model's reasoning."""

    KEEP = "keep"
    STRIP = "strip"


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command()(export)


def export(
    context: typer.Context,
    selection: Annotated[str, typer.Argument(help="Id of a selection that succeeded.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder; named like the selection without it.")
    ] = None,
    push: Annotated[
        str | None,
        typer.Option("--push", metavar="OWNER/NAME", help="Upload it as a dataset of the Hugging Face hub, private."),
    ] = None,
    reasoning: Annotated[
        ReasoningChoice, typer.Option(help="Whether a thinking model's reasoning stays in: keep or strip.")
    ] = ReasoningChoice.KEEP,
    public: Annotated[bool, typer.Option("--public", help="Let everybody see the upload.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a training set as a Hugging Face dataset folder, with a card and where its rows come from."""
    if public and push is None:
        raise typer.BadParameter("--public says how to upload, and needs --push OWNER/NAME")
    with client_of(context, is_json=as_json) as client:
        made = client.selections.get(selection)
        made.training_set_path()  # refused here, before a hub is asked for anything
        hub = None if push is None else _hub_for(push)
        is_kept = output is not None or push is None
        with _folder(output, selection, is_kept=is_kept) as folder:
            written = _write(made, folder, reasoning)
            address = None
            if push is not None:
                from service.selection.export import push_dataset

                address = push_dataset(folder, push, is_private=not public, api=hub)
        _show(written, address, is_kept=is_kept, as_json=as_json)


def _hub_for(repo_id: str) -> "Hub":
    from service.selection.export import check_repo_name, signed_in_hub

    check_repo_name(repo_id)
    return signed_in_hub()


def _write(made: "Artifact", folder: Path, reasoning: ReasoningChoice) -> "Exported":
    try:
        return made.export(folder, reasoning=reasoning.value)
    except OSError as error:
        raise InvalidInput(f"output: {folder} cannot be written: {error.strerror or error}") from error


def _show(written: "Exported", address: str | None, *, is_kept: bool, as_json: bool) -> None:
    folder = written.folder if is_kept else None
    if as_json:
        made = {"folder": folder, "rows": written.rows, "dropped": written.dropped}
        print_json(made | {"files": list(written.files), "address": address})
        return
    num_files = sum(name.startswith("data/") for name in written.files)
    lines = [f"rows     {written.rows:,} in {wording.plural(num_files, 'file')}, with a card and a lineage"]
    if written.dropped:
        lines.append(f"dropped  {wording.plural(written.dropped, 'row')} of which nothing or the same was left")
    lines += [] if folder is None else [f"folder   {folder}"]
    lines += [] if address is None else [f"pushed   {address}"]
    source = folder if address is None else address.removeprefix("https://huggingface.co/datasets/")
    lines.append(f"next: datasets.load_dataset({source!r}, split='train').select_columns(['prompt', 'completion'])")
    print_lines(lines)


@contextmanager
def _folder(output: Path | None, name: str, *, is_kept: bool) -> Iterator[Path]:
    """Where it is written: a folder to keep, or one for an upload that is gone afterwards."""
    if is_kept:
        yield output or Path(name)
        return
    with tempfile.TemporaryDirectory(prefix="isoflop-export-") as directory:
        yield Path(directory) / name
