"""The endpoint engine against vLLM's own server: it draws what an engine in the process draws of the same tokens."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.endpoints import Dialect, EndpointOptions
from service.sampling import SamplingSpec, Structure
from tests.engine.drive_engine import model_spec
from tests.engine.drive_greedy import greedy
from tests.engine.own_process import drive
from tests.engine.tiny_llama import CHARACTERS, build_model, perturb
from tests.engine.vllm_server import vllm_server
from workers.endpoint_engine import EndpointEngine
from workers.engine_protocol import EngineDead, Finished

KEY = "key-of-the-test"
STOP = ("=", "a#")
PROMPT_TOKENS = 150  # more than one block of keys and values, which is 128 tokens on a CPU


def prompts() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(3, len(CHARACTERS), PROMPT_TOKENS).tolist() for _ in range(40)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, Path]]:
    """Address, and the folder of model and prompts."""
    folder = tmp_path_factory.mktemp("endpoint")
    build_model(folder / "model")
    perturb(folder / "model", 1)
    (folder / "prompts.json").write_text(json.dumps(prompts()))
    with vllm_server(model_spec(folder / "model"), log=folder / "server.log", api_key=KEY) as url:
        yield url, folder


def engine_at(url: str, *, key: str = KEY, **options: Any) -> EndpointEngine:
    defaults = {"model": "tiny", "api_key_env": "KEY_OF_TEST", "dialect": Dialect.vllm, "sends_seed": False}
    return EndpointEngine(EndpointOptions(base_url=url, **defaults | options), api_key=key)


def draw(engine: EndpointEngine, token_ids: list[int], **sampling: Any) -> Finished:
    engine.add("1", token_ids, max_tokens=8, sampling=SamplingSpec(**sampling), seed=0)
    while True:
        if finished := engine.step():
            return finished[0]


@pytest.mark.engine
@pytest.mark.timeout(600)  # two engines start, one after the other: it may be the first to need the server
def test_server_draws_what_the_engine_in_the_process_draws(server: tuple[str, Path]) -> None:
    url, folder = server
    expected = drive("drive_greedy.py", model_spec(folder / "model"), folder, *STOP)

    streamed, whole = engine_at(url), engine_at(url, stream=False, max_in_flight=8)
    try:
        assert greedy(streamed, prompts(), ()) == expected["plain"]
        assert greedy(whole, prompts(), ()) == expected["plain"]
        assert greedy(streamed, prompts(), STOP) == expected["stopped"]
    finally:
        streamed.close()
        whole.close()
    assert len({text for text, *_ in expected["plain"]}) > 30
    assert {reason for _, _, reason, _ in expected["stopped"]} == {"stop", "length"}


@pytest.mark.engine
def test_server_counts_cached_tokens_and_keeps_to_structures_and_its_refusals_are_errors(
    server: tuple[str, Path],
) -> None:
    engine = engine_at(server[0])
    try:
        prompt = prompts()[0][::-1]
        first, second = draw(engine, prompt), draw(engine, prompt)
        assert (first.error, first.cached_tokens) == (None, 0)
        assert second.cached_tokens > 0
        assert draw(engine, prompt, structure=Structure(choice=("12", "12"))).text == "12"
        refused = draw(engine, [9_999])
        assert "vocab" in str(refused.error)
        assert (refused.finish_reason, refused.lost_tries) == ("error", 0)
    finally:
        engine.close()


@pytest.mark.engine
def test_server_that_does_not_know_the_key_is_a_dead_engine(server: tuple[str, Path]) -> None:
    engine = engine_at(server[0], key="another-key")
    try:
        with pytest.raises(EngineDead, match=r"HTTP 401.*KEY_OF_TEST"):
            draw(engine, [5])
    finally:
        engine.close()
