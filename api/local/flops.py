"""What one problem costs on a model, from its config alone: the `isoflop flops` verb.

Owns the report and its two forms, text and JSON. Invariant: needs no service, no weights and no network; counts are
those of `workers/flop_trace.py` and prices those of `service/flops.py`. Must not import ray or vllm.
"""

from dataclasses import dataclass
from pathlib import Path

from service.errors import InvalidInput
from service.flops import ForwardCost, ideal_flops, paper_flops


@dataclass(frozen=True, slots=True, kw_only=True)
class FlopsReport:
    """Cost of one problem with several samples of one length.

    Args:
        prompt_tokens: length of the prompt [tokens].
        completion_tokens: length of each sample [tokens].
        samples: samples of the problem.
        ideal_flops: forward FLOPs with the prompt computed once for all samples.
        paper_flops: 2 x total parameters x completion tokens of all samples.
        parameters: total parameters.
        cost: the coefficients behind the numbers.
    """

    prompt_tokens: int
    completion_tokens: int
    samples: int
    ideal_flops: float
    paper_flops: float
    parameters: int
    cost: ForwardCost

    def to_json(self) -> dict[str, float]:
        """What `--json` prints."""
        return {"ideal_flops": self.ideal_flops, "paper_flops": self.paper_flops, "parameters": self.parameters}

    def to_text(self) -> str:
        """What a person reads, one fact a line."""
        cost = self.cost
        active = "" if cost.active_parameters == cost.parameters else f", {cost.active_parameters:,} active per token"
        attention = "\n".join(
            f"  attention          {term.flops_per_token_pair:.6g} per token and "
            + ("key seen" if term.window is None else f"key seen, at most {term.window:,} keys")
            + (
                ""
                if term.sampled_flops_per_token_pair is None
                else f", {term.sampled_flops_per_token_pair:.6g} for a sampled token"
            )
            for term in cost.attention
        )
        lines = [
            f"parameters           {cost.parameters:,}{active}",
            "forward FLOPs",
            f"  body               {cost.body_flops_per_token:.6g} per token",
            *([attention] if attention else []),
            f"  output head        {cost.head_flops_per_token:.6g} per sampled token",
            f"one problem          {self.prompt_tokens:,} prompt tokens, {self.samples:,} samples of "
            f"{self.completion_tokens:,} tokens",
            f"  ideal              {self.ideal_flops:.6g} FLOPs (prompt computed once)",
            f"  paper              {self.paper_flops:.6g} FLOPs (2 x parameters x sampled tokens)",
        ]
        if self.paper_flops:
            lines.append(f"  ideal / paper      {self.ideal_flops / self.paper_flops:.3f}")
        return "\n".join(lines)


def flops_report(
    config: Path, prompt_tokens: int, completion_tokens: int, samples: int, *, base: Path | None = None
) -> FlopsReport:
    """Cost of one problem with `samples` samples of `completion_tokens` tokens each.

    Args:
        config: a config.json, the model directory that holds one, or the directory of a low-rank adapter.
        prompt_tokens: length of the prompt [tokens], >= 1.
        completion_tokens: length of each sample [tokens], >= 1.
        samples: samples of the problem, >= 1.
        base: of an adapter, where it is not the directory that the adapter names.

    Raises:
        InvalidInput: if a count is under 1, or the config is one that `workers.flop_trace` refuses.
    """
    for name, count in (
        ("prompt_tokens", prompt_tokens),
        ("completion_tokens", completion_tokens),
        ("samples", samples),
    ):
        if count < 1:
            raise InvalidInput(f"{name} must be >= 1, got {count}")
    # Imported here because torch and transformers take seconds to import and no other verb of the CLI needs them.
    from workers.flop_trace import trace_forward_cost

    cost = trace_forward_cost(config, base=base)
    return FlopsReport(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        samples=samples,
        ideal_flops=ideal_flops(
            cost, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, num_samples=samples
        ),
        paper_flops=paper_flops(cost, completion_tokens * samples),
        parameters=cost.parameters,
        cost=cost,
    )
