"""Short stable ids of how prompts are made and completions drawn, which samples carry."""

import dataclasses
import json
from hashlib import blake2b

from service.jobs import PromptSpec
from service.sampling import SamplingSpec


def spec_id(spec: PromptSpec | SamplingSpec) -> str:
    """16 hex digits, the same for the same spec on any machine."""
    document = json.dumps(dataclasses.asdict(spec), sort_keys=True, ensure_ascii=False)
    return blake2b(document.encode(), digest_size=8).hexdigest()
