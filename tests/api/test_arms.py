"""Jobs of several arms as documents: combinations and lists, what is refused, and what stays as it was."""

import dataclasses

import pytest
from starlette.testclient import TestClient

from api.resolve import document_of, to_job_spec
from api.wire.job_document import JobDocument
from service.jobs import JobSpec, PromptSpec
from service.sampling import ModelSampling, SamplingSpec
from service.store.codec import address_of, from_json, to_json
from tests.api.conftest import model_spec

PLAIN = {"name": "plain", "template": "plain"}
ONE_AND_ONE = [{"name": "a", "model": "small"}, {"name": "b", "model": "small", "prompt": {"system": "x"}}]
COACHED = {"name": "coached", "system": "Think."}


def resolve(world, document: dict[str, object]) -> JobSpec:
    return to_job_spec(JobDocument.model_validate(document), world.store)[0]


def test_dry_run_says_which_prompt_cannot_be_shown_and_shows_the_rest(world, client: TestClient, job_document) -> None:
    prompts = [{"name": "plain"}, {"name": "chat", "use_chat_template": True}]

    response = client.post("/v1/jobs?dry_run=true", json=job_document(prompts=prompts))

    assert response.status_code == 200, response.text
    plain, chat = response.json()["arms"]
    assert (plain["not_shown"], "What is 0 + 1?" in plain["first_prompt"]) == (None, True)
    assert chat["first_prompt"] is None
    assert chat["not_shown"].startswith("the chat template of small is in /models/small, which the service does not")


def test_lists_make_all_combinations_in_order(world, job_document) -> None:
    document = job_document(
        models=["small", "org/large"], prompts=[PLAIN, COACHED], sampling={"temperatures": [0.3, 1], "max_tokens": 9}
    )
    spec = resolve(world, document)
    assert [arm.name for arm in spec.arms] == [
        f"{model} {prompt} t={temperature}"
        for model in ("small", "org/large")
        for prompt in ("plain", "coached")
        for temperature in ("0.3", "1")
    ]
    last = spec.arm("org/large coached t=1")
    assert (last.model, last.prompt, last.sampling) == (
        "org/large",
        PromptSpec(system="Think."),
        SamplingSpec(temperature=1.0, max_tokens=9),
    )


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"sampling": {"temperatures": [0.2, 0.4]}}, ["t=0.2", "t=0.4"]),
        ({"prompts": [PLAIN, COACHED]}, ["plain", "coached"]),
        ({"samplings": [{"name": "cold", "temperature": 0}, {"name": "own"}], "prompts": [COACHED]}, ["cold", "own"]),
    ],
)
def test_names_say_what_several_of_are(world, job_document, changes, names) -> None:
    assert [arm.name for arm in resolve(world, job_document(**changes)).arms] == names


def test_job_of_one_prompt_and_sampling_is_stored_as_it_ever_was(world, job_document) -> None:
    plain = resolve(world, job_document(models=["small", "org/large"], sampling={"temperature": 0.5}))
    for same in (
        {"sampling": {"temperatures": [0.5]}},
        {"prompts": [PLAIN], "samplings": [{"name": "one", "temperature": 0.5}]},
        {"models": None, "arms": [{"name": m, "model": m} for m in plain.models], "sampling": {"temperature": 0.5}},
    ):
        document = {"models": ["small", "org/large"], **same}
        assert address_of(resolve(world, job_document(**document))) == address_of(plain)
    # what a release before arms has stored, and what it was found by
    old = to_json(plain).replace(',"arms":[]', "").replace(',"equal":"samples"', "")
    assert "arms" not in old
    assert "equal" not in old
    assert from_json(JobSpec, old) == plain
    assert [arm.name for arm in plain.all_arms] == ["small", "org/large"]


def test_resolved_document_asks_for_the_same_again(world, job_document) -> None:
    document = job_document(
        arms=[
            {"name": "a", "model": "small", "prompt": {"system": "Think."}},
            {"name": "b c", "model": "org/large", "sampling": {"temperature": 0}},
        ],
        models=None,
        allocation={"equal": "budget"},
        budget={"tokens": 1000000},
        sampling={"temperature": 0.4},
    )
    spec = resolve(world, document)
    assert [arm.sampling.temperature for arm in spec.arms] == [0.4, 0.0]
    again = resolve(world, document_of(spec, 8))
    assert again == dataclasses.replace(spec, name=again.name)


def test_submitting_keeps_the_arms(world, client: TestClient, job_document) -> None:
    document = job_document(sampling={"temperatures": [0.2, 0.4]})
    answer = client.post("/v1/jobs", json=document).json()
    assert [arm["name"] for arm in answer["document"]["arms"]] == ["t=0.2", "t=0.4"]
    assert answer["document"]["models"] == ["small"]
    assert [arm.name for arm in world.store.jobs.get(answer["id"]).spec.arms] == ["t=0.2", "t=0.4"]


