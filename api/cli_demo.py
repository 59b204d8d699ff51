"""The verb `demo`: the whole system on the tiny world."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command()(demo)


def demo(
    directory: Annotated[Path, typer.Option("--directory", help="Data and report go here.")] = Path("runs/demo"),
    num_problems: Annotated[
        int, typer.Option("--problems", min=10, max=2000, help="Problems of the tiny world.")
    ] = 400,
    samples: Annotated[int, typer.Option(min=1, max=100, help="Samples of the larger model per problem.")] = 10,
    seed: Annotated[int, typer.Option(help="Orders problems and seeds engines.")] = 0,
    is_full: Annotated[
        bool, typer.Option("--full", help="Both budgets, every problem, three seeds of training: an hour or more.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the service; 0 for any free one.")] = 0,
    engine_places: Annotated[
        int | None, typer.Option(min=1, help="Most engines at the same time; 1 lets the models take turns.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service and its dashboard running.")] = False,
) -> None:
    """Compare a larger and a smaller model at equal FLOPs, and students of each, on this machine in a few minutes."""
    from api.local.demo import DemoOptions, run_demo
    from api.local.demo_screen import DemoScreen

    options = DemoOptions(
        directory=directory,
        is_full=is_full,
        num_problems=num_problems,
        samples=samples,
        seed=seed,
        port=port,
        engine_places=engine_places,
        keep=keep,
    )
    raise typer.Exit(run_demo(options, DemoScreen()))
