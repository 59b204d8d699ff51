"""Documents against code: what they name exists, and what exists and matters is named."""

import ast
import functools
import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

import numpy as np
import pytest
import typer.main
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from starlette.testclient import TestClient

from api.app import create_app
from api.cli import app as command_line
from api.dashboard.router import make_router
from api.local.model_files import inspect_endpoint
from api.wire.artifacts import FinetuneDocument, SelectionDocument, SourceDocument, TrainingDocument
from api.wire.comparisons import ComparisonDocument, EvaluateDocument
from api.wire.evaluations import EvaluationDocument
from api.wire.imports import ImportDocument
from api.wire.job_document import JobDocument
from service.allocation import STRATEGIES
from service.cluster import HostState, StopMode
from service.config import Settings
from service.currency import Budget, Currency
from service.errors import InvalidInput
from service.finetunes import PRESETS
from service.flops import ForwardCost
from service.importing.columns import GUESSES
from service.importing.numbering import REASONS
from service.importing.spec import COLUMNS
from service.jobs import Desired, Phase
from service.models import EngineOptions, ModelSpec
from service.problems import ProblemSource, register_problems
from service.scoring import SCORERS
from service.scoring.base import Verdict
from service.selection.operators import Candidates, choose
from service.selection.spec import Duplicates, Keep, SelectionSource, SelectionSpec
from service.status import ControllerStatus
from service.store.schema import metadata
from service.tasks import TaskState
from service.work import TaskKind
from tests.databases import new_store
from tests.simulation.world import Simulation
from workers.prepare import first_prompt

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("deploy/*.md"), *ROOT.glob("examples/*/*.md")])
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)|<img[^>]*src=\"([^\"]+)\"|!\[[^\]\n]*\]\(([^)\s]+)\)")
CONSTANT_ROW = re.compile(r"^\| `(\w+)` \| ([0-9.]+) \| `([\w/]+\.py)` \|", re.MULTILINE)
FIELD_ROW = re.compile(r"^\| `([\w.]+)` \|", re.MULTILINE)
REFUSED_ROW = re.compile(r"^\| `(\{.*\})` \| (.+?) \|$", re.MULTILINE)
ROOT_COMMAND = typer.main.get_command(command_line)


def read(name: str) -> str:
    return (DOCS / name).read_text()


def missing(names: list[str], text: str) -> list[str]:
    """Names that do not stand in backticks in `text`."""
    return [name for name in names if f"`{name}`" not in text]


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document_relative_links_resolve(document: Path) -> None:
    broken = []
    for groups in LINK.findall(document.read_text()):
        target = next(group for group in groups if group)
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(target)

    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document_paths_of_the_repository_exist(document: Path) -> None:
    named = re.findall(
        r"`((?:service|workers|api|tests|examples|deploy|docs|tools|requirements)/[\w./-]*)`", document.read_text()
    )

    assert [name for name in named if not (ROOT / name).exists()] == []


