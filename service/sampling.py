"""How completions are drawn: what a document asks for, what a model's own defaults say, what an engine is told.

Invariant: an engine is told numbers only. A field that a document leaves out is the model's own, as its authors
published it, and so may differ between the models of a job.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSampling:
    """What a model's generation_config.json says of sampling; None where it says nothing.

    Its temperature is not among them: experiments hold that equal between models.
    """

    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


OFF = ModelSampling(top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0)
"""Values that change nothing."""
FIELDS = ("top_p", "top_k", "min_p", "repetition_penalty")


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What a completion must look like: exactly one of the fields.

    Args:
        json_schema: a JSON schema as canonical JSON.
        regex: a regular expression that the whole completion matches.
        choice: the texts that it may be.
    """

    json_schema: str | None = None
    regex: str | None = None
    choice: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSpec:
    """How completions are drawn. None is the model's own default, but for `max_tokens`.

    Args:
        top_p: share of the probability that is drawn from, in (0, 1].
        top_k: most tokens that are drawn from; 0 is all.
        min_p: least probability of a token relative to the likeliest, in [0, 1].
        repetition_penalty: of tokens that occurred, > 0; 1 is none.
        max_tokens: most tokens of one completion; None is the remaining context of each prompt.
        structure: what the text must look like; None is free.
    """

    temperature: float = 0.7
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    structure: Structure | None = None

    def resolved_for(self, model: ModelSampling) -> "SamplingSpec":
        """The same with a number for every field that the document left to `model`."""
        return replace(self, **{name: self._value(name, model) for name in FIELDS})

    def _value(self, name: str, model: ModelSampling) -> float | int:
        return next(value for each in (self, model, OFF) if (value := getattr(each, name)) is not None)
