"""Draws greedy completions with the engine of this process; what a server draws of the same prompts is held against it.

Arguments: a folder with `model`, and `prompts.json` with the token ids of each prompt; stop strings. Prints texts,
token counts and finish reasons as JSON on the last line.
"""

import json
import sys
from pathlib import Path
from typing import Any

from service.sampling import SamplingSpec
from tests.engine.drive_engine import model_spec
from workers.engine import VllmEngine
from workers.engine_protocol import Engine

MAX_TOKENS = 24


def greedy(engine: Engine, prompts: list[list[int]], stop: tuple[str, ...]) -> list[list[Any]]:
    """Text, completion tokens, finish reason and error of each prompt's completion."""
    for number, token_ids in enumerate(prompts):
        sampling = SamplingSpec(temperature=0.0, stop=stop)
        engine.add(str(number), token_ids, max_tokens=MAX_TOKENS, sampling=sampling, seed=number)
    done: dict[str, list[Any]] = {}
    while engine.num_unfinished():
        for finished in engine.step():
            done[finished.request_id] = [
                finished.text, finished.completion_tokens, finished.finish_reason, finished.error
            ]  # fmt: skip
    return [done[str(number)] for number in range(len(prompts))]


def main(folder: Path, stop: tuple[str, ...]) -> None:
    engine = VllmEngine(model_spec(folder / "model"), seed=11)
    prompts = json.loads((folder / "prompts.json").read_text())
    print(json.dumps({"plain": greedy(engine, prompts, ()), "stopped": greedy(engine, prompts, stop)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(sys.argv[2:]))
