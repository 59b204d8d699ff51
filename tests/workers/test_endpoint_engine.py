"""The endpoint engine against a fake server that fails in every way it knows; waits are on a clock of the test."""

import asyncio
import dataclasses
import random
import socket
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from service.endpoints import Dialect, EndpointOptions, PromptForm
from service.errors import InvalidInput
from service.models import ModelSpec
from service.sampling import SamplingSpec, Structure
from tests.workers import fake_faulty_server as fake
from tests.workers.fake_faulty_server import FakeFaultyServer, Fault
from tests.workers.generator_rig import MODEL
from workers.endpoint_engine import EndpointEngine
from workers.engine_protocol import EngineDead, Finished

KEY = "sk-never-to-be-shown"
PROMPT = (7, 8, 9)


class VirtualTime:
    """A clock that sleeping moves on."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@contextmanager
def engine_at(
    url: str,
    time: VirtualTime | None = None,
    *,
    sleep: Callable[[float], Awaitable[None]] | None = None,
    **options: Any,
) -> Iterator[EndpointEngine]:
    time = time or VirtualTime()
    decode: Callable[[Sequence[int]], str] = lambda ids: " ".join(map(str, ids))  # noqa: E731
    defaults = {"model": "there", "api_key_env": "KEY_OF_TEST", "read_timeout_s": 10.0}
    engine = EndpointEngine(
        EndpointOptions(base_url=url, **defaults | options),
        api_key=KEY,
        decode=decode,
        clock=time.clock,
        sleep=sleep or time.sleep,
        rng=random.Random(0),
    )
    try:
        yield engine
    finally:
        engine.close()


def add(engine: EndpointEngine, request_id: str = "1", **changes: Any) -> None:
    arguments = {"max_tokens": 20, "sampling": SamplingSpec(temperature=0.5), "seed": 5, **changes}
    engine.add(request_id, PROMPT, **arguments)


def collect(engine: EndpointEngine) -> dict[str, Finished]:
    done: dict[str, Finished] = {}
    while engine.num_unfinished():
        done |= {finished.request_id: finished for finished in engine.step()}
    return done


def drive_two(engine: EndpointEngine) -> None:
    add(engine, "1")
    add(engine, "2")
    collect(engine)


@contextmanager
def faulty(*faults: Fault) -> Generator[FakeFaultyServer]:
    with FakeFaultyServer(faults).running() as server:
        yield server


@pytest.mark.parametrize("stream", [True, False])
def test_completion_comes_with_the_counts_of_the_server(stream: bool) -> None:
    usage = {"prompt_tokens_details": {"cached_tokens": 2}}
    with (
        faulty(fake.completes("a b", finish_reason="length", usage=usage)) as server,
        engine_at(server.url, stream=stream) as engine,
    ):
        add(engine)

        assert collect(engine) == {"1": Finished("1", "a b", fake.COMPLETION_TOKENS, 2, "length", None)}
    assert server.documents[0]["model"] == "there"
    assert server.documents[0]["prompt"] == list(PROMPT)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_text_with_line_separators_of_unicode_is_one_piece() -> None:
    text = "a\u2028b\x85c\x0bd\u00e9\r\n"
    with faulty(fake.completes(text)) as server, engine_at(server.url) as engine:
        add(engine)

        assert collect(engine)["1"].text == text


def test_stream_without_its_last_word_is_whole_with_reason_and_usage() -> None:
    with faulty(fake.completes(ends=False)) as server, engine_at(server.url) as engine:
        add(engine)

        assert collect(engine)["1"] == Finished("1", "7", fake.COMPLETION_TOKENS, 0, "stop", None)


def test_prompt_goes_as_text_where_the_server_takes_no_ids() -> None:
    counted = fake.completes("t", usage={"prompt_tokens": 2})
    with faulty(counted) as server, engine_at(server.url, prompt_form=PromptForm.text) as engine:
        add(engine)
        finished = collect(engine)["1"]

    assert (finished.error, finished.prompt_tokens) == (None, 2)  # the server's own count
    assert server.documents[0]["prompt"] == "7 8 9"


def test_text_that_the_server_counts_as_more_than_was_reserved_is_an_error() -> None:
    counted = fake.completes("t", usage={"prompt_tokens": 4})
    with faulty(counted) as server, engine_at(server.url, prompt_form=PromptForm.text) as engine:
        add(engine)
        finished = collect(engine)["1"]

    assert "counts 4 prompt tokens, at most 3 are" in str(finished.error)
    assert finished.lost_tries == 1


@pytest.mark.parametrize(("code", "models"), [(200, ["other", "there"]), (200, []), (404, [])])
def test_check_of_a_server_that_has_the_model_or_no_list_says_nothing(code: int, models: list[str]) -> None:
    with faulty() as server, engine_at(server.url) as engine:
        server.models = (code, models)

        engine.check()


@pytest.mark.parametrize(
    ("code", "models", "said"),
    [
        (200, ["a", "b"], "model 'there' is unknown there; it serves a, b"),
        (401, [], "the key is refused, it is from KEY_OF_TEST"),
        (503, [], "the host answers with status 503"),
    ],
)
def test_check_says_what_is_wrong_with_the_server(code: int, models: list[str], said: str) -> None:
    with faulty() as server, engine_at(server.url) as engine:
        server.models = (code, models)

        with pytest.raises(EngineDead, match=said) as caught:
            engine.check()
    assert KEY not in str(caught.value)


def test_check_of_a_host_that_does_not_answer_waits_and_says_so() -> None:
    time = VirtualTime()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    refused = pytest.raises(EngineDead, match="the host does not answer")
    with engine_at(f"http://127.0.0.1:{port}/v1", time) as engine, refused:
        engine.check()

    assert len(time.slept) == 5


def test_key_that_is_refused_midway_charges_what_other_requests_had_lost() -> None:
    released = threading.Event()

    def stalls(handler: fake.Handler) -> None:
        released.wait(30)
        fake.hangs_up(handler)

    with faulty(stalls, fake.says_of_key(401)) as server, engine_at(server.url, max_in_flight=2) as engine:
        add(engine, "1")
        server.wait_for(1)
        add(engine, "2")
        with pytest.raises(EngineDead) as caught:
            collect(engine)
        released.set()

    assert caught.value.charges is not None
    assert caught.value.charges["1"] == 1  # it was at the server, which may have worked


def test_prompts_as_text_without_a_tokenizer_are_refused() -> None:
    options = EndpointOptions(base_url="http://127.0.0.1:1", model="m", prompt_form=PromptForm.text)

    with pytest.raises(InvalidInput, match="tokenizer"):
        EndpointEngine(options, api_key=None)


def test_refused_with_a_wait_is_not_asked_again_before() -> None:
    time = VirtualTime()
    with faulty(fake.status(429, Retry_After="7")) as server, engine_at(server.url, time, backoff_s=0.5) as engine:
        add(engine)
        finished = collect(engine)["1"]

    assert (finished.text, finished.error, finished.lost_tries) == ("7", None, 0)
    assert 7 <= time.now <= 7.5
    assert len(server.documents) == 2


def test_wait_of_one_request_holds_the_others_back() -> None:
    time = VirtualTime()
    with (
        faulty(fake.status(503, Retry_After="50")) as server,
        engine_at(server.url, time, max_in_flight=1) as engine,
    ):
        add(engine, "1")
        add(engine, "2")
        engine.step()
        collect(engine)

    assert 50 <= time.now <= 52
    assert len(server.documents) == 3


@pytest.mark.parametrize("code", [429, 503])
def test_refused_again_and_again_waits_longer_and_ends_as_an_error(code: int) -> None:
    time = VirtualTime()
    with (
        faulty(*[fake.status(code, "busy")] * 9) as server,
        engine_at(server.url, time, max_refused_tries=4, backoff_s=2.0, max_backoff_s=3.0) as engine,
    ):
        add(engine)
        finished = collect(engine)["1"]

    assert finished.finish_reason == "error"
    assert f"gave up after 4 refused and 0 lost tries, the last: HTTP {code}: busy" in str(finished.error)
    assert (finished.completion_tokens, finished.lost_tries, len(server.documents)) == (0, 0, 4)
    assert len(time.slept) == 3
    assert all(0 <= slept <= most for slept, most in zip(time.slept, (2, 3, 3), strict=True))
    assert len(set(time.slept)) == 3


def test_wait_longer_than_allowed_ends_as_an_error() -> None:
    with faulty(fake.status(429, Retry_After="3600")) as server, engine_at(server.url, max_wait_s=60) as engine:
        add(engine)

        assert "asked to wait 3600 s, at most 60 s are" in str(collect(engine)["1"].error)
    assert len(server.documents) == 1


def test_no_connection_ends_as_an_error_after_the_stated_tries() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    time = VirtualTime()
    with engine_at(f"http://127.0.0.1:{port}/v1", time, max_refused_tries=3) as engine:
        add(engine)
        finished = collect(engine)["1"]

    assert "gave up after 3 refused" in str(finished.error)
    assert "no connection" in str(finished.error)
    assert (finished.lost_tries, len(time.slept)) == (0, 2)


LOSING = {
    "500": (fake.status(500, "oops"), "HTTP 500: oops"),
    "502": (fake.status(502), "HTTP 502"),
    "408": (fake.status(408), "HTTP 408"),
    "hang-up": (fake.hangs_up, "connection broke"),
    "cut stream": (fake.cuts_stream, "connection broke"),
    "early end": (fake.ends_stream_early, "cut after 1 pieces"),
    "error in stream": (fake.fails_in_stream, "engine died"),
    "cut body": (fake.cuts_body, "connection broke"),
    "no JSON": (fake.is_no_json, "no completion in JSON: <html>a proxy's page"),
    "silence": (fake.is_silent, "silent for 1 s"),
    "silence after a piece": (fake.is_silent_after_a_piece, "silent for 1 s"),
    "no end": (fake.never_ends, "no end after 1.5 s"),
    "end without usage": (fake.completes(has_usage=False, ends=False), "cut after 1 pieces"),
}


# short ones only where they are meant to pass: an answer that comes must not be late on a busy machine
TIMEOUTS: dict[str, dict[str, Any]] = {
    "silence": {"read_timeout_s": 1.0},
    "silence after a piece": {"read_timeout_s": 1.0},
    "no end": {"deadline_s": 1.5},
}


@pytest.mark.parametrize("name", LOSING)
def test_lost_try_is_tried_again_and_counted(name: str) -> None:
    fault, _ = LOSING[name]
    with faulty(fault) as server, engine_at(server.url, **TIMEOUTS.get(name, {})) as engine:
        add(engine)

        assert collect(engine)["1"] == Finished("1", "7", fake.COMPLETION_TOKENS, 0, "stop", None, 1)
    assert len(server.documents) == 2


@pytest.mark.parametrize("name", LOSING)
def test_lost_tries_end_as_an_error_that_says_what_happened(name: str) -> None:
    fault, message = LOSING[name]
    with (
        faulty(fault, fault, fault) as server,
        engine_at(server.url, max_lost_tries=2, **TIMEOUTS.get(name, {})) as engine,
    ):
        add(engine)
        finished = collect(engine)["1"]

    assert (finished.finish_reason, finished.completion_tokens, finished.lost_tries) == ("error", 0, 2)
    assert "2 lost tries" in str(finished.error)
    assert message in str(finished.error)
    assert len(server.documents) == 2


@pytest.mark.parametrize("code", [302, 400, 404, 413, 422])
def test_rejected_request_is_an_error_at_once(code: int) -> None:
    with faulty(fake.status(code, "too long", Location="/elsewhere")) as server, engine_at(server.url) as engine:
        add(engine, "1")
        add(engine, "2")
        done = collect(engine)

    failed = [finished for finished in done.values() if finished.error]
    assert [(f.finish_reason, f.lost_tries) for f in failed] == [("error", 0)]
    assert f"HTTP {code}: too long" in str(failed[0].error)
    assert len(server.documents) == 2


@pytest.mark.parametrize(("fault", "lost"), [(fake.rejects_in_stream, 0), (fake.rejects_after_a_piece, 1)])
def test_request_rejected_in_the_stream_is_an_error_at_once(fault: Fault, lost: int) -> None:
    with faulty(fault) as server, engine_at(server.url) as engine:
        add(engine)
        finished = collect(engine)["1"]

    assert "no such token (400)" in str(finished.error)
    assert (finished.finish_reason, finished.lost_tries, len(server.documents)) == ("error", lost, 1)


@pytest.mark.parametrize("code", [401, 403])
def test_refused_key_is_a_dead_engine_that_names_the_variable_and_not_the_key(code: int) -> None:
    with (
        faulty(*[fake.says_of_key(code)] * 4) as server,
        engine_at(server.url) as engine,
        pytest.raises(EngineDead, match=f"HTTP {code}.*KEY_OF_TEST") as caught,
    ):
        drive_two(engine)

    shown = [str(caught.value), str(caught.value.__cause__), str(caught.value.__context__)]
    assert KEY not in "".join(shown)


def test_key_that_the_server_repeats_is_not_in_the_error() -> None:
    with faulty(fake.says_of_key(400)) as server, engine_at(server.url) as engine:
        add(engine)
        error = str(collect(engine)["1"].error)

    assert "bad Bearer [key]" in error
    assert KEY not in error


UNWANTED = {
    "no usage": (fake.completes(has_usage=False), "no usage"),
    "half a usage": (fake.completes(usage={"completion_tokens": None}), "no usage"),
    "more cached than sent": (fake.completes(usage={"prompt_tokens_details": {"cached_tokens": 4}}), "no usage"),
    "filtered": (fake.completes(finish_reason="content_filter"), "content_filter"),
    "other prompt": (fake.completes(usage={"prompt_tokens": 4}), "4 prompt tokens, 3 were sent"),
    "too long": (fake.completes(usage={"completion_tokens": 21}), "21 completion tokens, 20 were allowed"),
}


@pytest.mark.parametrize("name", UNWANTED)
def test_answer_that_was_not_asked_for_is_an_error_that_cost(name: str) -> None:
    fault, message = UNWANTED[name]
    with faulty(fault) as server, engine_at(server.url) as engine:
        add(engine)
        finished = collect(engine)["1"]

    assert message in str(finished.error)
    assert (finished.finish_reason, finished.text, finished.lost_tries) == ("error", "", 1)
    assert len(server.documents) == 1


def test_no_more_requests_are_at_the_server_than_allowed() -> None:
    with faulty(*[fake.held_until_released] * 6) as server, engine_at(server.url, max_in_flight=2) as engine:
        for i in range(6):
            add(engine, str(i))
        assert engine.step() == []
        assert engine.num_unfinished() == 6
        server.released.set()

        assert len(collect(engine)) == 6
    assert server.peak == 2


def test_aborted_request_at_the_server_counts_as_drawn_to_its_end_and_a_waiting_one_is_missing() -> None:
    with faulty(fake.is_silent_after_a_piece) as server, engine_at(server.url, max_in_flight=1) as engine:
        add(engine, "1")
        add(engine, "2")
        while not engine.unfinished_tokens():
            engine.step()
        add(engine, "3")

        assert engine.abort(["1", "3"]) == [Finished("1", "", 20, 0, "error", "aborted")]
        assert set(collect(engine)) == {"2"}
        assert engine.unfinished_tokens() == 0
    assert len(server.documents) == 2


def test_aborted_request_whose_answer_is_there_costs_what_it_says() -> None:
    with (
        faulty(fake.completes(), fake.held_until_released) as server,
        engine_at(server.url, max_in_flight=1) as engine,
    ):
        add(engine, "1")
        add(engine, "2")
        server.wait_for(2)  # the first has left the only slot

        assert engine.abort(["1"]) == [Finished("1", "", fake.COMPLETION_TOKENS, 0, "error", "aborted")]
        server.released.set()
        assert set(collect(engine)) == {"2"}


def test_aborted_request_between_two_tries_costs_what_was_lost() -> None:
    slept = threading.Event()

    async def sleep_for_ever(seconds: float) -> None:
        slept.set()
        await asyncio.sleep(3600)

    with faulty(fake.hangs_up) as server, engine_at(server.url, sleep=sleep_for_ever) as engine:
        add(engine, "1")
        assert slept.wait(30)

        assert engine.abort(["1"]) == [Finished("1", "", 20, 0, "error", "aborted")]
        assert engine.num_unfinished() == 0


def test_requests_a_minute_are_kept_to() -> None:
    time = VirtualTime()
    with faulty() as server, engine_at(server.url, time, requests_per_minute=30) as engine:
        for i in range(7):
            add(engine, str(i))
        collect(engine)

    assert time.now == pytest.approx((7 - 3) * 2)  # three at once, then one in two seconds


def test_plain_server_is_told_only_what_it_knows() -> None:
    with faulty() as server, engine_at(server.url) as engine:
        add(engine, sampling=SamplingSpec(temperature=0.3, top_p=0.9, stop=("\n",)), seed=(1 << 62) + 5)
        assert collect(engine)["1"].error is None

    assert server.documents[0] == {
        "model": "there",
        "prompt": [7, 8, 9],
        "max_tokens": 20,
        "temperature": 0.3,
        "top_p": 0.9,
        "stop": ["\n"],
        "seed": 5,
        "n": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("sampling", [SamplingSpec(top_k=4), SamplingSpec(structure=Structure(choice=("a", "b")))])
def test_plain_server_that_cannot_be_told_a_field_is_not_asked_unless_it_may_be_dropped(sampling: SamplingSpec) -> None:
    name = "structure" if sampling.structure else "top_k"
    with faulty() as server:
        with engine_at(server.url) as engine:
            add(engine, sampling=sampling)
            finished = collect(engine)["1"]
        with engine_at(server.url, drops_unsupported=True) as engine:
            add(engine, sampling=sampling)
            assert collect(engine)["1"].error is None

    assert f"cannot be told {name}" in str(finished.error)
    assert finished.lost_tries == 0
    assert [document.get("top_k") for document in server.documents] == [None]


def test_vllm_is_told_every_field_so_that_none_is_its_own_default() -> None:
    sampling = SamplingSpec(temperature=0.3, min_p=0.1, structure=Structure(regex="[0-9]+"))
    with faulty() as server, engine_at(server.url, dialect=Dialect.vllm, sends_seed=False) as engine:
        add(engine, sampling=sampling)
        assert collect(engine)["1"].error is None

    told = server.documents[0]
    assert (told["top_p"], told["top_k"], told["min_p"], told["repetition_penalty"]) == (1.0, 0, 0.1, 1.0)
    assert told["structured_outputs"] == {"regex": "[0-9]+"}
    assert "seed" not in told


def model_at(engine: EndpointEngine, url: str, **options: Any) -> ModelSpec:
    defaults = {"model": "there", "api_key_env": "KEY_OF_TEST", "read_timeout_s": 10.0}
    return dataclasses.replace(MODEL, endpoint=EndpointOptions(base_url=url, **defaults | options))


def test_limits_of_another_job_hold_from_the_next_request_on() -> None:
    time = VirtualTime()
    faults = [fake.status(503), *[fake.held_until_released] * 3]
    with faulty(*faults) as server, engine_at(server.url, time, max_in_flight=9) as engine:
        server.released.set()
        engine.load_weights(model_at(engine, server.url, max_in_flight=1, max_refused_tries=1, requests_per_minute=60))
        add(engine, "1")
        refused = collect(engine)["1"]
        for i in range(3):
            add(engine, str(i))
        done = collect(engine)

    assert "503" in str(refused.error)
    assert [finished.error for finished in done.values()] == [None] * 3
    assert (engine.max_num_seqs, server.peak) == (1, 1)
    assert time.now == pytest.approx(4)  # of an empty bucket
    assert all(KEY in {key.lower(): value for key, value in sent.items()}["authorization"] for sent in server.headers)


def test_server_that_draws_otherwise_is_another_model() -> None:
    with faulty() as server, engine_at(server.url) as engine, pytest.raises(InvalidInput, match="cannot be loaded"):
        engine.load_weights(model_at(engine, server.url, dialect=Dialect.vllm))


def test_weights_are_not_loaded_into_a_server() -> None:
    with faulty(fake.held_until_released) as server, engine_at(server.url) as engine:
        with pytest.raises(InvalidInput, match=r"sim: .*there"):
            engine.load_weights(MODEL)
        add(engine)
        with pytest.raises(ValueError, match="1 requests are inside"):
            engine.load_weights(MODEL)


def test_version_names_server_and_model_and_no_key() -> None:
    with engine_at("http://127.0.0.1:9/v1") as engine:
        assert engine.version == "endpoint 127.0.0.1:9 there"
