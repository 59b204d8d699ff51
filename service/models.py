"""Catalogue entries: what a model is, what its tokens cost, how an engine should load it.

A `ModelSpec` is complete when it exists: files checked, FLOP coefficients traced, revision fingerprinted. Its
revision is a hash over the files, so that two directories with the same name never pass for one model.
"""

from dataclasses import dataclass, field

from service.endpoints import EndpointOptions
from service.flops import ForwardCost
from service.pricing import Price, Pricing
from service.sampling import ModelSampling


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How a pool loads the model. Defaults suit one CPU core or one GPU.

    Args:
        enforce_eager: whether no graphs are captured; None for none on a CPU, and captured ones on a GPU.
    """

    dtype: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int = 256
    kv_cache_gib: float = 1.0
    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1
    enforce_eager: bool | None = None
    simulated: bool = False

    def is_eager(self, *, on_gpu: bool) -> bool:
        """Whether an engine there captures no graphs; a GPU without waits for its kernels to be launched one by one."""
        return not on_gpu if self.enforce_eager is None else self.enforce_eager


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSource:
    """What an operator says of a model that a server elsewhere draws for.

    Args:
        path: directory with its tokenizer, and perhaps its config.json, which declares FLOPs; None without.
        context_len: most tokens of prompt and completion together; None for what config.json says [tokens].
        parameters: declare FLOPs in paper accounting; None where they are unknown, or config.json says more.
    """

    name: str
    endpoint: EndpointOptions
    path: str | None = None
    context_len: int | None = None
    parameters: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSource:
    """Where a model comes from that is an adapter merged into another.

    Args:
        path: directory that the adapter was registered from.
        revision: "sha256:<hex>" over its configuration and weights.
        base: name of the model that it was merged into.
    """

    path: str
    revision: str
    base: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One generator model: a directory of weights, or a server elsewhere that has them.

    Args:
        name: unique name in the catalogue.
        path: directory with config.json, safetensors and tokenizer files; of an endpoint one with its tokenizer, or "".
        revision: "sha256:<hex>" over the files' contents; of an endpoint "endpoint:<hex>" over what names it.
        context_len: most tokens of prompt and completion together [tokens].
        cost: FLOP coefficients traced from the model's own code; `UNKNOWN_COST` or the size alone where there are none.
        sampling: defaults that its authors published.
        base: the registered model whose engines serve this one, of which it is a finetuned checkpoint or an adapter;
            None for one with engines of its own.
        price: of its tokens in USD; None where nobody stated one. It says nothing of what the model is, so that one
            whose price has changed is the same model to an engine that has it loaded.
        endpoint: the server that draws for it; None for a model that is loaded here.
        adapter: what was merged to make it; None for a model that came whole.
    """

    name: str
    path: str
    revision: str
    context_len: int
    cost: ForwardCost
    engine: EngineOptions = field(default_factory=EngineOptions)
    sampling: ModelSampling = field(default_factory=ModelSampling)
    base: str | None = None
    price: Price | None = field(default=None, compare=False)
    endpoint: EndpointOptions | None = None
    adapter: AdapterSource | None = None

    @property
    def is_student(self) -> bool:
        """Whether a finetune registered it, and not people."""
        return self.base is not None and self.adapter is None

    @property
    def pricing(self) -> Pricing:
        """What its tokens cost."""
        if self.endpoint is None:
            return Pricing(cost=self.cost, price=self.price)
        return Pricing(cost=self.cost, price=self.price, max_charges=self.endpoint.max_lost_tries, is_elsewhere=True)

    @property
    def pool(self) -> str:
        """Name of the pool whose engines serve it: a checkpoint has the shape of its base and needs no engine anew."""
        return self.base or self.name
