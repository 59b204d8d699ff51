"""Verbs about what jobs can name: models, problems, pools."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli_output import JsonFlag, client_of, print_json, print_lines, table
from service import wording
from service.endpoints import LIMITS
from service.errors import InvalidInput

models = typer.Typer(no_args_is_help=True, help="Models that jobs can name.")
problems = typer.Typer(no_args_is_help=True, help="Problem sets that jobs can name.")
pools = typer.Typer(no_args_is_help=True, help="Engines by model: look and scale.")


PriceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--price", metavar="FIELD=VALUE", help="Of a million tokens: input_usd=0.3, output_usd=2.5, cached_usd=0.03."
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the groups."""
    app.add_typer(models, name="models")
    app.add_typer(problems, name="problems")
    app.add_typer(pools, name="pools")


@models.command("list")
def list_models(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Every model and what a token of it costs."""
    with client_of(context, is_json=as_json) as client:
        found = client.models.list()
        if as_json:
            print_json(found)
            return
        rows = [
            (
                model["name"],
                wording.count(model["parameters"]),
                wording.flops(model["flops_per_token"]),
                _price_words(model["price"]),
                wording.count(model["context_len"]),
                model["revision"][:19],
                _source(model),
            )
            for model in found
        ]
        header = ("model", "parameters", "FLOPs a token", "USD a million", "context", "revision", "source")
        print_lines(table(header, rows, right=(1, 2, 3, 4)))


@models.command("register")
def register_model(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name in the catalogue, e.g. lab/small.")],
    path: Annotated[
        Path | None,
        typer.Argument(help="Directory of a model or of a LoRA adapter; of an endpoint one with its tokenizer."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Of an adapter: the model it is merged into; without this the one that it names.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option("--engine", metavar="FIELD=VALUE", help="e.g. max_num_seqs=64; repeatable.")
    ] = None,
    price: PriceOption = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            "--endpoint", metavar="FIELD=VALUE", help="base_url=http://127.0.0.1:8000/v1, model=NAME, ...; repeatable."
        ),
    ] = None,
    context_len: Annotated[int | None, typer.Option(min=2, help="Of an endpoint without config.json.")] = None,
    parameters: Annotated[int | None, typer.Option(min=1, help="Of an endpoint, where they are known.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Register a model's directory, whose cost is traced from its own code, an adapter's, or a server (--endpoint)."""
    options = _fields(engine) if engine else None
    server = _fields(endpoint) if endpoint else None
    with client_of(context, is_json=as_json) as client:
        model = client.models.register(
            name=name,
            path=None if path is None else path.absolute(),
            base=base,
            engine=options,
            price=_price(price),
            endpoint=server,
            context_len=context_len,
            parameters=parameters,
        )
        if as_json:
            print_json(model)
            return
        typer.echo(_model_words(model))


@models.command("price")
def price_model(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A model of the catalogue.")],
    price: Annotated[
        list[str],
        typer.Argument(metavar="FIELD=VALUE...", help="input_usd=, output_usd=, perhaps cached_usd=; or none."),
    ],
    as_json: JsonFlag = False,
) -> None:
    """Change what a million tokens of a model cost. Jobs keep the price they were submitted with."""
    with client_of(context, is_json=as_json) as client:
        model = client.models.change(name, price=None if price == ["none"] else _fields(price))
        print_json(model) if as_json else typer.echo(_model_words(model))


@models.command("limits")
def limit_model(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="An endpoint of the catalogue.")],
    limits: Annotated[
        list[str],
        typer.Argument(metavar="FIELD=VALUE...", help="e.g. max_in_flight=8, requests_per_minute=null for no limit."),
    ],
    as_json: JsonFlag = False,
) -> None:
    """Change how the server of an endpoint is treated. Jobs keep the limits they were submitted with."""
    with client_of(context, is_json=as_json) as client:
        model = client.models.limit(name, **_fields(limits))
        print_json(model) if as_json else typer.echo(f"{name}  {_limit_words(model['endpoint'])}")


def _limit_words(endpoint: dict[str, Any]) -> str:
    return ", ".join(f"{field} {'none' if endpoint[field] is None else f'{endpoint[field]:g}'}" for field in LIMITS)


def _source(model: dict[str, Any]) -> str:
    if (endpoint := model["endpoint"]) is not None:
        return f"{endpoint['model']} at {endpoint['base_url']}"
    if (adapter := model["adapter"]) is not None:
        return f"{adapter['base']} with adapter {adapter['path']}"
    return model["path"]


def _price(texts: list[str] | None) -> dict[str, Any] | None:
    return _fields(texts) if texts else None


