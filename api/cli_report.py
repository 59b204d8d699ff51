"""The verb that takes a comparison's report out of the service: HTML, Markdown, JSON and PNG figures in one folder.

The service renders; this command writes what it is given, on its own machine and as its user, and only below the
folder that was asked for.
"""

import io
import zipfile
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from api.cli_output import JsonFlag, client_of, print_json, print_lines
from service.errors import CorruptFile, InvalidInput


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command()(report)


def report(
    context: typer.Context,
    comparison: Annotated[str, typer.Argument(help="Id of a comparison; what it has found so far is reported.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder; named like the comparison without it. Its report is replaced."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write what a comparison has found: a page that opens offline, Markdown, JSON and figures as PNG."""
    folder = output or Path(comparison)
    if folder.exists() and not folder.is_dir():
        raise InvalidInput(f"--output: got {str(folder)!r}, which is no folder; allowed: a folder, or a new name")
    with client_of(context, is_json=as_json) as client:
        files = files_of(client.comparisons.report(comparison, "zip"))
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if as_json:
        print_json({"folder": str(folder), "files": sorted(files)})
        return
    figures = sum(name.startswith("figures/") for name in files)
    print_lines(
        [
            f"  report      {folder / 'report.html'}",
            f"  Markdown    {folder / 'report.md'}",
            f"  JSON        {folder / 'report.json'}",
            f"  figures     {figures} in {folder / 'figures'}",
        ]
    )


def files_of(archive: bytes) -> dict[str, bytes]:
    """Contents by name, none of which leads out of a folder.

    Raises:
        CorruptFile: no archive, or a name that does.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            files = {name: opened.read(name) for name in opened.namelist()}
    except zipfile.BadZipFile as error:
        raise CorruptFile(f"the service answered with no archive: {error}") from error
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise CorruptFile(f"the service's archive holds {name[:200]!r}; allowed: names below the folder")
    return files
