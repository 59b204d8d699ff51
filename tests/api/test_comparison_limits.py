"""Documents of comparisons and evaluations that the control loop could not carry out are refused when submitted."""

import dataclasses
import json
from typing import Any

import pytest

from service.problems import ProblemSource, register_problems
from tests.api.conftest import World, model_spec

LENGTHS = {"prompt_tokens": 30, "completion_tokens": 28}


@pytest.fixture
def compared(world: World) -> World:
    """A service with a problem set for every split and a model that can be trained."""
    for split, first in (("validation", 100), ("test", 200)):
        path = world.root / f"{split}.jsonl"
        path.write_text("\n".join(json.dumps({"id": f"p{i}", "question": f"{i}?", "answer": i}) for i in (first,)))
        registered = register_problems(
            name=f"sums/{split}", source=ProblemSource(path=str(path)), data_dir=world.settings.data_dir
        )
        world.store.catalogue.register_problems(registered)
    world.store.catalogue.register_model(model_spec("student"))
    world.store.catalogue.register_model(dataclasses.replace(model_spec("huge", scale=12), context_len=512))
    return world


def document(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": "two arms",
        "problems": {"train": "sums/train", "validation": "sums/validation", "test": "sums/test"},
        "match": {"reference": "first", "samples_per_problem": 2},
        "arms": [{"name": "first", "models": ["simulated"]}, {"name": "second", "models": ["simulated"]}],
        "students": [{"name": "student", "base": "student"}],
        "sampling": {"max_tokens": 40},
        "finetune": {"preset": "tiny", "training": {"max_length": 64}},
    }
    return made | changes


def arm(**changes: Any) -> dict[str, Any]:
    return {"name": "first", "models": ["simulated"]} | changes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"finetune": {"preset": "tiny", "learning_rates": [1e-6, 1e-6]}}, "that differ in six digits"),
        ({"finetune": {"preset": "tiny", "learning_rates": [1e-6, 1.0000001e-6]}}, "that differ in six digits"),
        ({"match": {"reference": "first", "samples_per_problem": 10**18}}, "at most 1000000"),
        ({"match": {"reference": "first", "samples_per_problem": list(range(1, 9999))}}, "allowed: 20,000"),
        ({"evaluate": {"maj_at": [10**18]}}, "at most 256"),
        ({"select": {"keep": "judged"}}, "arms.first: keep 'judged' needs `judge`, which says who judges"),
        ({"judge": {"model": "simulated"}}, "judge: got one that nobody asks, allowed with keep 'judged'"),
        ({"select": {"keep": "judged"}, "judge": {"model": "simulated", "ask": "?"}}, "without {question} and"),
        ({"select": {"keep": "judged"}, "judge": {"model": "nobody"}}, "unknown model 'nobody'"),
        ({"prompt": {"use_chat_template": True}}, "prompt.use_chat_template: got true, but model simulated has no"),
        (
            {"select": {"keep": "judged"}, "judge": {"model": "simulated", "prompt": {"use_chat_template": True}}},
            "judge.prompt.use_chat_template: got true",
        ),
        ({"select": {"keep": "judged"}, "judge": {"model": "simulated", "keep": "verified"}}, "judge.keep: 'verified'"),
        (
            {"select": {"keep": "judged"}, "judge": {"model": "simulated", "sampling": {"max_tokens": 4000}}},
            "judge.sampling.max_tokens",
        ),
        ({"arms": [arm(sampling={"max_tokens": 4000})]}, "arms.first.sampling.max_tokens"),
        ({"arms": [arm(name="a" * 101)], "match": {"reference": "a", "samples_per_problem": 1}}, "arms"),
        ({"students": [{"name": "s" * 101, "base": "student"}]}, "students"),
        ({"arms": [arm(rounds=2)]}, "arms.first.rounds: got 2, allowed of the reference arm: 1 to 1"),
        ({"arms": [arm(), arm(name="second", rounds=101)]}, "rounds"),
        ({"arms": [arm(), arm(name="second", rounds=50)]}, "got 50, allowed with these steps and budgets: 1 to 12"),
        ({"arms": [arm(), arm(name="second", rounds=2)], "students": []}, "allowed without students: 1 to 1"),
        (
            {"arms": [arm(), arm(name="second", allocation={"strategy": "adastar", "history": ["job-1-000000"]})]},
            "arms.second.allocation.history",
        ),
        (
            {
                "match": {"reference": "first", "samples_per_problem": 2, "by": "nominal"} | LENGTHS,
                "arms": [arm(), arm(name="second", models=["huge"], rounds=2)],
            },
            "arms.second.rounds: got 2, allowed with these steps and budgets: 1 to 1",
        ),
        (
            {"arms": [arm(), arm(name="second", models=["huge"], rounds=2, sampling={"max_tokens": 300})]},
            "arms.second.sampling.max_tokens: got 300, allowed: 1 to 255, for student",
        ),
        ({"match": {"reference": "first", "samples_per_problem": 2, "by": "nominal"}}, "needs prompt_tokens and"),
        ({"match": {"reference": "first", "samples_per_problem": 2, "prompt_tokens": 5}}, "allowed without nominal"),
    ],
)
def test_comparison_that_no_tick_could_carry_out_is_refused(
    compared: World, changes: dict[str, Any], words: str
) -> None:
    with compared.client() as client:
        assert client.post("/v1/comparisons", params={"dry_run": True}, json=document()).status_code == 200
        response = client.post("/v1/comparisons", params={"dry_run": True}, json=document(**changes))

    assert response.status_code == 422, response.text
    assert words in response.text


