"""The verb of `isoflop bench` that needs an NVIDIA GPU."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli_output import JsonFlag, state_of
from service.finetunes import Method

_SHAPES = ("1b", "7b")
_METHODS = (Method.lora, Method.qlora)


def register(bench: typer.Typer) -> None:
    """Adds the verb."""
    bench.command()(gpu)


def gpu(
    context: typer.Context,
    directory: Annotated[
        Path, typer.Option(help="New directory for models, data, record.json and table.md; needs 20 GiB.")
    ] = Path("runs/gpu-check"),
    shape: Annotated[list[str] | None, typer.Option(help="Shape of the model: 1b or 7b; may be repeated.")] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Times both sides run.")] = 3,
    seconds: Annotated[float, typer.Option(min=1, help="About how long each side draws.")] = 30.0,
    steps: Annotated[int, typer.Option(min=3, help="Optimizer steps of a training run.")] = 20,
    train: Annotated[bool, typer.Option("--train/--no-train", help="Whether training is measured too.")] = True,
    as_json: JsonFlag = False,
) -> None:
    """Measure an NVIDIA GPU: the service against plain vLLM, training against plain TRL, and MFU of both."""
    state_of(context).is_json = as_json
    from api.local.bench_gpu import bench_gpu
    from api.local.bench_gpu_report import RECORD_FILE, to_markdown, write_record
    from api.local.gpu_card import find_card
    from api.local.random_models import SHAPES
    from service.errors import InvalidInput, UnknownName

    find_card()  # refuses before anything is written
    names = sorted(set(shape or _SHAPES))
    for name in names:
        if name not in SHAPES:
            raise UnknownName(kind="shape", got=name, allowed=SHAPES)
    if directory.exists():
        raise InvalidInput(f"{directory} exists; allowed: a new directory, or remove the old one")
    directory.mkdir(parents=True)
    methods = tuple(method for name, method in zip(_SHAPES, _METHODS, strict=True) if name in names)
    result = bench_gpu(
        directory.absolute(),
        shapes=[SHAPES[name] for name in names],
        num_pairs=pairs,
        seconds=seconds,
        methods=methods if train else (),
        training_steps=steps,
        on_progress=lambda found: write_record(directory, found),
    )
    typer.echo((directory / RECORD_FILE).read_text() if as_json else "\n".join(to_markdown(result)))
