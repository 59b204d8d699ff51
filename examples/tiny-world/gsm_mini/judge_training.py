"""How the judge learns to say yes or no, on top of a reasoner that stays as it is.

A reasoner predicts each token of a solution from those before it. Where a solution goes wrong, it says what was not
predicted, so a judge has to compare the two and to notice if they ever differed. Fresh layers above the reasoner's do
it, and only they are trained. One word for a whole solution teaches slowly, so in training they are also asked on the
way: at each token, how well was it predicted, and how well was the worst so far? At the full stop of each step, are
all steps sound up to here?
Invariant: a trained judge is one ordinary Llama. Its lower layers calculate what the reasoner's do, with weights as
they will be saved. Imports torch and transformers; must not import the application.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from gsm_mini.judge_examples import JudgeExample
from gsm_mini.judging import NO, YES
from gsm_mini.model import Shape, load_checkpoint, normalise
from gsm_mini.tokenizer import EOS_ID, PAD_ID
from gsm_mini.training import IGNORED_LABEL, Example, LogEntry, collate, order_batches

FRESH_LAYERS = 3
# Two bytes a number: in float32 the models together would be too large for the repository.
SAVED_DTYPE = torch.bfloat16
# States of the large model are long (116 after its last layer), and what fresh layers write at first would be lost.
STATE_SCALE = 1 / 16
# Weights of rotations, fastest first: their sum is 1 at the wanted distance, 0.3 beside it and mostly less farther off.
ROTATION_WEIGHTS = {0: 1.0, 1: 1.0, 2: 1.0, 14: -1.0, 15: -1.0}
ATTENTION_STRENGTH = 12.0
# Below this a token counts as unpredicted, however far.
MIN_LOG_PROBABILITY = -6.0
# Of squared errors beside cross-entropies.
MATCH_WEIGHT = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRecipe:
    """Hyperparameters of a run; the rate warms up and then falls as a cosine to 0.

    `match_steps`: steps that train the comparison alone. The other losses are large while there is nothing to read, and
    drown it: in tries, its squared error after 200 steps was 0.09 beside them and 0.04 alone.
    """

    batch_size: int = 64
    learning_rate: float = 3e-3
    match_steps: int = 400
    warmup_steps: int = 40
    max_grad_norm: float = 1.0
    seed: int = 0
    log_every: int = 50


class JudgeTrainer(nn.Module):
    """A judge with what only its training needs.

    Attributes:
        judge: the reasoner with fresh layers on top and a head of its own.
        match_head: reads after the first fresh layer how well a token was predicted.
        worst_head: reads after the last one how well the worst token so far was.
        reasoner_head: how the reasoner scores its next word [word, width].
    """

    reasoner_head: Tensor

    def __init__(self, folder: Path, shape: Shape, tokenizer: PreTrainedTokenizerFast) -> None:
        """Put fresh layers (torch's generator) on the reasoner that lies in `folder` and has this shape."""
        super().__init__()
        vocabulary, self.num_frozen = tokenizer.get_vocab(), shape.num_layers
        self.yes, self.no = vocabulary[YES], vocabulary[NO]
        judge_shape = replace(shape, num_layers=shape.num_layers + FRESH_LAYERS, ties_embeddings=False)
        self.judge = load_checkpoint(folder, judge_shape, len(tokenizer))
        self.match_head = nn.Linear(shape.hidden_size, 1)
        self.worst_head = nn.Linear(shape.hidden_size, 1)
        self.register_buffer("reasoner_head", (self.judge.embedding.weight * self.judge.final_norm).detach())
        nn.init.zeros_(self.judge.head.weight)
        nn.init.ones_(self.judge.final_norm)
        self._freeze_reasoner()

    @torch.no_grad()
    def prepare(self, examples: Sequence[Example]) -> None:
        """Start the first fresh layer so that it can compare; training makes of it what it wants.

        A reasoner's state is mostly its prediction of the next token; which token was read last is in the quiet rest.
        So one head takes the loudest directions out of each state, and another puts those of the token before in their
        place: what was predicted, beside what came. Comparing them is left to training.

        Args:
            examples: some that the judge will see; they show what the states are like.
        """
        token_ids, _ = collate(examples)
        block, judge = self.judge.layers[self.num_frozen], self.judge
        states = self.read(token_ids)[token_ids != PAD_ID]
        inputs = normalise(states, block.attention_norm)
        constant = torch.linalg.lstsq(inputs, torch.ones(len(inputs), 1)).solution[:, 0]
        head_size = judge.shape.hidden_size // judge.shape.num_heads
        loud = torch.linalg.eigh(inputs.T @ inputs).eigenvectors[:, -head_size:]
        size = states.square().mean(1).sqrt().mean()
        block.attention_out.weight.zero_()
        for head, (distance, sign) in enumerate(((1, 1.0), (0, -1.0))):
            rows = slice(head * head_size, (head + 1) * head_size)
            query, key, value = (part[rows] for part in block.query_key_value.weight.chunk(3, 0))
            self._attend_back(query, key, constant, distance)
            value.copy_(loud.T)
            block.attention_out.weight[:, rows] = sign * size * loud

    def _attend_back(self, query: Tensor, key: Tensor, constant: Tensor, distance: int) -> None:
        """Make a head attend to the token at a distance before.

        Rotary positions turn what is the same everywhere by its distance, and queries are turned back. Slow rotations,
        subtracted, leave the neighbours little.
        """
        query.zero_()
        key.zero_()
        half = len(query) // 2
        for pair, weight in ROTATION_WEIGHTS.items():
            turned = ATTENTION_STRENGTH * weight * constant
            query[pair] = self.judge.cosine[distance, pair] * turned
            query[pair + half] = -self.judge.sine[distance, pair] * turned
            key[pair] = ATTENTION_STRENGTH * constant

    @torch.no_grad()
    def read(self, token_ids: Tensor) -> Tensor:
        """The reasoner's states [batch, time, width]."""
        return self.judge.run_layers(self.judge.embedding(token_ids), 0, self.num_frozen)

    def loss(self, examples: Sequence[JudgeExample], *, only_match: bool) -> tuple[Tensor, dict[str, float]]:
        """Weighted sum of the losses of what the judge is asked, and each of them.

        Of each question, examples of yes and of no weigh the same: most steps are sound, and a judge that always says
        so would be mostly right.

        Args:
            examples: the batch.
            only_match: ask only how well each token was predicted, which takes the first fresh layer alone.
        """
        token_ids, labels = collate(examples)
        states = self.read(token_ids)
        is_asked = torch.zeros_like(token_ids, dtype=torch.bool)
        for row, example in enumerate(examples):
            is_asked[row, example.first_token : len(example.prompt) - 1] = True
        predicted = self._predicted(token_ids, states, is_asked)
        compared = self.judge.run_layers(states, self.num_frozen, self.num_frozen + 1)
        match = self.match_head(functional.rms_norm(compared[is_asked], (compared.shape[-1],)))[:, 0]
        losses = {"match": MATCH_WEIGHT * functional.mse_loss(match, predicted[is_asked])}
        if not only_match:
            hidden = self.judge.run_layers(compared, self.num_frozen + 1, self.judge.shape.num_layers)
            hidden = normalise(hidden, self.judge.final_norm)
            worst = self.worst_head(hidden[is_asked])[:, 0]
            losses["worst"] = MATCH_WEIGHT * functional.mse_loss(worst, predicted.cummin(1).values[is_asked])
            losses["steps"] = self._steps_loss(hidden, examples)
            losses["verdict"] = self._verdict_loss(hidden, labels)
        return sum(losses.values(), torch.zeros(())), {name: loss.item() for name, loss in losses.items()}

    def _predicted(self, token_ids: Tensor, states: Tensor, is_asked: Tensor) -> Tensor:
        """Log probability of each token that is asked about, from 1 down to -1; 1 for all others [batch, time]."""
        scores = functional.rms_norm(states[is_asked.roll(-1, 1)], (states.shape[-1],)) @ self.reasoner_head.T
        found = scores.log_softmax(-1).gather(1, token_ids[is_asked][:, None])[:, 0].clamp(min=MIN_LOG_PROBABILITY)
        predicted = torch.ones_like(token_ids, dtype=states.dtype)
        predicted[is_asked] = 1.0 - 2.0 * found / MIN_LOG_PROBABILITY
        return predicted

    def _steps_loss(self, hidden: Tensor, examples: Sequence[JudgeExample]) -> Tensor:
        places = [(row, position, holds) for row, item in enumerate(examples) for position, holds in item.steps]
        rows, positions, holds = torch.tensor(places).T
        difference = self.judge.head.weight[self.yes] - self.judge.head.weight[self.no]
        holds = holds.bool()
        loss = functional.softplus((hidden[rows, positions] @ difference) * torch.where(holds, -1.0, 1.0))
        return _balanced_mean(loss, [holds, ~holds])

    def _verdict_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        targets = labels[:, 1:]
        is_target = targets != IGNORED_LABEL
        words = targets[is_target]
        loss = functional.cross_entropy(self.judge.logits(hidden[:, :-1][is_target]), words, reduction="none")
        return _balanced_mean(loss, [words == self.yes, words == self.no]) + loss[words == EOS_ID].mean()

    @torch.no_grad()
    def _freeze_reasoner(self) -> None:
        """Shorten the reasoner's states, round its weights as they are saved, and let no training change them.

        Every layer reads its input normalised, so only the sums that make up the states are scaled.
        """
        judge = self.judge
        judge.embedding.weight *= STATE_SCALE
        for block in judge.layers[: self.num_frozen]:
            block.attention_out.weight *= STATE_SCALE
            block.down.weight *= STATE_SCALE
        for part in (judge.embedding, *judge.layers[: self.num_frozen]):
            part.requires_grad_(False)
            for parameter in part.parameters():
                parameter.copy_(parameter.to(SAVED_DTYPE))


def train_judge(
    trainer: JudgeTrainer,
    examples: Sequence[JudgeExample],
    recipe: JudgeRecipe,
    report: Callable[[LogEntry, int, dict[str, float]], None],
) -> list[LogEntry]:
    """Train for one epoch and return the loss history.

    Args:
        trainer: its judge is trained in place.
        examples: valid and faulty ones, about as many of each.
        recipe: hyperparameters; its seed orders the batches.
        report: called with each log entry, the number of steps of the run, and the mean of each loss.
    """
    batches = order_batches(examples, recipe.batch_size, random.Random(recipe.seed))
    parameters = [parameter for parameter in trainer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    history: list[LogEntry] = []
    sums: dict[str, float] = {}
    num_tokens, since, started = 0, 0, time.monotonic()
    for step, batch in enumerate(batches, start=1):
        chosen = [examples[index] for index in batch]
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(recipe, step, len(batches))
        loss, parts = trainer.loss(chosen, only_match=step <= recipe.match_steps)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        sums = {name: sums.get(name, 0.0) + part for name, part in parts.items()}
        since += 1
        num_tokens += len(chosen) * max(example.num_tokens for example in chosen)
        if step % recipe.log_every == 0 or step == len(batches):
            means = {name: total / since for name, total in sums.items()}
            entry = LogEntry(step=step, loss=sum(means.values()), tokens=num_tokens, seconds=time.monotonic() - started)
            history.append(entry)
            report(entry, len(batches), means)
            sums, since = {}, 0
    return history


def _learning_rate(recipe: JudgeRecipe, step: int, total_steps: int) -> float:
    warmup = min(1.0, step / recipe.warmup_steps)
    return recipe.learning_rate * warmup * 0.5 * (1.0 + math.cos(math.pi * (step - 1) / total_steps))


def _balanced_mean(losses: Tensor, groups: Sequence[Tensor]) -> Tensor:
    """Mean of the means of those groups that are not empty."""
    means = [losses[group].mean() for group in groups if group.any()]
    return torch.stack(means).mean()
