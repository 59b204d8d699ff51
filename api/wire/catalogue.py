"""Models, problem sets and pools as they come in and go out."""

import dataclasses
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from api.wire.base import InputModel, Known, Name, PathText, Whole, refuse_unstorable
from api.wire.jobs import PriceOut
from service.endpoints import Dialect, EndpointOptions, PromptForm
from service.flops import decode_flops
from service.models import EngineOptions, ModelSpec
from service.planner.plan import PoolView
from service.pricing import Price
from service.problems import ProblemSet

DATASET_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$"
ColumnName = Literal["id", "question", "answer", "level", "structure"]


Positive = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]


class EngineDocument(InputModel):
    """How an engine loads the model."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_model_len: Whole | None = Field(default=None, ge=2, le=10_000_000, description="Context to serve [tokens].")
    max_num_seqs: Whole = Field(default=256, ge=1, le=65_536, description="Requests in the engine at once.")
    kv_cache_gib: float = Field(default=1.0, gt=0, le=4096, allow_inf_nan=False, description="CPU only.")
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1, allow_inf_nan=False, description="GPU only.")
    tensor_parallel_size: Whole = Field(default=1, ge=1, le=64)
    enforce_eager: bool | None = Field(
        default=None, description="Whether no graphs are captured. Without a value: on a CPU none, on a GPU they are."
    )
    simulated: bool = Field(default=False, description="No engine: made-up text at a stated speed, to try things out.")

    def to_options(self) -> EngineOptions:
        """The same inside."""
        return EngineOptions(**self.model_dump())


class PriceDocument(InputModel):
    """What a million tokens of a model cost [USD]."""

    input_usd: float = Field(ge=0, le=100_000, allow_inf_nan=False, description="Of prompt tokens.")
    output_usd: float = Field(ge=0, le=100_000, allow_inf_nan=False, description="Of completion tokens.")
    cached_usd: float | None = Field(
        default=None, ge=0, le=100_000, allow_inf_nan=False, description="Of prompt tokens found in a cache."
    )

    def to_price(self) -> Price:
        """The same inside."""
        return Price(**self.model_dump())


class EndpointDocument(InputModel):
    """An OpenAI-compatible server, and how it is treated. Its key is in the service's environment, never here."""

    base_url: Annotated[str, Field(min_length=1, max_length=1000)] = Field(
        description="What /completions is appended to; one of ISOFLOP_ENDPOINTS."
    )
    model: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(refuse_unstorable)] = Field(
        description="The model's name there."
    )
    dialect: Literal["openai", "vllm"] = Field(
        default="openai", description="vllm also knows top_k, min_p, repetition_penalty and structures."
    )
    prompt_form: Literal["token_ids", "text"] = Field(default="text", description="What prompts are sent as.")
    stream: bool = Field(default=True, description="Whether tokens are sent as they come, so that stalls show.")
    sends_seed: bool = Field(default=True, description="Whether each request carries its sample's seed.")
    drops_unsupported: bool = Field(
        default=False, description="Whether sampling that the dialect has no word for is left out, and not refused."
    )
    max_in_flight: Whole = Field(default=32, ge=1, le=4096, description="Requests at the server at the same time.")
    requests_per_minute: Positive | None = Field(default=None, description="No more are begun; no limit without.")
    tokens_per_minute: Positive | None = Field(default=None, description="Prompt and most completion tokens together.")
    connect_timeout_s: Positive = 10.0
    read_timeout_s: Positive = Field(default=120.0, description="Longest silence within a try [s].")
    deadline_s: Positive = Field(default=1800.0, description="Longest time of a try [s].")
    max_refused_tries: Whole = Field(
        default=10, ge=1, le=1000, description="Of a request that the server did no work for (429, 503)."
    )
    max_lost_tries: Whole = Field(
        default=2, ge=1, le=100, description="Of one that it may have charged for; each sample reserves as many."
    )

    def to_options(self, api_key_env: str | None) -> EndpointOptions:
        """The same inside.

        Args:
            api_key_env: the variable of the server's key.
        """
        return EndpointOptions(
            **self.model_dump(exclude={"dialect", "prompt_form"}),
            dialect=Dialect(self.dialect),
            prompt_form=PromptForm(self.prompt_form),
            api_key_env=api_key_env,
        )


