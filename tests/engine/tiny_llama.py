"""A random Llama with a character tokenizer, built where it is needed."""

from pathlib import Path

from tests.engine.drive_engine import CONTEXT_LEN

CHARACTERS = ["<unk>", "<bos>", "<eos>", *"0123456789+-=.#abcde▁"]


def build_model(directory: Path, *, intermediate_size: int = 96, head_dim: int = 32) -> None:
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(CHARACTERS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    # as Llama's: a space at the very beginning is dropped, so a completion alone reads differently than in its place
    spaces = [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", left=1)]
    tokenizer.decoder = decoders.Sequence(spaces)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<bos>", eos_token="<eos>"
    ).save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(CHARACTERS),
        hidden_size=64,
        intermediate_size=intermediate_size,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=head_dim,
        max_position_embeddings=CONTEXT_LEN,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(directory)


def perturb(directory: Path, seed: int) -> None:
    """Moves all weights far: a freshly made model repeats its last token, whatever its layers hold."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(seed)
    tensors = load_file(directory / "model.safetensors")
    moved = {name: tensor + 0.3 * torch.randn_like(tensor) for name, tensor in tensors.items()}
    save_file(moved, directory / "model.safetensors", metadata={"format": "pt"})
