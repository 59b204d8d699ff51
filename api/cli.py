"""The command line: `isoflop <verb>`. Starts fast, speaks HTTP to the service, tells the shell how it went.

Exit codes: 0 done, 1 failed, 2 usage, 3 finished with row errors, 130 cancelled or detached. A user's mistake is one
sentence; `--debug` shows the traceback. Verbs live in `api/cli_*.py`.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from api import (
    cli_artifacts,
    cli_bench,
    cli_catalogue,
    cli_compare,
    cli_demo,
    cli_evaluate,
    cli_export,
    cli_import,
    cli_jobs,
    cli_judge,
    cli_local,
    cli_reads,
    cli_report,
)
from api.cli_output import CliContext, exit_code_of, print_error
from service.errors import IsoflopError


class _Group(TyperGroup):
    """Turns the project's errors into one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except IsoflopError as error:
            state = ctx.obj
            if isinstance(state, CliContext) and state.is_debug:
                raise
            print_error(error, is_json=isinstance(state, CliContext) and state.is_json)
            raise typer.Exit(exit_code_of(error)) from error


app = typer.Typer(
    name="isoflop",
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Training data for language-model reasoners under a compute budget.",
)


@app.callback()
def options(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Option("--url", envvar="ISOFLOP_URL", help="The service; found by itself on this machine.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", envvar="ISOFLOP_DATA_DIR", help="Data directory of the service.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Training data for language-model reasoners under a compute budget."""
    state = context.obj if isinstance(context.obj, CliContext) else CliContext()
    state.url, state.data_dir, state.is_debug = url or state.url, data_dir or state.data_dir, debug
    context.obj = state


cli_local.register(app)
cli_jobs.register(app)
cli_reads.register(app)
cli_import.register(app)
cli_artifacts.register(app)
cli_judge.register(app)
cli_evaluate.register(app)
cli_compare.register(app)
cli_report.register(app)
cli_export.register(app)
cli_catalogue.register(app)
cli_demo.register(app)
cli_bench.register(app)


def main() -> None:
    """Entry point of the `isoflop` script."""
    app()


if __name__ == "__main__":
    main()