def test_dry_run_shows_the_prompt_and_the_sampling_of_each_arm(client: TestClient, job_document) -> None:
    document = job_document(prompts=[PLAIN, COACHED], sampling={"temperatures": [0.2, 0.4]})
    plan = client.post("/v1/jobs?dry_run=true", json=document).json()
    arms = plan["arms"]
    assert [cost["arm"] for cost in plan["cost_per_sample"]] == [arm["name"] for arm in arms]
    assert [arm["sampling"]["temperature"] for arm in arms] == [0.2, 0.4, 0.2, 0.4]
    assert ["Think." in arm["first_prompt"] for arm in arms] == [False, False, True, True]
    assert len({arm["prompt_id"] for arm in arms}) == len({arm["sampling_id"] for arm in arms}) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": [{"name": "a", "model": "org/large"}]}, "no models, or those of the arms in their order: org/large"),
        ({"models": None}, "got neither models nor arms, allowed: models, or arms"),
        (
            {"arms": [{"name": "a", "model": "small"}], "prompts": [PLAIN]},
            "got arms and prompts, allowed: arms, or lists of which all combinations are made",
        ),
        ({"prompt": {"system": "x"}, "prompts": [PLAIN]}, "one of prompt and prompts"),
        ({"sampling": {"temperature": 1, "temperatures": [1]}}, "one of temperature and temperatures"),
        ({"sampling": {"temperatures": [0.1, 0.1]}}, "temperatures that differ"),
        ({"sampling": {"temperatures": [0.0, -0.0]}}, "temperatures that differ"),
        (
            {"samplings": [{"name": "a", "temperature": 0.0}, {"name": "b", "temperature": -0.0}]},
            "got 'a' and 'b', which",
        ),
        (
            {"models": None, "arms": [{"name": f"a{n}", "model": "small"} for n in range(33)]},
            "arms: got 33; allowed: at most 32",
        ),
        ({"sampling": {"temperatures": [0.1, 0.2], "max_tokens": 4000}}, "sampling.max_tokens: got 4000"),
        (
            {"prompts": [PLAIN, COACHED], "samplings": [{"name": "a"}, {"name": "b", "max_tokens": 4000}]},
            "samplings.1.max_tokens: got 4000",
        ),
        (
            {"models": ["simulated"], "prompts": [PLAIN, COACHED | {"use_chat_template": True}]},
            "prompts.1.use_chat_template: got true",
        ),
        (
            {"models": None, "arms": ONE_AND_ONE, "sampling": {"max_tokens": 4000}},
            "sampling.max_tokens: got 4000, allowed",
        ),
        ({"prompts": [PLAIN, PLAIN]}, "got plain, plain, allowed: prompts that differ"),
        (
            {"prompts": [PLAIN, {"name": "same"}]},
            "got 'plain' and 'same', which draw the same: small with one prompt and one sampling",
        ),
        (
            {
                "prompts": [{"name": f"p{n}", "system": str(n)} for n in range(11)],
                "sampling": {"temperatures": [0.1, 0.2, 0.3]},
            },
            "arms: got 33, 11 prompts times 3 samplings; allowed: at most 32",
        ),
        ({"sampling": {"temperatures": [0.1, 3]}}, "sampling.temperatures.1: got 3, allowed: less than or equal to 2"),
        ({"stage": "evaluate", "sampling": {"temperatures": [0.1, 0.2]}}, "allowed: one prompt and one sampling"),
        ({"arms": [{"name": "a,b", "model": "small"}]}, "arms.0.name: got 'a,b'"),
        (
            {"allocation": {"strategy": "until_correct", "equal": "budget"}},
            "got equal with strategy 'until_correct', allowed with it",
        ),
    ],
)
def test_arms_that_make_no_sense_are_refused(client: TestClient, job_document, changes, message) -> None:
    response = client.post("/v1/jobs", json=job_document(**changes))
    assert response.status_code == 422
    assert message in (detail := response.json()["detail"])
    assert not message.startswith(("sampling.", "samplings.", "prompts.")) or detail.startswith(message)


def test_document_of_many_models_can_be_submitted_again(world, job_document) -> None:
    names = [f"m{at}" for at in range(20)]
    for name in names:
        world.store.catalogue.register_model(model_spec(name))
    arms = [{"name": f"arm {name}", "model": name} for name in names]
    spec = resolve(world, job_document(models=None, arms=arms))

    assert resolve(world, document_of(spec, 6)) == spec


def test_arms_that_a_model_is_told_the_same_for_are_refused(world, client: TestClient, job_document) -> None:
    own = ModelSampling(top_p=0.8)
    world.store.catalogue.register_model(dataclasses.replace(model_spec("opinionated"), sampling=own))
    samplings = [{"name": "own"}, {"name": "said", "top_p": 0.8}]
    response = client.post("/v1/jobs", json=job_document(models=["opinionated"], samplings=samplings))
    assert "got 'own' and 'said', which draw the same" in response.json()["detail"]
