"""The shipped tokenizer and weights, and the training code that made them."""

# conftest.py puts the folder of the example on the path at run time
# pyright: reportMissingImports=false

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from gsm_mini.checker import check
from gsm_mini.corpus import corpus_pairs
from gsm_mini.model import SMALL, Reasoner, save_checkpoint
from gsm_mini.tokenizer import BOS, BOS_ID, CONTEXT_TOKENS, EOS_ID, build_tokenizer, prompt_ids, prompt_text
from gsm_mini.training import Example, Recipe, collate, encode_pairs, train
from gsm_mini.world import problem_from_row
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

PARAMETERS = {"gsm-mini-small": 196_288, "gsm-mini-early": 196_288, "gsm-mini-large": 592_800}
VOCABULARY_SIZE = 114


@pytest.fixture(scope="module")
def tokenizer(example: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(example / "models" / "gsm-mini-small")


def greedy_completion(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    """Most likely tokens after the prompt, `<eos>` included, 40 at most."""
    token_ids = list(prompt)
    with torch.inference_mode():
        while len(token_ids) < len(prompt) + 40 and token_ids[-1] != EOS_ID:
            token_ids.append(int(model(torch.tensor([token_ids])).logits[0, -1].argmax()))
    return token_ids[len(prompt) :]


def tiny_examples(tokenizer: PreTrainedTokenizerFast, num_examples: int) -> list[Example]:
    return encode_pairs(tokenizer, corpus_pairs(num_examples))


def test_tokenizer_shipped_is_what_the_recipe_builds(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) == VOCABULARY_SIZE
    assert build_tokenizer().get_vocab() == tokenizer.get_vocab()


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_tokenizer_is_the_same_for_every_model(example: Path, name: str) -> None:
    def content(model: str) -> bytes:
        return (example / "models" / model / "tokenizer.json").read_bytes()

    assert content(name) == content("gsm-mini-small")


def test_tokenizer_round_trip_is_exact(
    tokenizer: PreTrainedTokenizerFast, shipped_rows: dict[str, list[Any]]
) -> None:  # fmt: skip
    texts = [prompt_text(row["question"]) + row["solution"] for rows in shipped_rows.values() for row in rows]
    token_ids = tokenizer(texts)["input_ids"]

    assert tokenizer.batch_decode(token_ids) == texts
    assert not any(tokenizer.unk_token_id in ids for ids in token_ids)


def test_tokenizer_prompt_and_solution_split_alike_together_and_apart(
    tokenizer: PreTrainedTokenizerFast, shipped_rows: dict[str, list[Any]]
) -> None:
    for row in shipped_rows["transfer"]:
        prompt, solution = prompt_text(row["question"]), row["solution"]
        assert tokenizer(prompt + solution)["input_ids"] == (
            tokenizer(prompt)["input_ids"] + tokenizer(solution)["input_ids"]
        )


def test_tokenizer_adds_no_bos_and_reads_a_written_one(tokenizer: PreTrainedTokenizerFast) -> None:
    question = "Ann has 12 pens. She uses 5 pens. How many pens does she have now?"

    assert tokenizer(prompt_text(question))["input_ids"][0] != BOS_ID
    assert tokenizer(BOS + prompt_text(question))["input_ids"] == prompt_ids(tokenizer, question)


def test_problems_with_their_solutions_fit_the_context(
    tokenizer: PreTrainedTokenizerFast, shipped_rows: dict[str, list[Any]]
) -> None:
    lengths = [
        len(prompt_ids(tokenizer, row["question"])) + len(tokenizer(row["solution"])["input_ids"]) + 1
        for rows in shipped_rows.values()
        for row in rows
    ]

    assert max(lengths) < 0.9 * CONTEXT_TOKENS


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_weights_have_the_stated_number_of_parameters(example: Path, name: str, parameters: int) -> None:
    with safe_open(example / "models" / name / "model.safetensors", framework="pt") as weights:
        sizes = [weights.get_tensor(tensor).numel() for tensor in weights.keys()]  # noqa: SIM118

    assert sum(sizes) == parameters


def test_weights_together_are_small(example: Path) -> None:
    assert sum(path.stat().st_size for path in (example / "models").rglob("*") if path.is_file()) < 6_000_000


def test_shipped_model_solves_easy_problems_greedily(
    example: Path, tokenizer: PreTrainedTokenizerFast, shipped_rows: dict[str, list[Any]]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(example / "models" / "gsm-mini-small")
    rows = [row for row in shipped_rows["validation"] if row["level"] == 1][:20]
    completions = [greedy_completion(model, prompt_ids(tokenizer, row["question"])) for row in rows]
    solved = [
        check(problem_from_row(row), str(tokenizer.decode(completion[:-1]))).reason == "ok"
        for row, completion in zip(rows, completions, strict=True)
    ]

    assert {completion[-1] for completion in completions} == {EOS_ID}
    assert sum(solved) >= 10


def test_saved_checkpoint_gives_the_same_logits_in_transformers(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Reasoner(SMALL, VOCABULARY_SIZE)
    token_ids = torch.randint(0, VOCABULARY_SIZE, (2, 30))
    save_checkpoint(model, tmp_path)

    with torch.inference_mode():
        ours = model.logits(model(token_ids))
        theirs = LlamaForCausalLM.from_pretrained(tmp_path)(token_ids).logits

    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_collate_labels_cover_the_solutions_only(tokenizer: PreTrainedTokenizerFast) -> None:
    examples = tiny_examples(tokenizer, 4)
    token_ids, labels = collate(examples)

    for row, example in enumerate(examples):
        assert labels[row][labels[row] >= 0].tolist() == example.solution
        assert token_ids[row, : example.num_tokens].tolist() == example.prompt + example.solution
        assert example.solution[-1] == EOS_ID


def test_training_same_seed_gives_same_losses_and_learns(tokenizer: PreTrainedTokenizerFast) -> None:
    examples = tiny_examples(tokenizer, 160)
    recipe = Recipe(batch_size=16, warmup_steps=2, log_every=5)

    def losses() -> list[float]:
        torch.manual_seed(0)
        model = Reasoner(SMALL, VOCABULARY_SIZE)
        history = train(model, random.Random(0).sample(examples, 160), recipe, report=lambda entry, total: None)
        return [entry.loss for entry in history]

    first = losses()
    assert first == losses()
    assert first[-1] < first[0]