class RegisterModel(InputModel):
    """A directory with a model (config.json, safetensors, tokenizer) or an adapter, or a server that draws."""

    name: Name
    path: PathText | None = Field(
        default=None,
        description="A directory on the service's machine, under one of its roots; with `endpoint` one with the "
        "model's tokenizer, whose config.json, if there is one, declares its FLOPs.",
    )
    base: Name | None = Field(
        default=None,
        description="Of an adapter: the registered model that it is merged into. Without one, the only one with the "
        "name or path that the adapter's configuration says.",
    )
    engine: EngineDocument | None = Field(
        default=None, description="How it is loaded; neither with `endpoint` nor of an adapter."
    )
    endpoint: EndpointDocument | None = Field(default=None, description="The server that draws for it.")
    context_len: Whole | None = Field(
        default=None, ge=2, le=10_000_000, description="Of an endpoint without config.json [tokens]."
    )
    parameters: Whole | None = Field(
        default=None, ge=1, le=10**15, description="Of an endpoint: declares its FLOPs in paper accounting."
    )
    price: PriceDocument | None = Field(
        default=None, description="Without one nothing of the model can be budgeted in USD."
    )

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.endpoint is None:
            given = [name for name in ("context_len", "parameters") if getattr(self, name) is not None]
            if self.path is None or given:
                got = ", ".join(given) if given else "neither"
                raise PydanticCustomError("source", "a path, or an endpoint and what belongs to it", {"got": got})
        elif self.engine is not None:
            raise PydanticCustomError("source", "engine or endpoint", {"got": "both"})
        elif self.base is not None:
            raise PydanticCustomError("source", "base or endpoint", {"got": "both"})
        return self


class ChangeLimits(InputModel):
    """How an endpoint's server is treated; what is left out stays."""

    max_in_flight: Whole | None = Field(default=None, ge=1, le=4096)
    requests_per_minute: Positive | None = Field(default=None, description="null takes the limit away.")
    tokens_per_minute: Positive | None = Field(default=None, description="null takes the limit away.")
    connect_timeout_s: Positive | None = None
    read_timeout_s: Positive | None = None
    deadline_s: Positive | None = None
    max_refused_tries: Whole | None = Field(default=None, ge=1, le=1000)
    max_lost_tries: Whole | None = Field(default=None, ge=1, le=100)

    @model_validator(mode="after")
    def _check_nulls(self) -> Self:
        may_be_null = ("requests_per_minute", "tokens_per_minute")
        nulls = [name for name in self.model_fields_set if getattr(self, name) is None and name not in may_be_null]
        if nulls:
            raise PydanticCustomError("null", "a number, or nothing said", {"got": f"null for {', '.join(nulls)}"})
        return self


class ChangeModel(InputModel):
    """What operators may change of a model; what is left out stays. Jobs keep what they were submitted with."""

    price: PriceDocument | None = Field(default=None, description="null takes it away.")
    endpoint: ChangeLimits | None = Field(default=None, description="Limits of its server.")

    @model_validator(mode="after")
    def _check_something(self) -> Self:
        if "price" not in self.model_fields_set and self.endpoint is None:
            raise PydanticCustomError("change", "price, or endpoint with limits", {"got": "neither"})
        return self


class RegisterProblems(InputModel):
    """A problem set: a file or a data set of the Hugging Face hub. Exactly one of `path` and `dataset`."""

    name: Name
    path: PathText | None = Field(
        default=None, description="A .jsonl or .parquet file on the service's machine, under one of its roots."
    )
    dataset: Annotated[str, Field(pattern=DATASET_PATTERN, max_length=200)] | None = Field(
        default=None, description="A data set's name on the hub."
    )
    subset: Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=200)] | None = None
    split: Annotated[str, Field(pattern=r"^\w+(\[[\w:%]*\])?$", max_length=200)] = "train"
    columns: dict[ColumnName, Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default_factory=dict, description="Our column -> the source's column."
    )

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            got = "neither" if self.path is None else "both"
            raise PydanticCustomError("source", "exactly one of path and dataset", {"got": got})
        return self


class ChangePool(InputModel):
    """What operators decide of a pool; what is left out stays."""

    replicas: Whole | None = Field(default=None, ge=0, le=4096, description="Engines wanted while there is work.")
    min: Whole | None = Field(default=None, ge=0, le=4096, description="Engines kept without work.")
    idle_s: float | None = Field(
        default=None, ge=0, le=10_000_000, allow_inf_nan=False, description="Idle time before an engine leaves [s]."
    )


