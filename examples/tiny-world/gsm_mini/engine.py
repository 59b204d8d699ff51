"""Completions of a saved model by vLLM, as the tables of the README are measured.

Invariant: one thread and no process besides the caller's; an engine does not give its memory back before its process
ends. Imports transformers and vLLM, and only when an engine starts; must not import the application.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

CONTEXT_TOKENS = 192


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Completions and their numbers of tokens, by question; `seconds` are those of the engine's work."""

    completions: list[list[str]]
    num_tokens: list[list[int]]
    seconds: float


Generate = Callable[[Sequence[str], int, float], Samples]


def start_engine(folder: Path, seed: int) -> Generate:
    """The model in `folder` as a function of questions, samples of each, and temperature (0 is greedy decoding)."""
    # In process and on one thread: for models this small, more processes only cost time.
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1", VLLM_LOGGING_LEVEL="WARNING",
        VLLM_NO_USAGE_STATS="1", OMP_NUM_THREADS="1",
    )  # fmt: skip
    from transformers import PreTrainedTokenizerFast
    from vllm import LLM, SamplingParams

    from gsm_mini.tokenizer import prompt_ids

    engine = LLM(
        model=str(folder), dtype="float32", max_model_len=CONTEXT_TOKENS, max_num_seqs=256, enforce_eager=True,
        distributed_executor_backend="uni", seed=seed,
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)

    def generate(questions: Sequence[str], num_samples: int, temperature: float) -> Samples:
        prompts = [prompt_ids(tokenizer, question) for question in questions]
        # No seed per request: with it, the CPU engine fails on prompts that it computes in parts.
        params = [
            SamplingParams(n=num_samples, temperature=temperature, max_tokens=CONTEXT_TOKENS - len(prompt))
            for prompt in prompts
        ]
        started = time.monotonic()
        outputs = engine.generate([{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False)
        return Samples(
            completions=[[completion.text for completion in output.outputs] for output in outputs],
            num_tokens=[[len(completion.token_ids) for completion in output.outputs] for output in outputs],
            seconds=time.monotonic() - started,
        )

    return generate
