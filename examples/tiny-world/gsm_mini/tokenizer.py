"""The tokenizer of gsm-mini: 114 words, digits one by one, exact round trip.

Invariant: text splits the same way whether prompt and completion are tokenised together or apart, and decoding gives
the text back byte for byte. The tokenizer adds no `<bos>` by itself: a prompt is written `<bos>{question}` and a line
break.
Imports tokenizers and transformers; must not import the application.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from gsm_mini.corpus import corpus_pairs

PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2
CONTEXT_TOKENS = 192
# A word keeps the space before it; the space before a digit belongs to the token before, for digits stand alone.
SPLIT_PATTERN = r" ?[A-Za-z]+(?: (?=[0-9]))?|[0-9]| ?####(?: (?=[0-9]))?|[^\sA-Za-z0-9](?: (?=[0-9]))?|\s"
FIXED_TOKENS = (*"0123456789", *"+-*/=.,?:", ". ", "\n", " ", " #### ")
# Enough of the corpus to meet every word of every sentence template.
VOCABULARY_PROBLEMS = 20_000


def build_tokenizer(further_words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """The tokenizer with the vocabulary of the corpus, in a fixed order, and `further_words` after it."""
    texts = (prompt_text(question) + solution for question, solution in corpus_pairs(VOCABULARY_PROBLEMS))
    vocabulary = {token: position for position, token in enumerate([*_tokens_of(texts), *further_words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=CONTEXT_TOKENS,
    )


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer files for transformers and vLLM, without traces of where they were made."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    for local_field in ("is_local", "local_files_only"):
        config.pop(local_field, None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def prompt_text(question: str) -> str:
    """The prompt of a question without `<bos>`."""
    return question + "\n"


def prompt_ids(tokenizer: PreTrainedTokenizerFast, question: str) -> list[int]:
    """The prompt as the models were trained on it, `<bos>` first."""
    return [BOS_ID, *tokenizer(prompt_text(question), add_special_tokens=False)["input_ids"]]


def _tokens_of(texts: Iterable[str]) -> list[str]:
    words = {word for text in texts for word in re.findall(SPLIT_PATTERN, text)}
    return [PAD, BOS, EOS, UNKNOWN, *FIXED_TOKENS, *sorted(words - set(FIXED_TOKENS))]
