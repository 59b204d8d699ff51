"""What the judge is trained on and how, the measure of judges, and the judge that lies in the repository."""

# conftest.py puts the folder of the example on the path at run time
# pyright: reportMissingImports=false

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from gsm_mini.checker import check, problem_from_row
from gsm_mini.judge_examples import JudgeExample, judge_examples
from gsm_mini.judge_measures import Verdict, judge_rates
from gsm_mini.judge_training import FRESH_LAYERS, JudgeRecipe, JudgeTrainer, train_judge
from gsm_mini.judging import NO, YES, judge_problems, judge_question, judged, written_judgements
from gsm_mini.model import LARGE, SMALL, Reasoner, Shape, load_checkpoint, normalise, save_checkpoint
from gsm_mini.tokenizer import EOS_ID, build_tokenizer, prompt_ids
from gsm_mini.training import collate
from gsm_mini.world import Problem
from train import JUDGE_PROBLEMS, published_questions
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast


@pytest.fixture(scope="module")
def tokenizer(example: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(example / "models" / "gsm-mini-judge")


@pytest.fixture(scope="module")
def examples(tokenizer: PreTrainedTokenizerFast) -> list[JudgeExample]:
    return judge_examples(tokenizer, written_judgements(judge_problems(24, (), "test")))


def start(example: Path, tokenizer: PreTrainedTokenizerFast, examples: list[JudgeExample]) -> JudgeTrainer:
    torch.manual_seed(0)
    trainer = JudgeTrainer(example / "models" / "gsm-mini-large", LARGE, tokenizer)
    trainer.prepare(examples)
    return trainer


def test_judge_examples_ask_what_the_service_asks_and_mark_sound_beginnings(
    tom: Problem, tokenizer: PreTrainedTokenizerFast
) -> None:
    text = "First 3*6=18. Then 46+18=65. Next 3*6=18. #### 65"
    (example,) = judge_examples(tokenizer, [judged(tom, text)])
    asked = [
        (str(tokenizer.decode(example.prompt[example.first_token : position + 1])).rstrip(), holds)
        for position, holds in example.steps
    ]

    assert example.prompt == prompt_ids(tokenizer, judge_question(tom.question, text))
    assert example.solution == [tokenizer.get_vocab()[NO], EOS_ID]
    assert asked == [
        ("First 3*6=18.", True),
        ("First 3*6=18. Then 46+18=65.", False),
        ("First 3*6=18. Then 46+18=65. Next 3*6=18.", False),
    ]


def test_judge_examples_too_long_for_the_context_are_left_out(tom: Problem, tokenizer: PreTrainedTokenizerFast) -> None:
    assert judge_examples(tokenizer, [judged(tom, "3*6=18. " * 40)]) == []


def test_saved_model_with_a_head_of_its_own_gives_the_same_logits_in_transformers(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = Reasoner(Shape(hidden_size=64, num_layers=2, num_heads=2, mlp_size=96, ties_embeddings=False), 10)
    save_checkpoint(model, tmp_path)
    token_ids = torch.randint(0, 10, (2, 7))
    llama = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)

    assert not torch.equal(model.head.weight, model.embedding.weight)
    with torch.inference_mode():
        torch.testing.assert_close(llama(token_ids).logits, model.logits(model(token_ids)), rtol=1e-4, atol=1e-4)


def test_load_checkpoint_gives_the_saved_model_back_with_room_for_more_words(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = Reasoner(SMALL, 10)
    save_checkpoint(model, tmp_path)
    token_ids = torch.randint(0, 10, (2, 7))
    loaded = load_checkpoint(tmp_path, SMALL, 12)

    with torch.inference_mode():
        torch.testing.assert_close(loaded.logits(loaded(token_ids))[..., :10], model.logits(model(token_ids)))
    with pytest.raises(ValueError, match="has 10 tokens; allowed: 9 or fewer"):
        load_checkpoint(tmp_path, SMALL, 9)


def test_judge_reads_as_the_reasoner_does(
    example: Path, tokenizer: PreTrainedTokenizerFast, examples: list[JudgeExample]
) -> None:
    trainer = start(example, tokenizer, examples)
    reasoner = load_checkpoint(example / "models" / "gsm-mini-large", LARGE, len(tokenizer))
    token_ids, labels = collate(examples)
    is_solution = torch.zeros_like(labels, dtype=torch.bool)
    for row, asked in enumerate(examples):
        is_solution[row, asked.first_token : len(asked.prompt) - 1] = True

    with torch.inference_mode():
        read = normalise(trainer.read(token_ids), reasoner.final_norm)
        is_same = reasoner.logits(read).argmax(-1) == reasoner.logits(reasoner(token_ids)).argmax(-1)
    # weights are rounded to two bytes, which turns few of the closest decisions
    assert is_same[is_solution].float().mean() > 0.98


def test_prepared_judge_finds_the_prediction_of_a_token_beside_the_token(
    example: Path, tokenizer: PreTrainedTokenizerFast, examples: list[JudgeExample]
) -> None:
    trainer = start(example, tokenizer, examples)
    token_ids, _ = collate(examples)
    first = trainer.judge.layers[LARGE.num_layers]
    first.down.weight.detach().zero_()
    with torch.inference_mode():
        states = trainer.read(token_ids)
        after = trainer.judge.run_layers(states, LARGE.num_layers, LARGE.num_layers + 1)
    loud = first.attention_out.weight[:, :32].detach()

    def likeness(one: torch.Tensor, other: torch.Tensor) -> float:
        return float(torch.cosine_similarity(one @ loud, other @ loud, dim=-1).mean())

    begin = min(example.first_token for example in examples)
    assert likeness(after[:, begin:], states[:, begin - 1 : -1]) > 0.9
    # all states have something in common, so those of one token and the next are alike too
    assert likeness(after[:, begin:], states[:, begin:]) < 0.75


def test_training_the_judge_lowers_its_losses_and_changes_fresh_weights_alone(
    example: Path, tokenizer: PreTrainedTokenizerFast, examples: list[JudgeExample]
) -> None:
    trainer, untrained = (start(example, tokenizer, examples) for _ in range(2))
    recipe = JudgeRecipe(batch_size=8, match_steps=2, warmup_steps=1, log_every=2)
    seen: list[dict[str, float]] = []
    train_judge(trainer, examples, recipe, report=lambda entry, total, losses: seen.append(losses))
    before = untrained.judge.state_dict()
    changed = {name for name, weight in trainer.judge.state_dict().items() if not torch.equal(weight, before[name])}

    assert [set(losses) for losses in seen] == [{"match"}, *[{"match", "worst", "steps", "verdict"}] * 2]
    assert seen[2]["verdict"] < seen[1]["verdict"]
    assert {"head.weight", "final_norm"} < changed
    assert {name for name in changed if not name.startswith("blocks.")} == {"head.weight", "final_norm"}
    layers = {int(name.split(".")[1]) for name in changed if name.startswith("blocks.")}
    assert layers == set(range(LARGE.num_layers, LARGE.num_layers + FRESH_LAYERS))


def test_judge_rates_are_shares_of_samples() -> None:
    def verdicts(problem: int, reason: Any, says_valid: bool | None, count: int) -> list[Verdict]:
        return [Verdict(problem=problem, reason=reason, says_valid=says_valid)] * count

    rates = judge_rates(
        [
            *verdicts(0, "ok", True, 6), *verdicts(1, "ok", False, 1), *verdicts(1, "ok", None, 1),
            *verdicts(0, "arith", False, 3), *verdicts(1, "logic", True, 2), *verdicts(2, "logic", None, 1),
        ]
    )  # fmt: skip

    assert (rates.num_false, rates.num_valid) == (6, 8)
    assert rates.sensitivity.estimate == 3 / 6
    assert rates.specificity.estimate == 6 / 8
    assert rates.balanced_accuracy.estimate == (3 / 6 + 6 / 8) / 2
    assert rates.sensitivity.low < 0.5 < rates.sensitivity.high
    assert rates.rejected_by_fault == {"arith": (3, 3), "logic": (0, 3)}


def test_judge_rates_without_a_false_positive_are_refused() -> None:
    with pytest.raises(ValueError, match="got 0 false positives and 1 valid solutions"):
        judge_rates([Verdict(problem=0, reason="ok", says_valid=True)])


def test_judge_tokenizer_is_that_of_the_others_and_two_words(example: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    others = AutoTokenizer.from_pretrained(example / "models" / "gsm-mini-small").get_vocab()
    vocabulary = tokenizer.get_vocab()

    assert vocabulary == {**others, YES: len(others), NO: len(others) + 1}
    assert vocabulary == build_tokenizer((YES, NO)).get_vocab()


def test_shipped_judge_was_trained_by_the_recipe_on_problems_of_its_own(
    example: Path, shipped_rows: dict[str, list[Any]]
) -> None:
    record = json.loads((example / "models" / "gsm-mini-judge" / "train.json").read_text())
    published = published_questions()

    assert record["recipe"] == asdict(JudgeRecipe())
    assert record["corpus"]["problems"] == JUDGE_PROBLEMS
    assert published == {row["question"] for rows in shipped_rows.values() for row in rows}
    assert published.isdisjoint(problem.question for problem in judge_problems(3000, published, "written"))


def test_shipped_judge_says_yes_or_no_and_is_mostly_right(
    example: Path, tokenizer: PreTrainedTokenizerFast, shipped_rows: dict[str, list[Any]]
) -> None:
    model = LlamaForCausalLM.from_pretrained(example / "models" / "gsm-mini-judge", dtype=torch.float32)
    problems = [problem_from_row(row) for row in shipped_rows["validation"]][:75]
    judgements = [item for item in written_judgements(problems) if check(item.problem, item.completion).answer_correct]
    is_right: dict[bool, list[bool]] = {True: [], False: []}
    for item, asked in zip(judgements, judge_examples(tokenizer, judgements), strict=True):
        answer = model.generate(torch.tensor([asked.prompt]), do_sample=False, max_new_tokens=3)  # pyright: ignore
        answered = answer[0, len(asked.prompt) :].tolist()
        assert tokenizer.decode(answered) in (f"{YES}<eos>", f"{NO}<eos>")
        is_right[item.is_valid].append(answered == asked.solution)

    assert sum(is_right[True]) / len(is_right[True]) > 0.9
    assert sum(is_right[False]) / len(is_right[False]) > 0.9