def _model_words(model: dict[str, Any]) -> str:
    size, flops = wording.count(model["parameters"]), wording.flops(model["flops_per_token"])
    price = "no price" if model["price"] is None else f"{_price_words(model['price'])} USD a million tokens"
    adapter = model["adapter"]
    merged = f", merged into {adapter['base']}, served by engines of {model['pool']}" if adapter else ""
    return (
        f"{model['name']}  {size} parameters, {flops} FLOPs a token, {price}, "
        f"context {model['context_len']:,} tokens{merged}"
    )


def _price_words(price: dict[str, Any] | None) -> str:
    """`0.3 in, 2.5 out`, and what cached tokens cost where that is another price."""
    if price is None:
        return "–"
    cached = "" if price["cached_usd"] is None else f", {price['cached_usd']:g} cached"
    return f"{price['input_usd']:g} in{cached}, {price['output_usd']:g} out"


@problems.command("list")
def list_problems(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Every problem set."""
    with client_of(context, is_json=as_json) as client:
        found = client.problems.list()
        if as_json:
            print_json(found)
            return
        rows = [(item["name"], f"{item['num_problems']:,}", item["fingerprint"][:19], item["source"]) for item in found]
        print_lines(table(("problem set", "problems", "fingerprint", "source"), rows, right=(1,)))


@problems.command("register")
def register_problems(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name in the catalogue, e.g. gsm-mini/train.")],
    path: Annotated[Path | None, typer.Argument(help="A .jsonl or .parquet file.")] = None,
    dataset: Annotated[str | None, typer.Option(help="A data set of the Hugging Face hub instead of a file.")] = None,
    subset: Annotated[str | None, typer.Option(help="Its configuration.")] = None,
    split: Annotated[str | None, typer.Option(help="Its split; train without this.")] = None,
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="OURS=THEIRS", help="e.g. question=problem; repeatable.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Register a problem set; it is checked row by row and kept as a copy."""
    columns = {ours: str(theirs) for ours, theirs in _fields(column or []).items()}
    with client_of(context, is_json=as_json) as client:
        found = client.problems.register(
            name=name,
            path=None if path is None else path.absolute(),
            dataset=dataset,
            subset=subset,
            split=split,
            columns=columns,
        )
        print_json(found) if as_json else typer.echo(
            f"{found['name']}  {wording.plural(found['num_problems'], 'problem')}"
        )


@pools.command("list")
def list_pools(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Every pool."""
    with client_of(context, is_json=as_json) as client:
        found = client.pools.list()
        print_json(found) if as_json else print_lines(_pool_lines(found))


@pools.command("scale")
def scale_pool(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="The model whose engines.")],
    replicas: Annotated[int | None, typer.Option(min=0, help="Engines wanted while there is work.")] = None,
    minimum: Annotated[int | None, typer.Option("--min", min=0, help="Engines kept without work.")] = None,
    idle_s: Annotated[float | None, typer.Option("--idle-s", min=0, help="Idle seconds before one leaves.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Change how many engines a model has. Two operators at once: the second is told, and changes nothing."""
    if replicas is None and minimum is None and idle_s is None:
        raise InvalidInput("nothing to change: got no option, allowed: --replicas, --min, --idle-s")
    with client_of(context, is_json=as_json) as client:
        seen = client.pools.get(model)
        pool = client.pools.scale(model, replicas=replicas, min=minimum, idle_s=idle_s, version=seen["version"])
        print_json(pool) if as_json else print_lines(_pool_lines([pool]))


def _pool_lines(found: list[dict[str, Any]]) -> list[str]:
    rows = [
        (
            pool["model"],
            pool["replicas"],
            pool["min"],
            wording.duration(pool["idle_s"]),
            ", ".join(f"{number} {state}" for state, number in pool["hosts"].items()) or _without_engine(pool),
            wording.duration(pool["load_s"]),
            pool["num_turns"],
        )
        for pool in found
    ]
    return table(("pool", "replicas", "min", "idle", "engines now", "load", "gave way"), rows, right=(1, 2, 5, 6))


def _without_engine(pool: dict[str, Any]) -> str:
    if pool["waiting_since"] is None:
        return "none"
    waited = datetime.now(UTC) - datetime.fromisoformat(pool["waiting_since"])
    return f"waits for a place for {wording.duration(waited.total_seconds())}"


def _fields(texts: list[str]) -> dict[str, Any]:
    from api.job_files import apply_override

    found: dict[str, Any] = {}
    for text in texts:
        apply_override(found, text)
    return found
