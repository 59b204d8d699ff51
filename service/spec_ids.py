"""Short stable ids of how prompts are made and completions drawn, which samples carry."""

import dataclasses
import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from service.jobs import PromptSpec
from service.sampling import SamplingSpec


def spec_id(spec: PromptSpec | SamplingSpec) -> str:
    """16 hex digits, the same for the same spec on any machine."""
    return document_id(dataclasses.asdict(spec))


def document_id(document: Mapping[str, Any]) -> str:
    """The same of a spec as it stands in a manifest, which may have other fields than specs have by now."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False)
    return blake2b(text.encode(), digest_size=8).hexdigest()
