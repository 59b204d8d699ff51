"""The Python SDK against the real service on a real socket."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from api.client import Client
from api.transport import ApiError, default_url, error_of, read_messages
from service import errors
from service.errors import IsoflopError
from service.records import SAMPLE_SCHEMA

ERROR_CLASSES = [found for found in IsoflopError.__subclasses__() if found.__module__ == errors.__name__]


@pytest.fixture
def client(served) -> Iterator[Client]:
    with Client(served.url) as opened:
        yield opened


@pytest.fixture
def reader(served_finished) -> Iterator[tuple[Client, str]]:
    served, job_id = served_finished
    with Client(served.url) as opened:
        yield opened, job_id


def test_create_submits_and_the_handle_acts(client: Client) -> None:
    job = client.jobs.create(problems="sums/train", models=["small"], budget={"samples_per_problem": 2})

    assert job.phase == "queued"
    assert not job.is_over
    assert job.pause().document["desired"] == "pause"
    assert job.resume().document["desired"] == "run"
    assert job.cancel().document["desired"] == "cancel"
    assert [found.id for found in client.jobs.list()] == [job.id]


def test_create_twice_with_one_key_is_one_job(client: Client, job_document) -> None:
    jobs = {client.jobs.create(job_document(), idempotency_key="k").id for _ in range(3)}

    assert len(jobs) == 1
    assert len({client.jobs.create(job_document()).id for _ in range(2)}) == 2


def test_create_repeats_after_a_lost_answer_and_makes_one_job(served, job_document) -> None:
    lost: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        response = real.handle_request(request)
        if request.method == "POST" and not lost:
            response.read()
            lost.append(response.json()["id"])
            raise httpx.RemoteProtocolError("the answer was lost")
        return response

    with httpx.HTTPTransport() as real, Client(served.url, transport=httpx.MockTransport(handle)) as client:
        job = client.jobs.create(job_document())

    assert lost == [job.id]
    assert len(served.world.store.jobs.list()) == 1


@pytest.mark.parametrize("key", ["", "schlüssel", "two words", "a\nb", "x" * 201])
def test_create_with_a_key_that_no_header_holds_is_refused(client: Client, job_document, key: str) -> None:
    for resources in (client.jobs, client.selections, client.finetunes, client.evaluations, client.comparisons):
        with pytest.raises(errors.InvalidInput, match="allowed: 1 to 200 printable ASCII characters"):
            resources.create(job_document(), idempotency_key=key)


def test_what_a_kind_cannot_do_is_refused_with_what_it_can(client: Client) -> None:
    for resources, noun in ((client.selections, "selection"), (client.evaluations, "evaluation")):
        with pytest.raises(errors.InvalidInput, match=f"pause: got {noun} 'x-1-aaaaaa', allowed for one: cancel"):
            resources.pause("x-1-aaaaaa")


def test_plan_prices_and_stores_nothing(client: Client, job_document) -> None:
    plan = client.jobs.plan(job_document(), budget={"tokens": 5000})

    assert plan["currency"] == "tokens"
    assert client.jobs.list() == []


def test_errors_come_back_as_their_classes(client: Client, job_document) -> None:
    with pytest.raises(errors.UnknownName) as unknown:
        client.jobs.create(job_document(models=["huge"]))
    assert (unknown.value.kind, unknown.value.got) == ("model", "huge")
    assert unknown.value.allowed == ["org/large", "simulated", "small"]
    with pytest.raises(errors.InvalidInput, match=r"budget\.flops"):
        client.jobs.create(job_document(budget={"flops": -1}))
    with pytest.raises(errors.BudgetTooSmall, match="one sample"):
        client.jobs.create(job_document(budget={"tokens": 3}))
    with pytest.raises(errors.NotFound):
        client.jobs.get("job-9")
    with pytest.raises(errors.Conflict) as conflict:
        client.pools.scale("small", replicas=2, version=77)
    assert "you saw version 77" in str(conflict.value)


@pytest.mark.parametrize("error_class", ERROR_CLASSES, ids=lambda error_class: error_class.__name__)
def test_every_error_class_survives_the_wire(served, error_class: type[IsoflopError]) -> None:
    special = {
        errors.UnknownName: lambda: errors.UnknownName(kind="model", got="x", allowed=["y"]),
        errors.BudgetExceeded: lambda: errors.BudgetExceeded(account="a", asked=2, available=1),
    }
    error = special.get(error_class, lambda: error_class("what, got, allowed"))()

    def fail() -> None:
        raise error

    served.world.app.add_api_route("/fail", fail)
    problem = httpx.get(f"{served.url}/fail").json()

    returned = error_of(problem)
    assert type(returned) is error_class
    assert str(returned) == str(error)
    assert returned.status == problem["status"] == error.status


def test_watch_of_an_ended_job_gives_everything_once(reader) -> None:
    client, job_id = reader

    messages = list(client.jobs.watch(job_id))

    ids = [int(message.id) for message in messages if message.id]
    assert ids == sorted(set(ids))
    assert next(message.data["kind"] for message in messages if message.kind == "event") == "submitted"
    assert [message.kind for message in messages].count("end") == 1
    assert messages[-1].data == {"phase": "succeeded"}
    resumed = list(client.jobs.watch(job_id, after=ids[0]))
    assert [int(message.id) for message in resumed if message.id] == ids[1:]


def test_watch_follows_a_job_while_it_runs(served, client: Client, run_jobs, job_document) -> None:
    job = client.jobs.create(job_document(models=["simulated"]))
    phases: list[str] = []
    is_watching = threading.Event()

    def watch() -> None:
        for message in job.watch():
            is_watching.set()
            if message.kind == "progress":
                phases.append(message.data["phase"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert is_watching.wait(20)
    run_jobs(served.world)
    watcher.join(timeout=30)

    assert not watcher.is_alive()
    assert phases[0] == "queued"
    assert phases[-1] == "succeeded"
    assert job.wait().is_over


def test_watch_takes_a_broken_stream_up_where_it_broke(served_finished) -> None:
    served, job_id = served_finished
    num_streams: list[int] = []

    class Broken(httpx.SyncByteStream):
        def __init__(self, stream: httpx.SyncByteStream) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            yield next(iter(self._stream))
            raise httpx.ReadError("connection reset")

        def close(self) -> None:
            self._stream.close()

    def handle(request: httpx.Request) -> httpx.Response:
        response = real.handle_request(request)
        num_streams.append(1)
        if len(num_streams) == 1 and isinstance(response.stream, httpx.SyncByteStream):
            return httpx.Response(response.status_code, headers=response.headers, stream=Broken(response.stream))
        return response

    broken = Client(served.url, transport=httpx.MockTransport(handle))
    with httpx.HTTPTransport() as real, broken, Client(served.url) as whole:
        expected = [message for message in whole.jobs.watch(job_id) if message.kind == "event"]
        found = [message for message in broken.jobs.watch(job_id) if message.kind == "event"]

    assert len(num_streams) == 2
    assert found == expected


def test_samples_and_table_agree(reader) -> None:
    client, job_id = reader
    job = client.jobs.get(job_id)

    samples = list(job.samples())

    assert len(samples) == 24
    assert len(list(job.samples(limit=5))) == 5
    table = job.table()
    assert sorted(table["sample_id"].to_pylist()) == sorted(sample["sample_id"] for sample in samples)
    assert job.table("score").num_rows == 48
    assert job.metrics()["summary"]["num_samples"] == 24
    assert [file["kind"] for file in client.scores(job_id)] == ["score"] * len(job.files("score"))


def test_job_is_a_dataset_with_the_view_that_trl_trains_on(reader) -> None:
    client, job_id = reader
    job = client.jobs.get(job_id)

    dataset, view = job.dataset(), job.to_trl()

    assert dataset.column_names == SAMPLE_SCHEMA.names
    assert dataset.num_rows == job.table().num_rows
    assert view.column_names == ["prompt", "completion"]
    assert view[0]["completion"] == dataset[0]["completion"]


def test_job_as_a_dataset_leaves_out_errors_and_needs_the_files(served, client: Client, run_jobs, job_document) -> None:
    lines = [json.dumps({"question": question, "answer": 2}) for question in ("1+1?", "x" * 1000)]
    (served.world.root / "long.jsonl").write_text("\n".join(lines))
    client.problems.register(name="long", path=served.world.root / "long.jsonl")
    job = client.jobs.create(job_document(models=["simulated"], problems="long"))
    run_jobs(served.world)

    assert job.wait().table()["error"].null_count == 2
    assert job.dataset().num_rows == 2
    assert job.table().num_rows == 3
    Path(job.files("generate")[0]["path"]).unlink()
    with pytest.raises(errors.InvalidInput, match="no file here; allowed: a machine that can read"):
        job.dataset()


def test_usage_events_tasks_health_read(reader) -> None:
    client, job_id = reader

    assert {entry["stage"] for entry in client.usage(by=["stage"])} == {"prepare", "generate", "score"}
    assert client.jobs.events(job_id)[0]["kind"] == "submitted"
    assert len(client.events()) >= len(client.jobs.events(job_id))
    assert {task["state"] for task in client.jobs.tasks(job_id)} == {"succeeded"}
    assert client.health()["status"] in ("ok", "silent")


def test_register_models_and_problems_reads_them_back(served, client: Client) -> None:
    model_dir = served.world.root / "m"
    model_dir.mkdir()
    (model_dir / "config.json").write_text("{}")

    model = client.models.register(name="lab/m", path=model_dir, engine={"max_num_seqs": 4})
    adapter_dir = served.world.root / "adapter"
    adapter_dir.mkdir()
    (adapter_dir / "adapter_config.json").write_text("{}")
    assert client.models.register(name="tuned", path=adapter_dir, base="lab/m")["adapter"]["base"] == "lab/m"
    problems = client.problems.register(name="again", path=served.world.root / "sums.jsonl")

    assert client.models.get("lab/m") == model
    assert model in client.models.list()
    assert client.problems.get("again") == problems
    assert problems in client.problems.list()
    assert client.pools.scale("lab/m", replicas=2)["replicas"] == 2
    assert {pool["model"] for pool in client.pools.list()} >= {"lab/m", "small"}


def test_nobody_there_is_unreachable_with_address_and_next_step() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with Client(url) as client, pytest.raises(errors.Unreachable, match="isoflop up") as error:
            client.health()
    assert url in str(error.value)


def test_answer_of_something_else_is_an_api_error() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(502, text="<html>bad gateway</html>"))
    with Client("http://127.0.0.1:1", transport=transport) as client, pytest.raises(ApiError, match="502"):
        client.jobs.list()


def test_default_url_prefers_environment_then_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ISOFLOP_URL", raising=False)
    monkeypatch.delenv("ISOFLOP_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert default_url() == "http://127.0.0.1:8265"
    (tmp_path / "url").write_text("http://127.0.0.1:9001\n")
    assert default_url(tmp_path) == "http://127.0.0.1:9001"
    monkeypatch.setenv("ISOFLOP_DATA_DIR", str(tmp_path))
    assert default_url() == "http://127.0.0.1:9001"
    monkeypatch.setenv("ISOFLOP_URL", "http://127.0.0.1:9002")
    assert default_url(tmp_path) == "http://127.0.0.1:9002"


def test_read_messages_passes_over_comments_and_other_events() -> None:
    text = ': ping\n\nevent: event\nid: 4\ndata: {"a": 1}\n\nevent: other\ndata: x\n\nevent: end\ndata: {}\n\n'

    messages = list(read_messages(iter(text.split("\n"))))

    assert [(message.kind, message.id, message.data) for message in messages] == [
        ("event", "4", {"a": 1}),
        ("end", None, {}),
    ]
