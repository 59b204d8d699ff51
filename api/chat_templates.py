"""Whether models have the chat template that a prompt asks for, as far as their files tell. Must not import workers."""

import json
from collections.abc import Iterable
from pathlib import Path

from service.errors import InvalidInput
from service.jobs import PromptSpec
from service.models import ModelSpec


def check_chat_template(field: str, prompt: PromptSpec, models: Iterable[ModelSpec]) -> None:
    """Refuses a chat template that a model does not have.

    Args:
        field: where the prompt stands in its document.

    Raises:
        InvalidInput: naming the model.
    """
    if not prompt.use_chat_template:
        return
    for model in models:
        if not model.path:
            raise InvalidInput(
                f"{field}.use_chat_template: got true, but model {model.name} is an endpoint without a tokenizer, so "
                "nobody knows its chat template; allowed: false, or the model registered with its tokenizer's directory"
            )
        if model.engine.simulated or not may_have_chat_template(Path(model.path)):
            raise InvalidInput(
                f"{field}.use_chat_template: got true, but model {model.name} has no chat template in {model.path}; "
                "allowed: false, or a model that has one"
            )


def may_have_chat_template(directory: Path) -> bool:
    """Whether the tokenizer in a model directory may have a chat template, from its files alone.

    A directory that is not to be seen from here may: preparing prompts finds out.
    """
    if not directory.is_dir() or (directory / "chat_template.jinja").exists():
        return True
    if any((directory / name).exists() for name in ("chat_template.json", "additional_chat_templates")):
        return True
    try:
        config = json.loads((directory / "tokenizer_config.json").read_bytes())
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True
    return isinstance(config, dict) and bool(config.get("chat_template"))