class EngineOut(BaseModel):
    """Engine options in force."""

    dtype: str
    max_model_len: int | None
    max_num_seqs: int
    kv_cache_gib: float
    gpu_memory_utilization: float
    tensor_parallel_size: int
    enforce_eager: bool | None
    simulated: bool


class AdapterOut(BaseModel):
    """What a model was made of that is an adapter merged into another."""

    base: str = Field(description="The model that it was merged into.")
    path: str = Field(description="Where the adapter was registered from.")
    revision: str = Field(description="Hash over the adapter's own files.")


class ModelOut(BaseModel):
    """A registered model and what its tokens cost."""

    name: str
    path: str
    revision: str = Field(description="Hash over the files' contents.")
    source: Literal["path", "endpoint", "adapter"]
    context_len: int
    parameters: int | None = Field(description="Null where unknown.")
    active_parameters: int | None
    flops_per_token: Known = Field(
        description="Forward FLOPs of one token halfway through the context; null where unknown."
    )
    cost: dict[str, object] | None = Field(
        description="FLOP coefficients, traced from the model's own code; null where unknown."
    )
    price: PriceOut | None = Field(description="Of its tokens; null where nobody stated one.")
    engine: EngineOut
    endpoint: dict[str, Any] | None = Field(description="The server that draws for it; null for a model loaded here.")
    pool: str = Field(description="The model whose engines serve it: itself, or what it is a checkpoint or adapter of.")
    adapter: AdapterOut | None = Field(description="What was merged to make it; null for a model that came whole.")

    @classmethod
    def of(cls, spec: ModelSpec) -> "ModelOut":
        """The model as it goes out."""
        cost = spec.cost
        options = {name: getattr(spec.engine, name) for name in EngineOptions.__slots__}
        return cls(
            name=spec.name,
            path=spec.path,
            revision=spec.revision,
            context_len=spec.context_len,
            parameters=cost.parameters if cost.is_known else None,
            active_parameters=cost.active_parameters if cost.is_known else None,
            flops_per_token=decode_flops(cost, spec.context_len // 2) if cost.is_traced else None,
            cost=cost.to_json() if cost.is_traced else None,
            price=PriceOut.of(spec.price),
            source="adapter" if spec.adapter else "path" if spec.endpoint is None else "endpoint",
            endpoint=None if spec.endpoint is None else dataclasses.asdict(spec.endpoint),
            pool=spec.pool,
            adapter=None if spec.adapter is None else AdapterOut(**dataclasses.asdict(spec.adapter)),
            engine=EngineOut(**{name: value for name, value in options.items() if name in EngineOut.model_fields}),
        )


class ProblemSetOut(BaseModel):
    """A registered problem set."""

    name: str
    num_problems: int
    fingerprint: str
    source: str

    @classmethod
    def of(cls, problems: ProblemSet) -> "ProblemSetOut":
        """The set as it goes out."""
        return cls(
            name=problems.name,
            num_problems=problems.num_problems,
            fingerprint=problems.fingerprint,
            source=problems.source,
        )


class PoolOut(BaseModel):
    """A pool of engines."""

    model: str
    replicas: int
    min: int
    idle_s: float
    version: int = Field(description="Changes with every change; the ETag.")
    failures: int = Field(description="Engines that failed to load since the last one that did.")
    waiting_since: datetime | None = Field(description="Since when it has work but no place for an engine.")
    load_s: float | None = Field(description="How long its last engine took to load [s].")
    num_turns: int = Field(description="Engines of it that left so far because others waited for the place.")
    hosts: dict[str, int] = Field(description="Living engines by state.")

    @classmethod
    def of(cls, pool: PoolView, hosts: dict[str, int]) -> "PoolOut":
        """The pool as it goes out."""
        return cls(
            model=pool.model,
            replicas=pool.replicas,
            min=pool.minimum,
            idle_s=pool.idle_s,
            version=pool.version,
            failures=pool.failures,
            waiting_since=pool.waiting_since,
            load_s=pool.load_s,
            num_turns=pool.num_turns,
            hosts=hosts,
        )


class ModelList(BaseModel):
    """Every model, by name."""

    items: list[ModelOut]


class ProblemSetList(BaseModel):
    """Every problem set, by name."""

    items: list[ProblemSetOut]


class PoolList(BaseModel):
    """Every pool, by model."""

    items: list[PoolOut]
