"""What is read of a comparison's children, and at what cost."""

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event, insert

from service.artifacts import checkpoint_model
from service.jobs import Phase
from service.models import ModelSpec
from service.store import Store, schema
from service.store.codec import to_json
from tests.simulation.world import COST

NOW = datetime(2026, 1, 2, tzinfo=UTC)
MODEL = ModelSpec(name="m", path="/m", revision="sha256:0", context_len=64, cost=COST)
ROW = {"name": "n", "document": "{}", "resolved": "{}", "request_sha256": "0", "desired": "run", "created_at": NOW}


def add_children(store: Store, number: int) -> None:
    """A comparison with so many jobs and as many finetunes, all of which have ended."""
    jobs = [{"id": "compare-1-aa", "number": 1, "kind": "comparison", "phase": "running", **ROW}]
    children: list[dict[str, Any]] = []
    usage: list[dict[str, Any]] = []
    for index in range(number):
        for kind, prefix in (("generate", "job"), ("finetune", "finetune")):
            child_id = f"{prefix}-{len(jobs) + 1}-aa"
            jobs.append({"id": child_id, "number": len(jobs) + 1, "kind": kind, "phase": "succeeded", **ROW})
            children.append({"comparison_id": "compare-1-aa", "key": f"{prefix}/{index}", "child_id": child_id})
            key = {"job_id": child_id, "model": "m", "stage": kind, "outcome": "useful", "bucket": NOW}
            counts = ("samples", "errors", "truncated", "prompt_tokens", "cached_tokens", "completion_tokens")
            usage.append(key | dict.fromkeys(counts, 1) | {"flops": 3.0, "flops_paper": 2.0, "busy_s": 1.0})
    finetunes = [str(child["child_id"]) for child in children if str(child["key"]).startswith("finetune")]
    checkpoints = [
        checkpoint_model(MODEL, child_id, step=step, path=f"/{step}/checkpoint.json", sha256="0")
        for child_id in finetunes
        for step in (20, 100)
    ]
    models = [{"name": spec.name, "document": to_json(spec), "created_at": NOW} for spec in (MODEL, *checkpoints)]
    with store.engine.begin() as connection:
        for table, rows in (
            (schema.jobs, jobs),
            (schema.children, children),
            (schema.usage, usage),
            (schema.models, models),
        ):
            connection.execute(insert(table), rows)


def test_children_that_have_ended_have_their_results(store: Store) -> None:
    add_children(store, 2)
    found = store.reads.children("compare-1-aa")

    assert set(found) == {"job/0", "job/1", "finetune/0", "finetune/1"}
    assert (found["job/1"].useful_flops, found["job/1"].useful_flops_paper) == (3.0, 2.0)
    assert [spec.path for spec in found["finetune/1"].checkpoints] == ["/20", "/100"]
    assert found["finetune/0"].checkpoints[0].name == f"{found['finetune/0'].id}/step-20"
    assert store.reads.child_phases("compare-1-aa") == [
        (key, found[key].id, Phase.succeeded) for key in ("finetune/0", "finetune/1", "job/0", "job/1")
    ]


@pytest.mark.parametrize("number", [1, 50])
def test_children_are_read_with_as_many_queries_however_many_there_are(store: Store, number: int) -> None:
    add_children(store, number)
    statements: list[str] = []

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT"):
            statements.append(statement)

    event.listen(store.engine, "before_cursor_execute", count)
    assert len(store.reads.children("compare-1-aa")) == 2 * number

    assert len(statements) == 8
