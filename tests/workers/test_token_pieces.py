"""Counting by pieces gives what the tokenizer gives for whole texts, or is not done."""

import json
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from workers.token_counts import ModelCounter
from workers.token_pieces import PATTERNS, Pieces, counts_add_up

CORPUS = [
    "She buys 12 pens, each costs 3 dollars. It's 12*3 = 36.\n\nSo the  answer is #### 36",
    "  def f(x):\n\treturn x ** 2  # ça va\u00a0? \u4f60\u597d",
    "We've   seen that (a + b)^2 isn't a^2 + b^2 !\r\n \r\n",
]
BYTES = pre_tokenizers.ByteLevel.alphabet()
SPLITS = {
    "GPT-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "GPT-2, a space before": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "digits first": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel()]
    ),
} | {
    f"pattern {number}": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    for number, pattern in enumerate(sorted(PATTERNS))
}
TEXTS = st.lists(
    st.text(alphabet="aZ1.'#\u2581\n\r\t  \u00a0\u2003\u0301é你🙂-(s", max_size=30)
    | st.sampled_from([*CORPUS, "<|end|>", "   ", "'s", " 's", " \n"]),
    max_size=4,
).map("".join)


def make_tokenizer(split: pre_tokenizers.PreTokenizer, *, added: AddedToken | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=BYTES, show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.add_tokens([added or AddedToken("<|end|>", normalized=False), "   "])
    return tokenizer


MARK = "\u2581"


def make_tokenizer_without_words(*, vocab: tuple[str, ...] = (), **changes: object) -> Tokenizer:
    """As of Gemma: spaces are marks, the model gets whole texts, and what it does not know it spells in bytes."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<0x00>"))
    tokenizer.normalizer = normalizers.Replace(" ", MARK)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    spelled = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=[*spelled, MARK], show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    content = json.loads(tokenizer.to_str())
    content["pre_tokenizer"] = json.loads(pre_tokenizers.Split(" ", "merged_with_previous").__getstate__())
    content["added_tokens"] = []
    content["model"] |= changes
    content["model"]["vocab"] |= {token: len(content["model"]["vocab"]) + i for i, token in enumerate(vocab)}
    made = Tokenizer.from_str(json.dumps(content))
    made.add_tokens([AddedToken("<|end|>", normalized=False), AddedToken(MARK * 3, normalized=True)])
    return made


TOKENIZERS = {name: make_tokenizer(split) for name, split in SPLITS.items()} | {
    "without words": make_tokenizer_without_words()
}


class Counting:
    """A tokenizer as the counter knows one, which counts how many texts it is asked for."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.num_asked = 0

    def encode_batch(self, texts):
        return [self.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]

    def count_batch(self, texts):
        self.num_asked += len(texts)
        return [len(ids) for ids in self.encode_batch(texts)]

    def counts_add_up(self):
        return counts_add_up(json.loads(self.tokenizer.to_str()))

    def gives_back(self, text, token_ids):
        raise NotImplementedError

    def apply_chat_template(self, messages):
        raise NotImplementedError


@pytest.mark.parametrize("name", TOKENIZERS)
@given(texts=st.lists(TEXTS, max_size=5))
def test_counts_of_pieces_are_those_of_whole_texts(name, texts):
    tokenizer = Counting(TOKENIZERS[name])
    assert tokenizer.counts_add_up()
    got = ModelCounter(tokenizer).completions(pa.array(texts, type=pa.string()))
    assert got.tolist() == tokenizer.count_batch(texts)


def test_a_piece_is_counted_once_however_often_it_occurs():
    tokenizer = Counting(TOKENIZERS["GPT-2"])
    counter = ModelCounter(tokenizer)
    texts = pa.array(["the cat and the dog", "the dog and the cat"])
    first = counter.completions(texts)
    assert tokenizer.num_asked == len({"the", " cat", " and", " the", " dog"})
    assert counter.completions(texts).tolist() == first.tolist()
    assert tokenizer.num_asked == 5


def test_a_text_without_spaces_is_counted_and_not_kept():
    tokenizer = Counting(TOKENIZERS["GPT-2"])
    counter = ModelCounter(tokenizer)
    texts = pa.array(["\u4f60\u597d" * 50 + f" {number}" for number in range(300)])
    expected = tokenizer.count_batch(texts.to_pylist())
    counter.completions(pa.array(["begin"]))

    tracemalloc.start()
    counts = counter.completions(texts).tolist()
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert counts == expected
    assert kept_bytes < 30_000, "texts of more than 60,000 bytes"


def test_long_prompts_are_counted_and_not_kept():
    tokenizer = Counting(TOKENIZERS["GPT-2"])
    counter = ModelCounter(tokenizer)
    texts = pa.array(["long " * 2_000 + str(number % 100) for number in range(200)])
    counter.prompts(pa.array(["begin"]))

    tracemalloc.start()
    first = counter.prompts(texts).tolist()
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert counter.prompts(texts).tolist() == first
    assert first == [len(ids) for ids in tokenizer.encode_batch(texts.to_pylist())]
    assert kept_bytes < 200_000, "texts of 1 million bytes"


def test_pieces_begin_at_the_space_after_an_ascii_character_and_at_each_text():
    texts = pa.array(["left out", "a b  c\n d", "", "é f\u00a0 g"]).slice(1)
    assert Pieces(texts).unique == ["a", " b", "  c\n d", "é f\u00a0 g"]


@pytest.mark.parametrize(
    "split",
    [
        pre_tokenizers.Metaspace(),
        pre_tokenizers.ByteLevel(use_regex=False),
        pre_tokenizers.Split(Regex(r"\w+ \w+|."), behavior="isolated"),
        pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.Metaspace()]),
    ],
)
def test_words_that_may_hold_a_space_are_counted_in_whole_texts(split):
    tokenizer = Counting(make_tokenizer(split))
    assert not tokenizer.counts_add_up()
    ModelCounter(tokenizer).completions(pa.array(["the cat and the cat"]))
    assert tokenizer.num_asked == 1


@pytest.mark.parametrize(
    "tokenizer",
    [
        make_tokenizer_without_words(vocab=(f"of{MARK}the",)),
        make_tokenizer_without_words(ignore_merges=True),
        make_tokenizer_without_words(end_of_word_suffix="</w>"),
        make_tokenizer_without_words(unk_token=None, byte_fallback=False),
    ],
)
def test_models_that_may_merge_across_a_space_are_given_whole_texts(tokenizer):
    assert not Counting(tokenizer).counts_add_up()


@pytest.mark.parametrize(
    "added",
    [
        AddedToken("<m>", lstrip=True),
        AddedToken("<m>", rstrip=True),
        AddedToken("end of"),
        AddedToken("x", single_word=True),
    ],
)
def test_added_tokens_that_reach_across_a_space_are_counted_in_whole_texts(added):
    assert not Counting(make_tokenizer(SPLITS["GPT-2"], added=added)).counts_add_up()


def test_normalizers_that_may_change_spaces_are_counted_in_whole_texts():
    tokenizer = make_tokenizer(SPLITS["GPT-2"])
    tokenizer.normalizer = normalizers.NFC()
    assert Counting(tokenizer).counts_add_up()
    tokenizer.normalizer = normalizers.Replace("a b", "c")
    assert not Counting(tokenizer).counts_add_up()
