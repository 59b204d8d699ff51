"""The pretraining corpus: 60,000 problems, each with one noisy solution, made from a seed.

Invariant: questions and solutions come from separate random streams, so the questions alone can be made again in
seconds to prove that no problem set shares one with the corpus. Pure Python; must not import torch, transformers or the
application.
"""

import random
from collections.abc import Iterator

from gsm_mini.noise import noisy_solution
from gsm_mini.world import Problem, generate_problem

CORPUS_SEED = 1234
CORPUS_SIZE = 60_000


def corpus_problems(num_problems: int = CORPUS_SIZE, seed: int = CORPUS_SEED) -> Iterator[Problem]:
    """The problems of the corpus in order; the first ones do not depend on `num_problems`."""
    rng = random.Random(f"problems {seed}")
    return (generate_problem(rng) for _ in range(num_problems))


def corpus_questions() -> set[str]:
    """Every question of the corpus; some occur more than once in it."""
    return {problem.question for problem in corpus_problems()}


def corpus_pairs(num_problems: int = CORPUS_SIZE, seed: int = CORPUS_SEED) -> list[tuple[str, str]]:
    """Questions with their noisy solutions, in corpus order."""
    rng = random.Random(f"solutions {seed}")
    return [(problem.question, noisy_solution(problem, rng)) for problem in corpus_problems(num_problems, seed)]