SERVER = {"base_url": "http://127.0.0.1:8000/v1", "model": "big"}


@pytest.fixture
def elsewhere(compared: World) -> World:
    """With a model at a server that is told neither top_k nor min_p."""
    with compared.client() as client:
        body = {"name": "api", "endpoint": SERVER, "context_len": 256}
        assert client.post("/v1/models", json=body).status_code == 201
    return compared


def test_sampling_that_a_model_never_draws_with_is_not_held_against_it(elsewhere: World) -> None:
    judge = {"model": "api", "sampling": {"max_tokens": 40}}
    match = {"reference": "first", "samples_per_problem": 2, "by": "number"}
    judged = document(sampling={"max_tokens": 40, "top_k": 20}, judge=judge, select={"keep": "judged"}, match=match)
    drawing = judged | {"arms": [arm(), arm(name="second", models=["api"], sampling={"max_tokens": 40})]}
    shared = judged | {"arms": [arm(), arm(name="second", models=["api"])]}

    with elsewhere.client() as client:
        answers = [
            client.post("/v1/comparisons", params={"dry_run": True}, json=body) for body in (judged, drawing, shared)
        ]

    assert [answer.status_code for answer in answers] == [200, 200, 422], [answer.text for answer in answers]
    assert "sampling: got top_k with api" in answers[2].text


def test_comparison_that_would_send_prompts_to_a_server_not_allowed_any_more_is_refused(elsewhere: World) -> None:
    elsewhere.settings.endpoints.pop("http://127.0.0.1:8000/v1/")
    judged = document(judge={"model": "api", "sampling": {"max_tokens": 40}}, select={"keep": "judged"})

    with elsewhere.client() as client:
        response = client.post("/v1/comparisons", json=judged)

    assert response.status_code == 422
    assert "server of api: got 'http://127.0.0.1:8000/v1', allowed: https://open.ex" in response.json()["detail"]


def test_rounds_and_lengths_come_back_as_they_were_asked_for(compared: World) -> None:
    asked = document(
        match={"reference": "first", "samples_per_problem": 2, "by": "nominal"} | LENGTHS,
        arms=[arm(), arm(name="star", rounds=3, warm_start=False, allocation={"strategy": "adastar", "collect": 4})],
    )
    with compared.client() as client:
        plan = client.post("/v1/comparisons", params={"dry_run": True}, json=asked).json()
        again = client.post("/v1/comparisons", params={"dry_run": True}, json=plan["document"]).json()

    star = plan["document"]["arms"][1]
    assert again == plan
    assert (star["rounds"], star["warm_start"], star["allocation"]["collect"]) == (3, False, 4)
    assert {name: plan["document"]["match"][name] for name in LENGTHS} == LENGTHS


def test_evaluation_with_a_vote_of_too_many_is_refused(compared: World) -> None:
    body = {"model": "simulated", "problems": "sums/train", "evaluate": {"maj_at": [10**18]}}
    with compared.client() as client:
        response = client.post("/v1/evaluations", json=body)

    assert response.status_code == 422
    assert "at most 256" in response.text
