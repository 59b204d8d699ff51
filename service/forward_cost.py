"""The coefficients that price a request on one model.

Owns their meaning and their JSON form. Invariant: a document written by an earlier release reads as the same numbers,
and a model without latent attention is written as it always was. Must not import torch or transformers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionTerm:
    """Attention cost of the layers that share one window.

    Args:
        flops_per_token_pair: FLOPs for one query token and one key token, summed over these layers.
        window: keys a query sees at most, itself included [tokens]; None for full causal attention.
        sampled_flops_per_token_pair: the same for a query that was sampled, where it differs: engines attend to the
            latents themselves in decoding, to expanded keys and values in a prompt; None where it does not.

    Raises:
        ValueError: on a negative or infinite coefficient, or a window under 1.
    """

    flops_per_token_pair: float
    window: int | None
    sampled_flops_per_token_pair: float | None = None

    def __post_init__(self) -> None:
        check_amount("flops_per_token_pair", self.flops_per_token_pair)
        if self.sampled_flops_per_token_pair is not None:
            check_amount("sampled_flops_per_token_pair", self.sampled_flops_per_token_pair)
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be None or >= 1 token, got {self.window}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what sampled queries cost is left out where it is nothing else."""
        document: dict[str, Any] = {"flops_per_token_pair": self.flops_per_token_pair, "window": self.window}
        if self.sampled_flops_per_token_pair is not None:
            document["sampled_flops_per_token_pair"] = self.sampled_flops_per_token_pair
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "AttentionTerm":
        """The inverse of `to_json`."""
        sampled = document.get("sampled_flops_per_token_pair")
        return cls(
            flops_per_token_pair=float(document["flops_per_token_pair"]),
            window=document["window"],
            sampled_flops_per_token_pair=None if sampled is None else float(sampled),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardCost:
    """Forward cost of one model, measured from its own code.

    Args:
        body_flops_per_token: everything that a token costs whatever its position, without attention and head [FLOPs].
        head_flops_per_token: the output head for one position [FLOPs].
        attention: one term per distinct window.
        parameters: all parameters, tied tables once.
        active_parameters: parameters one token passes through; equals `parameters` for a dense model.
        embedding_parameters: parameters of the vocabulary and position tables, an untied output head included
            (what Kaplan et al. leave out of N).

    Raises:
        ValueError: on a negative or infinite number.
    """

    body_flops_per_token: float
    head_flops_per_token: float
    attention: tuple[AttentionTerm, ...]
    parameters: int
    active_parameters: int
    embedding_parameters: int

    def __post_init__(self) -> None:
        for name in (
            "body_flops_per_token",
            "head_flops_per_token",
            "parameters",
            "active_parameters",
            "embedding_parameters",
        ):
            check_amount(name, getattr(self, name))

    @property
    def is_known(self) -> bool:
        """Whether it prices anything: there is no model without parameters, so none stands for one nobody knows."""
        return self.parameters > 0

    @property
    def is_traced(self) -> bool:
        """Whether FLOPs follow by exact accounting; a model of which only the size is known has paper accounting."""
        return self.is_known and self.body_flops_per_token > 0

    @classmethod
    def of_size(cls, parameters: int) -> "ForwardCost":
        """Of a model of which nothing but its size is known."""
        return cls(
            body_flops_per_token=0.0,
            head_flops_per_token=0.0,
            attention=(),
            parameters=parameters,
            active_parameters=parameters,
            embedding_parameters=0,
        )

    def to_json(self) -> dict[str, Any]:
        """The coefficients as plain JSON values; `from_json` restores them exactly."""
        return {
            "body_flops_per_token": self.body_flops_per_token,
            "head_flops_per_token": self.head_flops_per_token,
            "attention": [term.to_json() for term in self.attention],
            "parameters": self.parameters,
            "active_parameters": self.active_parameters,
            "embedding_parameters": self.embedding_parameters,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "ForwardCost":
        """The inverse of `to_json`.

        Raises:
            ValueError: if a key is missing or unknown, or a number is not allowed.
        """
        allowed = set(cls.__slots__)
        if set(document) != allowed:
            raise ValueError(f"forward cost has keys {sorted(document)}, expected exactly {sorted(allowed)}")
        return cls(
            body_flops_per_token=float(document["body_flops_per_token"]),
            head_flops_per_token=float(document["head_flops_per_token"]),
            attention=tuple(AttentionTerm.from_json(term) for term in document["attention"]),
            parameters=int(document["parameters"]),
            active_parameters=int(document["active_parameters"]),
            embedding_parameters=int(document["embedding_parameters"]),
        )


def check_amount(name: str, amount: float) -> None:
    """Raises ValueError unless `amount` is finite and not negative."""
    if not math.isfinite(amount) or amount < 0:
        raise ValueError(f"{name} must be finite and >= 0, got {amount}")


UNKNOWN_COST = ForwardCost(
    body_flops_per_token=0.0,
    head_flops_per_token=0.0,
    attention=(),
    parameters=0,
    active_parameters=0,
    embedding_parameters=0,
)
"""Of a model that is known by name only. What it cost is NaN wherever it would be a number."""
