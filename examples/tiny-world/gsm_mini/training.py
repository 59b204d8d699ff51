"""Pretraining of one model: one epoch over the corpus, loss on the solutions only.

Invariant: with one thread the same seed gives the same weights on the same machine. Matrices are trained with Muon,
embedding and norms with AdamW, both at one learning rate that warms up and then falls linearly.
Imports torch and transformers; must not import the application.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from gsm_mini.model import Reasoner
from gsm_mini.tokenizer import BOS_ID, EOS_ID, PAD_ID, prompt_text

IGNORED_LABEL = -100
# Batches sorted by length within a window waste little padding and stay well mixed.
SORT_WINDOW_BATCHES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Hyperparameters of a run."""

    batch_size: int = 32
    learning_rate: float = 6e-3
    final_rate_share: float = 0.05
    warmup_steps: int = 50
    max_grad_norm: float = 1.0
    seed: int = 0
    log_every: int = 125


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Token ids of one prompt (`<bos>` first) and its solution (`<eos>` last)."""

    prompt: list[int]
    solution: list[int]

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and solution together."""
        return len(self.prompt) + len(self.solution)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """Mean loss since the entry before; tokens count padding."""

    step: int
    loss: float
    tokens: int
    seconds: float


def encode_pairs(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]]) -> list[Example]:
    """Questions and solutions as token ids."""
    prompts = tokenizer([prompt_text(question) for question, _ in pairs])["input_ids"]
    solutions = tokenizer([solution for _, solution in pairs])["input_ids"]
    return [
        Example(prompt=[BOS_ID, *prompt], solution=[*solution, EOS_ID])
        for prompt, solution in zip(prompts, solutions, strict=True)
    ]


def train(
    model: Reasoner,
    examples: Sequence[Example],
    recipe: Recipe,
    *,
    report: Callable[[LogEntry, int], None],
    on_step: Mapping[int, Callable[[Reasoner], None]] | None = None,
) -> list[LogEntry]:
    """Train for one epoch and return the loss history.

    Args:
        model: trained in place.
        examples: the corpus.
        recipe: hyperparameters; its seed orders the batches.
        report: called with each log entry and the number of steps of the run.
        on_step: what to do with the model after given steps, counted from 1.
    """
    batches = order_batches(examples, recipe.batch_size, random.Random(recipe.seed))
    optimizers = _make_optimizers(model, recipe)
    history: list[LogEntry] = []
    losses: list[float] = []
    num_tokens, started = 0, time.monotonic()
    for step, batch in enumerate(batches, start=1):
        _set_learning_rate(optimizers, _learning_rate(recipe, step, len(batches)))
        token_ids, labels = collate([examples[index] for index in batch])
        losses.append(_train_step(model, optimizers, token_ids, labels, recipe.max_grad_norm))
        num_tokens += token_ids.numel()
        action = on_step.get(step) if on_step else None
        if step % recipe.log_every == 0 or step == len(batches) or action:
            mean_loss = sum(losses) / len(losses)
            seconds = time.monotonic() - started
            history.append(LogEntry(step=step, loss=mean_loss, tokens=num_tokens, seconds=seconds))
            losses.clear()
            report(history[-1], len(batches))
        if action:
            action(model)
    return history


def num_steps(num_examples: int, recipe: Recipe) -> int:
    """Steps of one epoch."""
    return -(-num_examples // recipe.batch_size)


def order_batches(examples: Sequence[Example], batch_size: int, rng: random.Random) -> list[list[int]]:
    """Positions of the examples in random batches of similar length."""
    order = list(range(len(examples)))
    rng.shuffle(order)
    window = batch_size * SORT_WINDOW_BATCHES
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        chunk = sorted(order[start : start + window], key=lambda index: examples[index].num_tokens)
        batches += [chunk[first : first + batch_size] for first in range(0, len(chunk), batch_size)]
    rng.shuffle(batches)
    return batches


def collate(examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
    """Padded token ids and labels, both [batch, time]; labels are ignored outside the solutions."""
    time_steps = max(example.num_tokens for example in examples)
    token_ids = torch.full((len(examples), time_steps), PAD_ID)
    labels = torch.full((len(examples), time_steps), IGNORED_LABEL)
    for row, example in enumerate(examples):
        solution = torch.tensor(example.solution)
        first, end = len(example.prompt), example.num_tokens
        token_ids[row, :first] = torch.tensor(example.prompt)
        token_ids[row, first:end] = solution
        labels[row, first:end] = solution
    return token_ids, labels


def _train_step(
    model: Reasoner,
    optimizers: Sequence[torch.optim.Optimizer],
    token_ids: Tensor,
    labels: Tensor,
    max_grad_norm: float,
) -> float:
    hidden, targets = model(token_ids)[:, :-1], labels[:, 1:]
    is_target = targets != IGNORED_LABEL
    # The head is applied to solution tokens only: prompts are half of all tokens.
    loss = functional.cross_entropy(model.logits(hidden[is_target]), targets[is_target])
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


def _make_optimizers(model: Reasoner, recipe: Recipe) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.Muon(
            model.matrices(), lr=recipe.learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(
            model.other_parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
        ),
    ]  # fmt: skip


def _learning_rate(recipe: Recipe, step: int, total_steps: int) -> float:
    warmup = min(1.0, step / recipe.warmup_steps)
    remaining = 1.0 - (step - 1) / total_steps
    decay = recipe.final_rate_share + (1.0 - recipe.final_rate_share) * remaining
    return recipe.learning_rate * warmup * decay


def _set_learning_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
