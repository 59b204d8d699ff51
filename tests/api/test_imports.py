"""Old completions become a finished job: judged, measured, selected and compared without an engine."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from service.cluster import HostKind
from service.controller import Controller
from service.planner import Options
from service.selection.card import dataset_card
from service.selection.lineage import read_lineage
from service.verify import verify_directory
from service.work import TaskKind
from workers.local_cluster import LocalCluster

NUM_PROBLEMS, NUM_SAMPLES = 6, 3
Submit = Callable[..., Any]
Rows = list[dict[str, Any]]


def old_rows() -> Rows:
    """Three completions a problem: right, right with a wrong step, wrong."""
    return [
        {"problem_id": f"p{i}", "response": text}
        for i in range(NUM_PROBLEMS)
        for text in (f"{i}+1={i + 1}. #### {i + 1}", f"{i}+1={i + 3}. #### {i + 1}", f"{i}+2={i + 2}. #### {i + 2}")
    ]


def many_rows(number: int) -> Rows:
    """More rows than are looked at when an import is submitted; no two are the same."""
    return [{"problem_id": f"p{i % NUM_PROBLEMS}", "response": f"{i}. #### {i}"} for i in range(number)]


def write(path: Path, rows: Rows) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def submit(world, client: TestClient) -> Submit:
    """Submits an import of rows; keywords replace fields of its document, None leaves them out."""

    def post(rows: Rows, name: str = "old.jsonl", *, dry_run: bool = False, **fields: object) -> Any:
        document: dict[str, object] = {
            "files": [write(world.root / name, rows)],
            "problems": "sums/train",
            "model": "simulated",
            "scorers": ["math_answer", "steps"],
        }
        document = {name: value for name, value in (document | fields).items() if value is not None}
        return client.post("/v1/imports", params={"dry_run": dry_run}, json=document)

    return post


@pytest.fixture
def imported(world, client, submit: Submit, run_jobs) -> Submit:
    """Imports rows to the end, and gives the job."""

    def run(rows: Rows, name: str = "old.jsonl", **fields: object) -> dict[str, Any]:
        answer = submit(rows, name, **fields)
        assert answer.status_code == 201, answer.text
        run_jobs(world)
        return client.get(f"/v1/jobs/{answer.json()['id']}").json()

    return run


def samples_of(world, job_id: str) -> pa.Table:
    parts = world.store.reads.parts(job_id, TaskKind.generate)
    return pa.concat_tables([pq.ParquetFile(part.path).read() for part in parts])


def test_import_becomes_a_finished_job_that_verifies_and_spends_nothing(world, imported: Submit) -> None:
    job = imported(old_rows())

    assert job["phase"] == "succeeded", job["error"]
    assert job["progress"]["samples"] == NUM_PROBLEMS * NUM_SAMPLES
    assert job["progress"]["flops"]["spent"] == job["progress"]["budget"]["spent"] == 0
    assert job["imported"]["files"][0]["name"] == "old.jsonl"
    report = verify_directory(world.settings.data_dir / "jobs" / job["id"])
    assert report.faults == ()
    assert (report.rows, report.planned, report.withdrawn, report.score_rows) == (18, 18, 0, 36)
    assert report.recomputed_flops == pytest.approx(job["imported"]["flops"])
    assert job["imported"]["flops"] > 0


def test_import_costs_nothing_in_what_the_service_used(client, imported: Submit) -> None:
    job = imported(old_rows())

    by_stage = {row["stage"]: row for row in client.get("/v1/usage", params={"job": job["id"]}).json()["items"]}
    assert by_stage["import"]["samples"] == 18
    assert sum(row["flops"] for row in by_stage.values()) == 0
    assert job["progress"]["completion_tokens"] == by_stage["import"]["completion_tokens"] > 0


def test_import_is_measured_selected_and_compared_like_a_drawn_job(world, client, imported: Submit, run_jobs) -> None:
    job = imported(old_rows())
    other = imported(old_rows()[::-1], "other.jsonl")

    summary = client.get(f"/v1/jobs/{job['id']}/metrics").json()["summary"]
    assert (summary["num_correct"], summary["num_verified"]) == (12, 6)
    assert summary["false_positive_rate"]["value"] == 0.5
    assert summary["total_flops"] == pytest.approx(job["imported"]["flops"])
    made = client.post("/v1/selections", json={"sources": [{"job": job["id"]}], "keep": "verified"}).json()
    run_jobs(world)
    selection = client.get(f"/v1/selections/{made['id']}").json()
    assert (selection["phase"], selection["rows"]) == ("succeeded", NUM_PROBLEMS)
    page = client.get("/compare", params={"jobs": [job["id"], other["id"]]})
    assert page.status_code == 200
    assert "was imported from old.jsonl" in page.text


def test_import_is_named_with_its_content_where_its_data_go(world, client, imported: Submit, run_jobs) -> None:
    job = imported(old_rows())
    sha256 = job["imported"]["files"][0]["sha256"]
    made = client.post("/v1/selections", json={"sources": [{"job": job["id"]}], "keep": "correct"}).json()
    run_jobs(world)

    lineage = read_lineage(client.get(f"/v1/selections/{made['id']}").json()["path"])
    (source,) = lineage.sources
    assert source.job["imported"]["files"][0]["sha256"] == sha256
    card = dataset_card(lineage, num_bytes=1, stored_bytes=1)
    assert "imported, not drawn by isoflop" in card
    assert sha256 in card
    assert str(world.root) not in lineage.to_json()
    page = client.get(f"/jobs/{job['id']}").text
    assert "Imported" in page
    assert sha256 in page


@pytest.mark.parametrize("path", ["/", "/usage", "/jobs/{job}", "/jobs/{job}/samples", "/v1/jobs/{job}/metrics"])
def test_pages_of_an_import_whose_model_nobody_knows_open(client, imported: Submit, path: str) -> None:
    job = imported(old_rows(), model=None, model_name="gpt-old")

    assert client.get(path.format(job=job["id"])).status_code == 200


def test_import_by_an_unknown_model_says_that_flops_are_unknown(world, client, imported: Submit) -> None:
    job = imported(old_rows(), model=None, model_name="gpt-old")

    assert job["phase"] == "succeeded", job["error"]
    assert (job["imported"]["flops"], job["imported"]["tokens"]) == (None, "estimate")
    summary = client.get(f"/v1/jobs/{job['id']}/metrics").json()["summary"]
    assert "imported unregistered" in summary["flops_per_correct"]["reason"]
    assert summary["num_correct"] == 12
    sample = client.get(f"/v1/jobs/{job['id']}/samples", params={"limit": 1}).json()["items"][0]
    assert sample["flops"] is sample["flops_paper"] is None
    assert sample["completion_tokens"] == 5  # 13 characters at 4 a token, and the end
    assert verify_directory(world.settings.data_dir / "jobs" / job["id"]).faults == ()


def test_drawn_samples_that_are_imported_are_the_same_rows(finished, client, world, imported: Submit) -> None:
    drawn_world, drawn_id = finished
    drawn = samples_of(drawn_world, drawn_id)
    kept = ["problem_id", "sample_index", "prompt", "completion", "finish_reason"]

    job = imported(drawn.select(kept).to_pylist(), "drawn.parquet", sampling={"max_tokens": 40})

    assert job["phase"] == "succeeded", job["error"]
    order = [("problem_index", "ascending"), ("sample_index", "ascending")]
    before, after = drawn.sort_by(order), samples_of(world, job["id"]).sort_by(order)
    for name in ("problem_id", "sample_index", "prompt", "completion", "finish_reason", "prompt_tokens", "sampling_id"):
        assert before[name].equals(after[name]), name


def test_the_same_import_is_the_same_job_under_any_name(client, submit: Submit, world) -> None:
    first = submit(old_rows())
    again = submit(old_rows(), "renamed.jsonl")

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert (first.json()["is_new"], again.json()["is_new"]) == (True, False)
    assert submit(old_rows(), scorers=["math_answer"]).json()["id"] != first.json()["id"]
    assert len(world.store.jobs.list()) == 2


def test_an_import_that_failed_is_made_again(client, submit: Submit, world, run_jobs) -> None:
    failing = [*many_rows(9000), {"problem_id": "p0", "response": ""}]
    first = submit(failing).json()["id"]
    run_jobs(world)

    assert client.get(f"/v1/jobs/{first}").json()["phase"] == "failed"
    assert submit(failing).json()["id"] != first


def test_sample_ids_depend_on_content_alone(world, client, imported: Submit) -> None:
    first = samples_of(world, imported(old_rows())["id"])
    other = samples_of(world, imported(old_rows(), "copy.jsonl", scorers=["math_answer"])["id"])

    assert first["sample_id"].equals(other["sample_id"])
    assert len(set(first["sample_id"].to_pylist())) == 18


def test_lists_of_completions_and_questions_in_place_of_ids(world, imported: Submit) -> None:
    rows = [
        {"question": f"What is  {i} + 1? [answer={i + 1}]", "generations": [f"#### {i + 1}", "no"], "id": 5 - i}
        for i in range(NUM_PROBLEMS)
    ]

    job = imported(rows)

    assert job["imported"]["columns"] == {"question": "question", "completion": "generations"}
    table = samples_of(world, job["id"])
    assert table["problem_index"].to_pylist() == [i for i in range(NUM_PROBLEMS) for _ in range(2)]
    assert table["sample_index"].to_pylist() == [0, 1] * NUM_PROBLEMS
    assert table["completion"].to_pylist()[:2] == ["#### 1", "no"]


def test_columns_of_tokens_reasons_and_temperatures_are_taken(world, imported: Submit) -> None:
    rows = [
        {"task": "p1", "answer": "a", "n": 7, "temperature": 0.2, "stop_reason": "max_tokens"},
        {"task": "p1", "answer": "b", "n": 9, "temperature": 1, "stop_reason": "end_turn"},
    ]

    job = imported(rows, columns={"problem_id": "task", "completion": "answer", "num_tokens": "n"})

    table = samples_of(world, job["id"])
    assert table["completion_tokens"].to_pylist() == [7, 9]
    assert table["finish_reason"].to_pylist() == ["length", "stop"]
    assert len(set(table["sampling_id"].to_pylist())) == 2
    assert job["imported"]["tokens"] == "column"
    assert job["progress"]["truncated"] == 1


def test_empty_completions_become_error_rows_where_they_are_allowed(world, imported: Submit, submit: Submit) -> None:
    rows = [*old_rows(), {"problem_id": "p0", "response": None}, {"problem_id": "p1", "response": ""}]

    job = imported(rows, allow_empty=True)

    assert (job["phase"], job["progress"]["errors"]) == ("finished_with_errors", 2)
    plan = submit([*rows, rows[-1]], dry_run=True, allow_empty=True).json()
    assert plan["repeats"] == 0, "rows without a completion repeat nothing"
    last = samples_of(world, job["id"]).to_pylist()[-1]
    assert (last["finish_reason"], last["completion_tokens"], last["flops"]) == ("error", 0, 0.0)
    assert verify_directory(world.settings.data_dir / "jobs" / job["id"]).faults == ()


def test_rows_without_a_completion_may_lack_everything_else_of_it(world, imported: Submit) -> None:
    whole = {"problem_id": "p0", "response": "a", "temperature": 0.5, "finish_reason": "stop", "tokens": 3}

    job = imported(
        [whole, {"problem_id": "p1"}], allow_empty=True, columns={"num_tokens": "tokens"}, scorers=["math_answer"]
    )

    assert job["phase"] == "finished_with_errors", job["error"]
    table = samples_of(world, job["id"])
    assert table["completion_tokens"].to_pylist() == [3, 0]
    assert table["sampling_id"].to_pylist()[1] == "unknown"


def test_an_import_paused_before_it_began_goes_on_when_it_is_resumed(world, client, submit: Submit, run_jobs) -> None:
    job_id = submit(old_rows()).json()["id"]
    cluster = LocalCluster()
    controller = Controller(store=world.store, cluster=cluster, options=Options(data_dir=str(world.settings.data_dir)))
    client.post(f"/v1/jobs/{job_id}/pause")
    controller.tick()
    cluster.close()
    assert client.get(f"/v1/jobs/{job_id}").json()["phase"] == "paused"

    client.post(f"/v1/jobs/{job_id}/resume")
    run_jobs(world)

    job = client.get(f"/v1/jobs/{job_id}").json()
    assert (job["phase"], job["progress"]["samples"]) == ("succeeded", 18)


def with_row(**row: object) -> Rows:
    return [*old_rows(), row]


BAD = [
    (with_row(problem_id="p0", response=""), {}, ["1 of 19 rows", "old.jsonl, line 19", "allow_empty"]),
    (with_row(problem_id="p0", response=["a"]), {}, ["response", "a list of texts and a text", "allowed: a text"]),
    ([{"problem_id": f"q{i}", "response": "a"} for i in range(9)], {}, ["none of the first 9 rows", "q0", "'p0'"]),
    (old_rows(), {"columns": {"completion": "text"}}, ["no column 'text'", "problem_id, response"]),
    ([{"problem_id": "p0", "said": "a"}], {}, ["columns.completion", "response", "problem_id, said"]),
    ([{"number": 1, "response": "a"}], {}, ["columns.problem_id", "number, response"]),
    (
        [{"problem_id": "p0", "response": "a", "sample_index": 3}] * 2,
        {},
        ["more than once", "problem 0, sample_index 3"],
    ),
    ([{"problem_id": "p0", "response": "a", "sample_index": -1}], {}, ["line 1", "sample_index", "-1"]),
    ([{"problem_id": "p0", "response": "a", "finish_reason": "tired"}], {}, ["line 1", "'tired'", "max_tokens"]),
    (
        [{"problem_id": "p0", "response": "a", "prompt": None}, {"problem_id": "p0", "response": "a", "prompt": "b"}],
        {},
        ["line 1", "prompt: got None"],
    ),
    ([{"problem_id": "p0", "response": "a", "temperature": -1.0}], {}, ["line 1", "temperature", "-1"]),
    (old_rows(), {"model": "gone"}, ["unknown model 'gone'"]),
    (old_rows(), {"model": None}, ["exactly one of model, model_name"]),
    (old_rows(), {"model_name": "b"}, ["exactly one of model, model_name"]),
    (old_rows(), {"model": None, "model_name": "small"}, ["registered; give it as `model`"]),
    (old_rows(), {"problems": "gone"}, ["unknown problem set 'gone'"]),
    (old_rows(), {"scorers": ["gone"]}, ["unknown scorer 'gone'"]),
    (old_rows(), {"columns": {"answer": "response"}}, ["completion"]),
    (old_rows(), {"files": ["/etc/passwd"]}, ["allowed: a path under"]),
]


@pytest.mark.parametrize(("rows", "fields", "words"), BAD)
def test_what_the_first_rows_show_is_refused_before_anything_is_stored(
    world, submit: Submit, rows: Rows, fields: dict[str, object], words: list[str]
) -> None:
    answer = submit(rows, **fields)

    assert answer.status_code == 422, answer.text
    assert [word for word in words if word not in answer.text.replace('\\"', '"')] == []
    assert world.store.jobs.list() == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"problem_id": "p0", "response": "a"}\n\n{"problem_id": ', ["line 3", "not JSON"]),
        ("[1]\n", ["line 1", "one JSON object a line"]),
        ("", ["has no rows"]),
        (
            '{"problem_id": "p0", "response": "a"}\n' * 1500 + '{"problem_id": "p0", "response"',
            ["line 1,501", "not JSON"],
        ),
        (
            '{"problem_id": "p0", "response": "a"}\n' * 1500 + '{"problem_id": "p0", "response": 5}',
            ["line 1,501", "a whole number", "allowed: a text"],
        ),
    ],
)
def test_a_broken_line_is_named(world, client, content: str, words: list[str]) -> None:
    (world.root / "old.jsonl").write_text(content)

    document = {"files": [str(world.root / "old.jsonl")], "problems": "sums/train", "model": "simulated"}
    answer = client.post("/v1/imports", json=document)

    assert answer.status_code == 422
    assert [word for word in words if word not in answer.text] == []


def test_a_broken_parquet_file_is_refused(world, client) -> None:
    (world.root / "old.parquet").write_bytes(b"PAR1 and no more")

    document = {"files": [str(world.root / "old.parquet")], "problems": "sums/train", "model": "simulated"}
    answer = client.post("/v1/imports", json=document)

    assert answer.status_code == 422
    assert "not a readable Parquet file" in answer.text


def test_what_only_a_late_row_shows_fails_the_job_and_leaves_nothing(world, client, submit: Submit, run_jobs) -> None:
    job_id = submit([*many_rows(9000), {"problem_id": "p0"}]).json()["id"]

    run_jobs(world)

    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["phase"] == "failed"
    assert "1 of 9,001 rows" in job["error"]
    assert "line 9,001" in job["error"]
    assert job["progress"]["samples"] == 0
    assert world.store.reads.parts(job_id, TaskKind.generate) == []
    assert list((world.settings.data_dir / "jobs" / job_id).glob("attempts/*")) == []


def test_rows_of_no_problem_are_counted_listed_and_refused_above_a_share(
    client, submit: Submit, run_jobs, world
) -> None:
    rows = [row for i, row in enumerate(old_rows()) for row in (row, {"problem_id": f"x{i}", "response": "a"})]
    refused = submit(rows).json()["id"]
    run_jobs(world)

    error = client.get(f"/v1/jobs/{refused}").json()["error"]
    assert "18 of 36 (50.0%)" in error
    assert "old.jsonl, line 2 ('x0')" in error
    assert "and 13 more" in error
    allowed = submit(rows, allow_unmatched=0.5).json()["id"]
    run_jobs(world)
    job = client.get(f"/v1/jobs/{allowed}").json()
    assert (job["phase"], job["progress"]["samples"]) == ("succeeded", 18)
    messages = [event["message"] for event in client.get(f"/v1/jobs/{allowed}/events").json()["items"]]
    assert "18 rows, 18 rows of no problem left out" in messages


def test_a_file_that_changed_since_is_refused(world, client, submit: Submit, run_jobs) -> None:
    job_id = submit(old_rows()).json()["id"]
    write(world.root / "old.jsonl", old_rows()[:-1])

    run_jobs(world)

    assert "changed since the import was submitted" in client.get(f"/v1/jobs/{job_id}").json()["error"]


def test_a_file_appended_to_itself_is_refused(client, submit: Submit, run_jobs, world) -> None:
    answer = submit(many_rows(200) * 2)

    assert answer.status_code == 422
    assert "the second half repeats the first" in answer.text


def test_answers_of_one_word_are_no_copies(submit: Submit) -> None:
    verdicts = [{"problem_id": f"p{i % NUM_PROBLEMS}", "response": "yes"} for i in range(400)]
    assert submit(verdicts).status_code == 201


def test_two_files_of_one_content_are_refused(world, client) -> None:
    files = [write(world.root / name, old_rows()) for name in ("a.jsonl", "b.jsonl")]

    answer = client.post("/v1/imports", json={"files": files, "problems": "sums/train", "model": "simulated"})

    assert answer.status_code == 422
    assert "the same content" in answer.text


def test_what_is_quickly_refused_is_before_files_are_read_whole(world, client) -> None:
    files = [write(world.root / name, old_rows()) for name in ("a.jsonl", "b.jsonl")]
    asked = {"files": files, "problems": "sums/train", "model": "simulated", "scorers": ["gone"]}

    answer = client.post("/v1/imports", json=asked)

    assert "the same content" not in answer.text  # which only a reader of all of both would know
    assert "unknown scorer 'gone'" in answer.text


def test_dry_run_looks_at_every_row_and_stores_nothing(world, submit: Submit) -> None:
    plan = submit([*old_rows(), old_rows()[0]], dry_run=True)

    assert plan.status_code == 200, plan.text
    found = plan.json()
    assert (found["rows"], found["problems_with_samples"], found["repeats"], found["unmatched"]) == (19, 6, 1, 0)
    assert "completion is the column 'response', guessed from its name" in found["notes"]
    late = [*many_rows(9000), {"problem_id": "p0", "response": ""}]
    assert submit(late, dry_run=True).status_code == 422
    assert world.store.jobs.list() == []


def test_an_import_whose_dispatcher_dies_is_made_again_whole(world, client, submit: Submit) -> None:
    job_id = submit(many_rows(30_000)).json()["id"]
    cluster = LocalCluster()
    options = Options(data_dir=str(world.settings.data_dir), retry_s=0.1)
    controller = Controller(store=world.store, cluster=cluster, options=options)
    pause, deadline = threading.Event(), time.monotonic() + 100
    has_died = False
    while world.store.snapshot().jobs:
        controller.tick()
        assert time.monotonic() < deadline, client.get(f"/v1/jobs/{job_id}/events").text
        in_flight = [task for task in world.store.snapshot().tasks if task.state.is_in_flight]
        if not has_died and any(task.kind is TaskKind.import_ for task in in_flight):
            (dispatcher,) = [host.name for host in world.store.snapshot().hosts if host.kind is HostKind.dispatcher]
            cluster.kill(dispatcher)
            has_died = True
        pause.wait(0.02)
    cluster.close()

    assert has_died
    assert client.get(f"/v1/jobs/{job_id}").json()["phase"] == "succeeded"
    report = verify_directory(world.settings.data_dir / "jobs" / job_id)
    assert report.faults == ()
    assert (report.rows, report.shards) == (30_000, 2)
