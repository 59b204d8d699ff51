"""Train the models of gsm-mini and write them to `models/`: three reasoners from nothing, then their judge.

One process and one thread per shape, side by side; gsm-mini-early is the small model after 40 % of its training. The
judge is made of the large model and of fresh layers, which learn from written solutions, valid and faulty.

    python examples/tiny-world/train.py [--jobs 1] [--output FOLDER]
    python examples/tiny-world/train.py --judge-only        # the large model lies in the output folder already
"""

import argparse
import json
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import torch
from gsm_mini.corpus import CORPUS_SEED, CORPUS_SIZE, corpus_pairs
from gsm_mini.judge_examples import judge_examples
from gsm_mini.judge_training import SAVED_DTYPE, JudgeRecipe, JudgeTrainer, train_judge
from gsm_mini.judging import JUDGE_SEED, NO, YES, judge_problems, written_judgements
from gsm_mini.model import LARGE, SMALL, Reasoner, Shape, save_checkpoint
from gsm_mini.tokenizer import build_tokenizer, save_tokenizer
from gsm_mini.training import LogEntry, Recipe, encode_pairs, num_steps, train

MODELS = Path(__file__).parent / "models"
PROBLEMS = Path(__file__).parent / "problems"
SHAPES: dict[str, Shape] = {"gsm-mini-large": LARGE, "gsm-mini-small": SMALL}
EARLY_OF = {"gsm-mini-small": "gsm-mini-early"}
EARLY_SHARE = 0.4
JUDGE, JUDGE_BASE = "gsm-mini-judge", "gsm-mini-large"
JUDGE_PROBLEMS = 32_000
# Some of the examples, to see what states of the large model are like.
NUM_SHOWN = 256


def train_model(name: str, output: Path, num_problems: int) -> str:
    """Train one model, write it (and its early checkpoint) under `output`, and return a line about it."""
    torch.set_num_threads(1)
    started = time.monotonic()
    recipe = Recipe()
    tokenizer = build_tokenizer()
    examples = encode_pairs(tokenizer, corpus_pairs(num_problems))
    torch.manual_seed(recipe.seed)
    model = Reasoner(SHAPES[name], len(tokenizer))
    history: list[LogEntry] = []

    def report(entry: LogEntry, total_steps: int) -> None:
        history.append(entry)
        print(f"{name}: step {entry.step}/{total_steps}, loss {entry.loss:.4f}, {entry.seconds:.0f} s", flush=True)

    def save(saved_name: str, trained: Reasoner) -> None:
        folder = output / saved_name
        save_checkpoint(trained, folder)
        save_tokenizer(tokenizer, folder)
        _write_record(folder, trained, recipe, {"problems": num_problems, "seed": CORPUS_SEED}, history)

    total_steps = num_steps(len(examples), recipe)
    on_step = {}
    if name in EARLY_OF:
        on_step[round(EARLY_SHARE * total_steps)] = lambda trained: save(EARLY_OF[name], trained)
    train(model, examples, recipe, report=report, on_step=on_step)
    save(name, model)
    return f"{name}: {model.num_parameters():,} parameters in {time.monotonic() - started:.0f} s"


def train_the_judge(output: Path, num_problems: int) -> str:
    """Train the judge from the large model under `output`, write it there, and return a line about it."""
    torch.set_num_threads(1)
    started = time.monotonic()
    recipe = JudgeRecipe()
    tokenizer = build_tokenizer((YES, NO))
    problems = judge_problems(num_problems, published_questions(), "written")
    examples = judge_examples(tokenizer, written_judgements(problems))
    torch.manual_seed(recipe.seed)
    trainer = JudgeTrainer(output / JUDGE_BASE, SHAPES[JUDGE_BASE], tokenizer)
    trainer.prepare(examples[:NUM_SHOWN])

    def report(entry: LogEntry, total_steps: int, losses: dict[str, float]) -> None:
        each = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
        print(f"{JUDGE}: step {entry.step}/{total_steps}, {each}, {entry.seconds:.0f} s", flush=True)

    history = train_judge(trainer, examples, recipe, report)
    folder = output / JUDGE
    save_checkpoint(trainer.judge, folder, SAVED_DTYPE)
    save_tokenizer(tokenizer, folder)
    corpus = {"problems": num_problems, "solutions": len(examples), "seed": JUDGE_SEED}
    _write_record(folder, trainer.judge, recipe, corpus, history)
    return f"{JUDGE}: {trainer.judge.num_parameters():,} parameters in {time.monotonic() - started:.0f} s"


def published_questions() -> set[str]:
    """The question of every problem in `problems/`."""
    return {json.loads(line)["question"] for path in PROBLEMS.glob("*.jsonl") for line in path.read_text().splitlines()}


def _write_record(
    folder: Path, model: Reasoner, recipe: Recipe | JudgeRecipe, corpus: dict[str, int], history: list[LogEntry]
) -> None:
    record = {
        "parameters": model.num_parameters(),
        "corpus": corpus,
        "recipe": asdict(recipe),
        "seconds": round(history[-1].seconds, 1),
        "history": [{**asdict(entry), "loss": round(entry.loss, 4), "seconds": round(entry.seconds, 1)}
                    for entry in history],
    }  # fmt: skip
    (folder / "train.json").write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    """Train every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="models trained side by side, one thread each")
    parser.add_argument("--output", type=Path, default=MODELS, help="folder for the models")
    parser.add_argument("--problems", type=int, default=CORPUS_SIZE, help="size of the corpus (smaller only for a try)")
    parser.add_argument("--judge-problems", type=int, default=JUDGE_PROBLEMS, help="the same for the judge's corpus")
    parser.add_argument("--judge-only", action="store_true", help="train the judge alone")
    arguments = parser.parse_args()
    started = time.monotonic()
    # Spawned, not forked: torch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=arguments.jobs, mp_context=context) as pool:
        names = () if arguments.judge_only else SHAPES
        runs = [pool.submit(train_model, name, arguments.output, arguments.problems) for name in names]
        for run in runs:
            print(run.result(), flush=True)
        print(pool.submit(train_the_judge, arguments.output, arguments.judge_problems).result(), flush=True)
    print(f"all models in {time.monotonic() - started:.0f} s, written to {arguments.output}")


if __name__ == "__main__":
    main()