def commands_in(text: str) -> Iterator[str]:
    """Lines of code blocks, indented or fenced, that call isoflop; and calls in backticks."""
    yield from re.findall(r"^ {4}(?:\$ )?(isoflop .*)$", text, re.MULTILINE)
    for block in re.findall(r"^```(?:\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from re.findall(r"^(?:\$ )?(isoflop .*)$", block, re.MULTILINE)
    yield from re.findall(r"`(isoflop [^`\n]+)`", text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document_commands_use_existing_verbs_and_options(document: Path) -> None:
    wrong = []
    for line in commands_in(document.read_text()):
        command: Any = ROOT_COMMAND
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for word in shlex.split(line, comments=True)[1:]:
            if word.startswith("--") and word.split("=")[0] not in known:
                wrong.append(f"{line}: no option {word}")
            elif not word.startswith("-") and getattr(command, "commands", None) and not word.startswith("<"):
                if word not in command.commands:
                    wrong.append(f"{line}: no verb {word}")
                    break
                command = command.commands[word]
                known |= {o for p in command.params for o in (*p.opts, *p.secondary_opts)}

    assert wrong == []


def test_operations_names_every_verb() -> None:
    table = read("operations.md").split("## Command line")[1].split("##")[0]

    assert missing(sorted(ROOT_COMMAND.commands), table) == []  # type: ignore[attr-defined]


def test_operations_names_every_setting_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `ISOFLOP_(\w+)` \| `?([^|`]+)`? \|", read("operations.md"), re.MULTILINE))

    assert sorted(rows) == sorted(name.upper() for name in Settings.model_fields)
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, int | float):
            assert float(rows[name.upper()]) == field.default, name
        elif isinstance(field.default, str | Path):
            assert rows[name.upper()].strip() == str(field.default), name


def event_kinds() -> set[str]:
    """Kinds of events that the code writes: `draft.event(job, "kind", ...)`, and rows with id, kind and message."""
    kinds: set[str] = set()
    for path in (ROOT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            row: dict[str | None, ast.expr] = {}
            match node:
                case ast.Call(func=ast.Attribute(attr="event"), args=[_, kind, *_]):
                    row = {"job_id": kind, "kind": kind, "message": kind}
                case ast.Call(keywords=keywords):
                    row = {keyword.arg: keyword.value for keyword in keywords}
                case ast.Dict(keys=keys, values=values):
                    names = [key.value if isinstance(key, ast.Constant) else None for key in keys]
                    row = dict(zip(map(str, names), values, strict=True))
            kind = row.get("kind")
            if {"job_id", "kind", "message"} <= row.keys() and isinstance(kind, ast.Constant):
                kinds.add(str(kind.value))
    return kinds


def test_operations_names_every_event() -> None:
    kinds = event_kinds()

    # one of each way to write an event: a row by keywords, a row as a dict, the draft of a tick
    assert {"submitted", "desired", "budget_spent"} < kinds
    assert missing(sorted(kinds), read("operations.md").split("### Events")[1]) == []


def test_task_states_names_every_state_and_move() -> None:
    text = read("task-states.md")
    names = [member.value for enum in (TaskState, Phase, Desired, HostState) for member in enum]

    assert missing(names, text) == []
    tasks = text.split("## Jobs")[0]
    for state in TaskState:
        row = re.search(rf"^\| `{state}` \| (yes|no) \|", tasks, re.MULTILINE)
        assert row is not None, state
        assert (row[1] == "yes") is state.is_terminal, state
    jobs = text.split("## Jobs")[1]
    for phase in Phase:
        row = re.search(rf"^\| `{phase}` \| (yes|no) \|", jobs, re.MULTILINE)
        assert row is not None, phase
        assert (row[1] == "yes") is phase.is_terminal, phase


def values_of(name: str, path: Path) -> set[float]:
    """Numbers that `name` is set to in a module: constants, fields of classes, defaults of arguments."""
    found: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.AnnAssign(target=ast.Name(id=target), value=value) if target == name:
                found.append(value)
            case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
                found.append(value)
            case ast.arguments(kwonlyargs=arguments, kw_defaults=defaults):
                found += [value for argument, value in zip(arguments, defaults, strict=True) if argument.arg == name]
    return {float(value.value) for value in found if isinstance(value, ast.Constant)}  # type: ignore[arg-type]


@pytest.mark.parametrize("document", [path.name for path in DOCS.glob("*.md")])
def test_document_constants_have_the_values_of_the_code(document: str) -> None:
    wrong = [
        f"{name}: {value} in {document}, {sorted(found)} in {module}"
        for name, value, module in CONSTANT_ROW.findall(read(document))
        if float(value) not in (found := values_of(name, ROOT / module))
    ]

    assert wrong == []


def test_task_states_has_the_retry_budgets() -> None:
    assert len(CONSTANT_ROW.findall(read("task-states.md"))) >= 10


def test_architecture_names_tables_kinds_currencies_and_stop_modes() -> None:
    text = read("architecture.md")
    names = [member.value for enum in (TaskKind, Currency, StopMode) for member in enum]

    assert missing([*metadata.tables, *names], text) == []


def test_architecture_has_the_fields_of_a_real_manifest(tmp_path: Path) -> None:
    simulation = Simulation(tmp_path)
    job = simulation.run(simulation.submit(budget=Budget(currency=Currency.samples, limit=40)))
    simulation.store.close()
    manifest = json.loads((tmp_path / "jobs" / job.id / "manifest.json").read_text())
    rows = [manifest["shards"][0], manifest["scores"][0], manifest["prepared"][0], manifest["tasks"][0]]
    names = {*manifest, *manifest["account"], *manifest["problems"], *(key for row in rows for key in row)}

    assert missing(sorted(names), read("architecture.md")) == []


def test_glossary_names_strategies_scorers_verdicts_and_currencies() -> None:
    names = [*STRATEGIES, *SCORERS, *Verdict, *Currency]

    assert missing(list(map(str, names)), read("glossary.md")) == []


def test_glossary_is_in_alphabetical_order() -> None:
    words = re.findall(r"^\| `?([^|`]+?)`? \|", read("glossary.md"), re.MULTILINE)[2:]

    assert words == sorted(words, key=lambda word: re.sub(r"[\W_]", " ", word.lower()))


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields_of(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_job_files_lists_every_field_of_a_job_document() -> None:
    listed = FIELD_ROW.findall(read("job-files.md").split("## What is refused")[0])

    assert sorted({*listed} - {"budget"}) == sorted(fields_of(JobDocument))


def table_in(text: str) -> list[list[str]]:
    """Cells of the rows of every table in `text`, heads and rules left out."""
    rows = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in rows]


def written(value: object) -> str:
    """A default as a document has it: as YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize(
    ("section", "names", "model"),
    [
        ("Selection", [f"sources.{name}" for name in SourceDocument.model_fields], SelectionDocument),
        ("Finetune", [], FinetuneDocument),
        ("Evaluation", [f"evaluate.{name}" for name in EvaluateDocument.model_fields], EvaluationDocument),
    ],
)
def test_training_lists_every_field_with_its_default(section: str, names: list[str], model: type[BaseModel]) -> None:
    rows = table_in(read("training.md").split(f"## {section}\n")[1].split("## ")[0].split("| hyperparameter |")[0])
    default_by_field = {row[0].strip("`"): row[1].strip("`") for row in rows}

    assert sorted(default_by_field) == sorted([*names, *model.model_fields])
    for name, field in model.model_fields.items():
        if field.is_required():
            assert default_by_field[name] == "required", name
        elif isinstance(field.default, str | int | float):
            assert default_by_field[name] == written(field.default), name


def test_importing_lists_every_column_with_the_names_that_are_guessed() -> None:
    rows = table_in(read("importing.md").split("## Columns\n")[1].split("## ")[0])

    assert sorted(row[0].strip("`") for row in rows) == sorted(COLUMNS)
    for ours, names, *_ in rows:
        assert names == ", ".join(f"`{name}`" for name in GUESSES[ours.strip("`")])
    reasons = next(row[2] for row in rows if row[0] == "`finish_reason`")
    assert re.findall(r"`(\w+)`", reasons) == list(REASONS)


def test_importing_lists_every_field_with_its_default() -> None:
    rows = table_in(read("importing.md").split("## REST and Python\n")[1])
    default_by_field = {name: row[1] for row in rows for name in re.findall(r"\w+", row[0])}

    assert sorted(default_by_field) == sorted(ImportDocument.model_fields)
    for name in ("allow_unmatched", "allow_empty"):
        assert default_by_field[name] == written(ImportDocument.model_fields[name].default)


def own_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Fields of a comparison document; what other documents define is one field here."""
    for name, field in model.model_fields.items():
        inner: Any = field.annotation
        mark = ""
        if get_origin(inner) is list:
            inner, mark = get_args(inner)[0], "[]"
        elif NoneType in get_args(inner) and isinstance(get_args(inner)[0], type):
            inner = get_args(inner)[0]
            if inner.__module__ == ComparisonDocument.__module__:
                yield f"{prefix}{name}", field  # may be left out as a whole
        is_own = isinstance(inner, type) and issubclass(inner, BaseModel)
        if is_own and inner.__module__ == ComparisonDocument.__module__:
            yield from own_fields(inner, f"{prefix}{name}{mark}.")
        else:
            yield f"{prefix}{name}", field


def test_training_lists_every_field_of_a_comparison_with_its_default() -> None:
    rows = table_in(read("training.md").split("## Comparison\n")[1].split("### ")[0])
    default_by_field = {row[0].strip("`"): row[1].strip("`") for row in rows}
    fields = dict(own_fields(ComparisonDocument))

    assert list(default_by_field) == list(fields)
    for name, field in fields.items():
        if field.is_required():
            assert default_by_field[name] == "required", name
        elif isinstance(field.default, str | int | float):
            assert default_by_field[name] == written(field.default), name


def test_training_lists_every_hyperparameter_of_every_preset() -> None:
    text = "| hyperparameter |" + read("training.md").split("| hyperparameter |")[1].split("**What is trained")[0]
    head = [cell.strip().strip("`") for cell in text.splitlines()[0].strip("|").split("|")]
    rows = {row[0].strip("`"): row for row in table_in(text)}

    assert sorted(rows) == sorted(TrainingDocument.model_fields)
    assert set(head[1:5]) == set(PRESETS)
    for name, row in rows.items():
        for preset, cell in zip(head[1:5], row[1:5], strict=True):
            value = getattr(PRESETS[preset], name)
            assert cell == ("context" if value is None else written(value)), f"{preset}.{name}"


def test_training_names_the_filters_in_their_order() -> None:
    text = read("training.md").split("The filters apply in this order")[1].split("One that removes")[0]
    candidates = make_candidates(1)
    spec = SelectionSpec(name="one", sources=(SelectionSource(job="job-1"),), keep=Keep.all, duplicates=Duplicates.keep)
    chosen = choose(spec, candidates, keys=lambda _rule, rows: rows.astype("uint64"), find_held_out=lambda p: p < 0)

    assert re.findall(r"`(\w+)`", text) == [count.name for count in chosen.filters][1:]


def make_candidates(num_rows: int) -> Candidates:
    zeros = np.zeros(num_rows, dtype=np.int64)
    return Candidates(
        source=zeros,
        problem=zeros,
        identity=zeros.astype(np.uint64),
        has_error=zeros.astype(np.bool_),
        is_truncated=zeros.astype(np.bool_),
        correct=zeros.astype(np.int8),
        steps=zeros.astype(np.int8),
        judged=zeros.astype(np.int8),
        answer=zeros,
        problem_key=np.zeros(1, dtype=np.uint64),
    )


COST = ForwardCost(
    body_flops_per_token=2e5,
    head_flops_per_token=1e4,
    attention=(),
    parameters=100_000,
    active_parameters=100_000,
    embedding_parameters=1_000,
)


def refuse_models(name: str, path: Path, engine: EngineOptions) -> ModelSpec:
    raise InvalidInput(f"{path}: no model is registered here")


def refuse_adapters(name: str, path: Path, base: ModelSpec) -> ModelSpec:
    raise InvalidInput(f"{path}: no adapter is registered here")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The application over a store with the names of the example job."""
    directory = tmp_path_factory.mktemp("docs")
    store = new_store(directory)
    store.catalogue.register_model(
        ModelSpec(name="gsm-mini-small", path="/nowhere", revision="sha256:0", context_len=192, cost=COST)
    )
    (directory / "train.jsonl").write_text('{"question": "What is 1 + 1?", "answer": 2}\n')
    source = ProblemSource(path=str(directory / "train.jsonl"))
    store.catalogue.register_problems(register_problems(name="gsm-mini/train", source=source, data_dir=directory))
    status = ControllerStatus(
        last_tick_at=datetime.now(UTC),
        tick_age_s=0.1,
        num_ticks=1,
        num_errors=0,
        cpu_s=0.0,
        is_draining=False,
        cluster="none",
    )
    app = create_app(
        store=store,
        settings=Settings(data_dir=directory),
        wake=lambda: None,
        controller_status=lambda: status,
        inspect_model=refuse_models,
        inspect_adapter=refuse_adapters,
        inspect_endpoint=functools.partial(inspect_endpoint, traces=Path("traces")),
        render_prompt=first_prompt,
    )
    with TestClient(app, base_url="http://127.0.0.1:8265") as opened:
        yield opened
    store.close()


def test_operations_names_every_path_of_the_api(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]

    assert missing(sorted(described), read("operations.md").split("## REST")[1]) == []


def test_operations_names_every_page() -> None:
    paths = [route.path for route in make_router().routes if isinstance(route, APIRoute) and "GET" in route.methods]

    assert missing(paths, read("operations.md").split("## Pages")[1]) == []


def test_operations_names_every_metric(client: TestClient) -> None:
    names = sorted(set(re.findall(r"^# TYPE (isoflop_\w+)", client.get("/metrics").text, re.MULTILINE)))
    table = read("operations.md").split("## Watch")[1].split("###")[0]

    assert len(names) > 8
    assert missing(names, table) == []


def test_job_files_example_is_accepted(client: TestClient) -> None:
    from api.job_files import read_job_file

    document = read_job_file(ROOT / "examples" / "tiny-world" / "jobs" / "uniform-small.yaml")
    example = read("job-files.md").split("```yaml\n")[1].split("```")[0]
    body = (ROOT / "examples" / "tiny-world" / "jobs" / "uniform-small.yaml").read_text()
    answer = client.post("/v1/jobs?dry_run=true", json=document)

    assert answer.status_code == 200, answer.json()
    assert example in body


REFUSED = REFUSED_ROW.findall(read("job-files.md"))


def test_job_files_has_refused_examples() -> None:
    assert len(REFUSED) > 20


@pytest.mark.parametrize(("change", "expected"), REFUSED, ids=[change for change, _ in REFUSED])
def test_job_files_refused_documents_are_refused_as_it_says(client: TestClient, change: str, expected: str) -> None:
    document = {"problems": "gsm-mini/train", "models": ["gsm-mini-small"], "budget": {"samples_per_problem": 2}}
    answer = client.post("/v1/jobs?dry_run=true", json=document | json.loads(change))

    assert answer.status_code == 422
    assert expected in answer.json()["detail"]
