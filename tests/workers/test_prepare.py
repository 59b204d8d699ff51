"""Preparing problem sets, with the simulated tokenizer and with a real one built here."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from service.currency import Currency, worst_case
from service.endpoints import EndpointOptions, PromptForm
from service.errors import CorruptFile, InvalidInput
from service.jobs import FewShot, PromptSpec
from service.models import EngineOptions, ModelSpec
from service.pricing import Pricing
from service.records import PREPARED_SCHEMA, PROBLEM_SCHEMA
from service.sampling import SamplingSpec
from service.shards import check_file
from service.work import PrepareWork
from tests.workers.generate_attempts import COST, PRICE
from workers.prepare import decoder_of, first_prompt, load_tokenizer, prepare
from workers.prepared import read_prepared

PRICING = Pricing(cost=COST, price=PRICE)
QUESTIONS = ("one two", "one two three four", "two")
CHAT = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[assistant] "


def model(path: str = "", *, context_len: int = 64, simulated: bool = True) -> ModelSpec:
    return ModelSpec(
        name="m",
        path=path,
        revision="sha256:0",
        context_len=context_len,
        cost=COST,
        price=PRICE,
        engine=EngineOptions(simulated=simulated),
    )


def test_prompt_of_an_endpoint_without_a_tokenizer_is_reserved_by_its_bytes() -> None:
    options = EndpointOptions(base_url="http://127.0.0.1:1/v1", model="m", prompt_form=PromptForm.text)
    elsewhere = dataclasses.replace(model(simulated=False), endpoint=options)
    tokenizer, decode = load_tokenizer(elsewhere, PromptSpec()), decoder_of(elsewhere)

    (ids,) = tokenizer.encode_batch(["größer"])

    assert len(ids) == len("größer".encode()) + 1  # and one that begins the sequence
    assert decode is not None
    assert decode(ids) == "größer"
    with pytest.raises(InvalidInput, match="use_chat_template: false"):
        load_tokenizer(elsewhere, PromptSpec(use_chat_template=True))


def write_problems(directory: Path, questions: tuple[str, ...] = QUESTIONS) -> str:
    path = directory / "problems.parquet"
    rows = [
        {"problem_id": f"p{i}", "question": question, "reference": "7", "level": None, "structure": None}
        for i, question in enumerate(questions)
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=PROBLEM_SCHEMA), path)
    return str(path)


def work(directory: Path, **changes: object) -> PrepareWork:
    base = PrepareWork(
        model=model(),
        problems_path=write_problems(directory),
        num_problems=len(QUESTIONS),
        prompt=PromptSpec(template="{question}"),
        sampling=SamplingSpec(max_tokens=10),
        seed=0,
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def no_progress(done: int, total: int) -> None:
    assert done <= total


def word_tokenizer(directory: Path, *, chat_template: str | None = None) -> str:
    words = ["<unk>", "<bos>", "one", "two", "three", "four", "[", "]", "user", "assistant", "system"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", unk_token="<unk>")
    fast.chat_template = chat_template
    fast.save_pretrained(directory / "model")
    return str(directory / "model")


def test_prepare_writes_one_row_a_problem_in_order(tmp_path: Path) -> None:
    receipt = prepare(work(tmp_path), tmp_path / "out", no_progress)

    table = pq.read_table(receipt.path)
    check_file(receipt.path, receipt.sha256)
    assert table.schema.remove_metadata().equals(PREPARED_SCHEMA)
    assert table["problem_index"].to_pylist() == [0, 1, 2]
    assert table["prompt"].to_pylist() == list(QUESTIONS)
    assert table["prompt_tokens"].to_pylist() == [8, 19, 4]
    assert table["max_tokens"].to_pylist() == [10, 10, 10]


def test_prepared_file_reads_back_what_was_written(tmp_path: Path) -> None:
    receipt = prepare(work(tmp_path), tmp_path / "out", no_progress)

    prepared = read_prepared(receipt.path)

    assert prepared.problem_ids == ("p0", "p1", "p2")
    assert [prepared.tokens(i) for i in range(3)] == pq.read_table(receipt.path)["token_ids"].to_pylist()
    assert prepared.errors == {}


def test_prompt_id_changes_with_the_prompt_and_with_nothing_else(tmp_path: Path) -> None:
    def prompt_id(out: str, **changes: object) -> str:
        return read_prepared(prepare(work(tmp_path, **changes), tmp_path / out, no_progress).path).prompt_id

    assert prompt_id("a") == prompt_id("b", seed=1)
    assert prompt_id("a") != prompt_id("c", prompt=PromptSpec(template="{question} "))


def test_prepare_of_too_long_a_prompt_writes_the_reason_and_goes_on(tmp_path: Path) -> None:
    receipt = prepare(work(tmp_path, model=model(context_len=12)), tmp_path / "out", no_progress)

    rows = pq.read_table(receipt.path).to_pylist()
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert (rows[1]["token_ids"], rows[1]["prompt_tokens"], rows[1]["max_tokens"]) == ([], 0, 0)
    assert "19 tokens" in rows[1]["error"]
    assert (receipt.facts["num_valid"], receipt.facts["num_errors"]) == (2, 1)
    assert receipt.facts["longest_prompt_tokens"] == 19
    assert receipt.indices is not None
    assert receipt.indices.tolist() == [[1, 0]]
    assert receipt.usage.errors == 1


def test_max_tokens_is_what_the_context_leaves(tmp_path: Path) -> None:
    plan = work(tmp_path, model=model(context_len=24), sampling=SamplingSpec(max_tokens=None))

    receipt = prepare(plan, tmp_path / "out", no_progress)

    assert pq.read_table(receipt.path)["max_tokens"].to_pylist() == [24 - 8, 24 - 19, 24 - 4]


@pytest.mark.parametrize("currency", list(Currency))
def test_facts_price_one_sample_in_every_currency(tmp_path: Path, currency: Currency) -> None:
    facts = prepare(work(tmp_path), tmp_path / "out", no_progress).facts

    prices = [worst_case(currency, PRICING, prompt_tokens=n, max_tokens=10) for n in (8, 19, 4)]
    assert facts[f"min_worst_{currency}"] == min(prices)
    assert facts[f"mean_worst_{currency}"] == pytest.approx(sum(prices) / 3)


def test_facts_without_a_valid_problem_name_no_price(tmp_path: Path) -> None:
    facts = prepare(work(tmp_path, model=model(context_len=2)), tmp_path / "out", no_progress).facts

    assert facts["num_errors"] == 3
    assert not any("worst" in name for name in facts)


def test_prepare_takes_only_the_first_problems(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    receipt = prepare(work(tmp_path, num_problems=2), tmp_path / "out", lambda done, total: seen.append((done, total)))

    assert receipt.rows == 2
    assert seen[-1] == (2, 2)


def test_prepare_of_more_problems_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="4 problems wanted, it has 3"):
        prepare(work(tmp_path, num_problems=4), tmp_path / "out", no_progress)


def test_prepare_without_problem_file_names_it(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match=r"gone\.parquet"):
        prepare(work(tmp_path, problems_path=str(tmp_path / "gone.parquet")), tmp_path / "out", no_progress)


@pytest.mark.parametrize(("add_bos", "first"), [(True, 1), (False, 2)])
def test_real_tokenizer_gets_a_beginning_of_sequence_where_asked(tmp_path: Path, add_bos: bool, first: int) -> None:
    spec = model(word_tokenizer(tmp_path), simulated=False)
    plan = work(tmp_path, model=spec, prompt=PromptSpec(template="{question}", add_bos=add_bos))

    tokens = pq.read_table(prepare(plan, tmp_path / "out", no_progress).path)["token_ids"].to_pylist()

    assert tokens[0][0] == first
    assert tokens[0][-2:] == [2, 3]


def test_real_chat_template_wraps_question_and_examples(tmp_path: Path) -> None:
    prompt = PromptSpec(
        template="{question}",
        use_chat_template=True,
        add_bos=False,
        few_shot=FewShot(examples=(("three", "four"),), num_shots=1),
    )
    spec = model(word_tokenizer(tmp_path, chat_template=CHAT), simulated=False)

    receipt = prepare(work(tmp_path, model=spec, prompt=prompt), tmp_path / "out", no_progress)

    assert (
        pq.read_table(receipt.path)["prompt"][0].as_py() == "[user] three [assistant] four [user] one two [assistant] "
    )


def test_chat_template_takes_its_own_arguments(tmp_path: Path) -> None:
    template = "{{ messages[0].content }} {% if enable_thinking %}three{% else %}four{% endif %}"
    spec = model(word_tokenizer(tmp_path, chat_template=template), simulated=False)
    prompts = [
        PromptSpec(template="{question}", use_chat_template=True, template_kwargs={"enable_thinking": is_on})
        for is_on in (True, False)
    ]

    rendered = [
        read_prepared(prepare(work(tmp_path, model=spec, prompt=prompt), tmp_path / f"o{at}", no_progress).path)
        for at, prompt in enumerate(prompts)
    ]

    assert [each.prompts.to_pylist()[0] for each in rendered] == ["one two three", "one two four"]
    assert rendered[0].prompt_id != rendered[1].prompt_id


def test_first_prompt_is_the_one_that_preparing_makes(tmp_path: Path) -> None:
    spec = model(word_tokenizer(tmp_path, chat_template=CHAT), simulated=False)
    shots = FewShot(examples=(("three", "four"), ("two", "one")), num_shots=1, choice="per_problem")
    for at, is_chat in enumerate((True, False)):
        prompt = PromptSpec(template="{question}", use_chat_template=is_chat, few_shot=shots)
        prepared = read_prepared(
            prepare(work(tmp_path, model=spec, prompt=prompt), tmp_path / f"o{at}", no_progress).path
        )

        assert first_prompt(spec, prompt, write_problems(tmp_path), 0) == prepared.prompts.to_pylist()[0]


def test_chat_template_that_is_missing_is_refused(tmp_path: Path) -> None:
    spec = model(word_tokenizer(tmp_path), simulated=False)
    plan = work(tmp_path, model=spec, prompt=PromptSpec(use_chat_template=True))

    with pytest.raises(InvalidInput, match="has no chat template"):
        prepare(plan, tmp_path / "out", no_progress)


def test_chat_template_that_refuses_the_messages_is_refused_with_its_reason(tmp_path: Path) -> None:
    path = word_tokenizer(tmp_path, chat_template="{{ raise_exception('no system role') }}")
    plan = work(tmp_path, model=model(path, simulated=False), prompt=PromptSpec(use_chat_template=True, system="s"))

    with pytest.raises(InvalidInput, match=r"system, user.*no system role"):
        prepare(plan, tmp_path / "out", no_progress)


def test_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(InvalidInput, match="no tokenizer"):
        prepare(work(tmp_path, model=model(str(tmp_path / "empty"), simulated=False)), tmp_path / "out", no_progress)


def text_endpoint(path: str) -> ModelSpec:
    options = EndpointOptions(base_url="http://127.0.0.1:1/v1", model="m", prompt_form=PromptForm.text)
    return dataclasses.replace(model(path, simulated=False), endpoint=options)


def test_text_that_a_server_is_sent_keeps_the_spaces_that_a_tokenizer_would_clean_up(tmp_path: Path) -> None:
    words = ["<unk>", "<bos>", "one", "two", ",", "!"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", unk_token="<unk>", clean_up_tokenization_spaces=True
    )
    fast.save_pretrained(tmp_path / "model")
    elsewhere = text_endpoint(str(tmp_path / "model"))
    path = write_problems(tmp_path / "model", ("one , two !", "one  two", "three"))
    prompt = PromptSpec(template="{question}", add_bos=True)

    prepared = read_prepared(
        prepare(work(tmp_path, model=elsewhere, prompt=prompt, problems_path=path), tmp_path / "out", no_progress).path
    )

    decode = decoder_of(elsewhere)
    assert decode is not None
    assert decode(prepared.tokens(0)) == prepared.prompts.to_pylist()[0] == "one , two !"
    # what the tokenizer does not give back is not drawn for: the server would see something else
    assert set(prepared.errors) == {1, 2}
    assert "prompt is another text" in prepared.errors[1]


def test_prepare_twice_keeps_the_first_file(tmp_path: Path) -> None:
    first = prepare(work(tmp_path), tmp_path / "out", no_progress)

    assert prepare(work(tmp_path), tmp_path / "out", no_progress).sha256 == first.sha256
