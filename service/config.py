"""Settings of a deployment: read once, in `api/main.py`, and passed down as values.

Every field is an environment variable with the prefix ISOFLOP_. What a job computes is never decided here but in its
document, so that the same document means the same anywhere. Workers read no settings.
"""

import ipaddress
import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
DEFAULT_PORT = 8265


class Settings(BaseSettings):
    """Where things are and what is allowed.

    Attributes:
        data_dir: database, problem sets, shards, logs; one controller holds it.
        database_url: SQLAlchemy URL; without one, SQLite under `data_dir`.
        host: address to listen on; loopback only, for there are no keys yet.
        roots: directories that models and problem files may be registered from.
        endpoints: servers that models may be registered from: the environment variable of each one's key, or null where
            it wants none, by address; JSON.
        max_body_bytes: largest request body.
        max_tick_age_s: /healthz fails when the control loop has been silent for longer.
        start_grace_s: ... but not in the first seconds of a start, while the cluster comes up.
        engine_places: most engine places of a node; without it, one a GPU, or one a logical CPU where there is no GPU.
        host_silence_s: an engine, dispatcher or trainer that no controller has spoken to for so long writes what it has
            and ends by itself.
    """

    model_config = SettingsConfigDict(env_prefix="ISOFLOP_", frozen=True, extra="forbid")

    data_dir: Path = Path(".isoflop")
    database_url: str | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65535)
    roots: Annotated[tuple[Path, ...], NoDecode] = Field(default_factory=lambda: (Path.cwd(),))
    endpoints: dict[str, str | None] = Field(default_factory=dict)
    max_body_bytes: int = Field(default=8 << 20, ge=1 << 10)
    max_tick_age_s: float = Field(default=30.0, gt=0)
    start_grace_s: float = Field(default=120.0, ge=0)
    engine_places: int | None = Field(default=None, ge=1, le=4096)
    host_silence_s: float = Field(default=1800.0, gt=0)

    @field_validator("roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        """A text is a list of directories as in PATH."""
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("roots", mode="after")
    @classmethod
    def _resolve_roots(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        """Symbolic links are followed once, here, so that a later comparison is between real places."""
        return tuple(path.resolve() for path in value)

    @field_validator("host", mode="after")
    @classmethod
    def _check_loopback(cls, value: str) -> str:
        if not is_loopback(value):
            raise ValueError(
                f"host: got {value!r}, allowed: a loopback address such as 127.0.0.1; anybody who reaches "
                "the service may spend its budget, so put a proxy that asks for credentials before it"
            )
        return value

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'isoflop.db'}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
