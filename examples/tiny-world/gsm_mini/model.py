"""The models of gsm-mini: a small Llama written for fast training on one CPU thread, saved in Hugging Face format.

Invariant: a saved checkpoint gives the same logits in transformers' LlamaForCausalLM. The differences are of speed
only: query, key and value are one matrix, so are gate and up, and the output head is applied where a loss is wanted.
Imports torch, safetensors and transformers; must not import the application.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig

from gsm_mini.tokenizer import BOS_ID, CONTEXT_TOKENS, EOS_ID, PAD_ID

NORM_EPSILON = 1e-6
ROPE_THETA = 10_000.0
EMBEDDING_STD = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a model; every head has `hidden_size / num_heads` dimensions.

    `ties_embeddings`: the matrix that reads words also scores them; otherwise the model has a second one.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    mlp_size: int
    ties_embeddings: bool = True


# Both have heads of 32 dimensions; the large one has 3.02 times the parameters of the small one.
SMALL = Shape(hidden_size=64, num_layers=4, num_heads=2, mlp_size=160)
LARGE = Shape(hidden_size=96, num_layers=6, num_heads=3, mlp_size=208)


class Block(nn.Module):
    """One layer: causal attention with rotary positions, then a gated MLP, each after an RMS norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.hidden_size
        self.num_heads = shape.num_heads
        self.attention_norm = nn.Parameter(torch.ones(width))
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.Parameter(torch.ones(width))
        self.gate_up = nn.Linear(width, 2 * shape.mlp_size, bias=False)
        self.down = nn.Linear(shape.mlp_size, width, bias=False)

    def forward(self, hidden: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Hidden states [batch, time, width] after this layer."""
        batch, time, width = hidden.shape
        packed = self.query_key_value(normalise(hidden, self.attention_norm))
        heads = packed.view(batch, time, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4)
        query, key, value = heads
        attended = functional.scaled_dot_product_attention(
            _rotate(query, cosine, sine), _rotate(key, cosine, sine), value, is_causal=True
        )
        hidden = hidden + self.attention_out(attended.transpose(1, 2).reshape(batch, time, width))
        gate, up = self.gate_up(normalise(hidden, self.mlp_norm)).chunk(2, -1)
        return hidden + self.down(functional.silu(gate) * up)


class Reasoner(nn.Module):
    """A Llama for a vocabulary of `vocab_size` tokens."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, shape: Shape, vocab_size: int) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(vocab_size, shape.hidden_size)
        self.head = self.embedding if shape.ties_embeddings else nn.Embedding(vocab_size, shape.hidden_size)
        self.final_norm = nn.Parameter(torch.ones(shape.hidden_size))
        self.layers = [Block(shape) for _ in range(shape.num_layers)]
        self.blocks = nn.ModuleList(self.layers)  # registers their parameters
        cosine, sine = _rotary_tables(shape.hidden_size // shape.num_heads)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)
        self._initialise()

    def forward(self, token_ids: Tensor) -> Tensor:
        """Final hidden states [batch, time, width] of token ids [batch, time]."""
        hidden = self.run_layers(self.embedding(token_ids), 0, self.shape.num_layers)
        return normalise(hidden, self.final_norm)

    def run_layers(self, hidden: Tensor, first: int, end: int) -> Tensor:
        """Hidden states [batch, time, width] after the layers from `first` on, up to but without `end`."""
        time = hidden.shape[1]
        for block in self.layers[first:end]:
            hidden = block(hidden, self.cosine[:time], self.sine[:time])
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token [..., vocab_size]."""
        return hidden @ self.head.weight.T

    def num_parameters(self) -> int:
        """Parameters, the tied embedding counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def matrices(self) -> list[nn.Parameter]:
        """The weight matrices of the layers, without the embedding."""
        return [parameter for parameter in self.blocks.parameters() if parameter.dim() == 2]

    def other_parameters(self) -> list[nn.Parameter]:
        """Embedding, a head of its own, and norms."""
        matrices = {id(matrix) for matrix in self.matrices()}
        return [parameter for parameter in self.parameters() if id(parameter) not in matrices]

    def _initialise(self) -> None:
        nn.init.normal_(self.embedding.weight, 0.0, EMBEDDING_STD)
        for block in self.layers:
            for layer, scale in (
                (block.query_key_value, 1.0),
                (block.attention_out, 0.5),
                (block.gate_up, 1.0),
                (block.down, 0.5),
            ):
                nn.init.normal_(layer.weight, 0.0, scale * layer.in_features**-0.5)


def load_checkpoint(folder: Path, shape: Shape, vocab_size: int) -> Reasoner:
    """A model with the weights that `save_checkpoint` wrote; what the saved model lacks stays as initialised.

    Args:
        folder: what `save_checkpoint` wrote.
        shape: the shape it was written with, or one of more layers or with a head of its own.
        vocab_size: tokens wanted, at least as many as the saved model has.

    Raises:
        ValueError: if the saved model has more tokens than `vocab_size`.
    """
    model = Reasoner(shape, vocab_size)
    saved = load_file(folder / "model.safetensors")
    num_saved = len(saved["model.embed_tokens.weight"])
    if num_saved > vocab_size:
        raise ValueError(f"{folder} has {num_saved} tokens; allowed: {vocab_size} or fewer")
    with torch.no_grad():
        # the parts of a packed matrix are views of it, so writing them writes the model
        for name, tensor in _llama_weights(model).items():
            if name in saved:
                tensor[: len(saved[name])] = saved[name]
    return model


def save_checkpoint(model: Reasoner, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write weights, configuration and generation defaults in Hugging Face's Llama format."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().to(dtype).contiguous().clone() for name, tensor in _llama_weights(model).items()
    }  # fmt: skip
    weights_path = folder / "model.safetensors"
    save_file(weights, weights_path, metadata={"format": "pt"})
    weights_path.chmod(0o644)
    llama_config(model.shape, model.embedding.num_embeddings, dtype).save_pretrained(folder)
    GenerationConfig(
        bos_token_id=BOS_ID, eos_token_id=EOS_ID, pad_token_id=PAD_ID, do_sample=True, temperature=0.8
    ).save_pretrained(folder)


def llama_config(shape: Shape, vocab_size: int, dtype: torch.dtype = torch.float32) -> LlamaConfig:
    """The transformers configuration of a shape."""
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.mlp_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_heads,
        max_position_embeddings=CONTEXT_TOKENS,
        rms_norm_eps=NORM_EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=shape.ties_embeddings,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
        dtype=str(dtype).removeprefix("torch."),
    )


def _llama_weights(model: Reasoner) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {
        "model.embed_tokens.weight": model.embedding.weight,
        "model.norm.weight": model.final_norm,
    }
    if not model.shape.ties_embeddings:
        weights["lm_head.weight"] = model.head.weight
    for position, block in enumerate(model.layers):
        prefix = f"model.layers.{position}."
        query, key, value = block.query_key_value.weight.chunk(3, 0)
        gate, up = block.gate_up.weight.chunk(2, 0)
        weights |= {
            f"{prefix}input_layernorm.weight": block.attention_norm,
            f"{prefix}self_attn.q_proj.weight": query,
            f"{prefix}self_attn.k_proj.weight": key,
            f"{prefix}self_attn.v_proj.weight": value,
            f"{prefix}self_attn.o_proj.weight": block.attention_out.weight,
            f"{prefix}post_attention_layernorm.weight": block.mlp_norm,
            f"{prefix}mlp.gate_proj.weight": gate,
            f"{prefix}mlp.up_proj.weight": up,
            f"{prefix}mlp.down_proj.weight": block.down.weight,
        }
    return weights


def normalise(hidden: Tensor, weight: Tensor) -> Tensor:
    """States of mean square 1 [..., width], times a weight for each dimension."""
    return functional.rms_norm(hidden, (hidden.shape[-1],), weight, NORM_EPSILON)


def _rotary_tables(head_size: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine [context, head_size] of the rotary angles, both halves alike as in Llama."""
    frequencies = 1.0 / (ROPE_THETA ** (torch.arange(0, head_size, 2).float() / head_size))
    angles = torch.outer(torch.arange(CONTEXT_TOKENS).float(), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def _rotate(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = heads.chunk(2, -1)
    return heads * cosine + torch.cat((-second, first), dim=-1) * sine
