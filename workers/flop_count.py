"""What one forward pass of a model costs, counted operator by operator.

Owns the count and the formula of grouped products, which torch lacks. Invariant: a product is counted or refused by
name, never missed: any operator that does products and has no FLOP formula ends the count. Must not import ray or vllm.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from service.errors import InvalidInput

# Names of operators that do tensor products. Any of them without a FLOP formula would be missed without a word.
_PRODUCT_NAME = re.compile(r"mm|mv|dot|matmul|conv|attention|linear|lstm|gru|einsum")
_LOCAL_NAMESPACES = frozenset({"aten", "prim", "prims"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedProduct:
    """One product of routed rows with expert weights: (rows, inner) times (experts, inner, outer)."""

    experts: int
    rows: int
    weights_per_expert: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What one forward pass cost.

    Args:
        total: all FLOPs.
        by_module: FLOPs by dotted module name, inner modules included.
        grouped: every grouped product of mixture-of-experts layers.
    """

    total: int
    by_module: dict[str, int]
    grouped: tuple[GroupedProduct, ...]


class _MissedProducts(TorchDispatchMode):
    """Records operators that do products but have no FLOP formula.

    Entered before the counter, so that it sees what the counter could not decompose any further.
    """

    def __init__(self, counted: Any) -> None:
        super().__init__()
        self.counted = counted
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = getattr(func, "overloadpacket", func)
        if packet not in self.counted:
            namespace, _, name = str(packet).rpartition(".")
            if namespace.split(".")[-1] not in _LOCAL_NAMESPACES or _PRODUCT_NAME.search(name):
                self.names.add(str(packet))
        return func(*args, **(kwargs or {}))


def count_forward(model: PreTrainedModel, *, tokens: int, logits: int, cache: Cache | None = None) -> Counts:
    """FLOPs of one pass over `tokens` new tokens after what is in `cache`, with the head at `logits` positions."""
    grouped: list[GroupedProduct] = []

    def grouped_mm_flops(rows: torch.Size, weights: torch.Size, *_args: object, **_kwargs: object) -> int:
        """2 x rows x inner x outer: every routed row meets the weights of exactly one expert."""
        if len(rows) != 2 or len(weights) != 3:
            raise InvalidInput(f"grouped product of shapes {tuple(rows)} and {tuple(weights)} is not rows by experts")
        experts, inner, outer = weights
        grouped.append(GroupedProduct(experts=experts, rows=rows[0], weights_per_expert=inner * outer))
        return 2 * rows[0] * inner * outer

    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten._grouped_mm: grouped_mm_flops})
    missed = _MissedProducts(counter.flop_registry)
    input_ids = torch.zeros(1, tokens, dtype=torch.long)
    with torch.no_grad(), missed, counter:
        model(input_ids=input_ids, past_key_values=cache, use_cache=cache is not None, logits_to_keep=logits)
    if missed.names:
        raise InvalidInput(
            f"model type {model.config.model_type!r} uses operators without a FLOP formula: "
            f"{', '.join(sorted(missed.names))}"
        )
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    return Counts(total=counter.get_total_flops(), by_module=by_module, grouped=tuple(grouped))
