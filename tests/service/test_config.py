"""Settings: what the environment may say, and what is refused before anything starts."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.config import Settings, is_loopback


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA_DIR", "DATABASE_URL", "HOST", "PORT", "ROOTS", "URL"):
        monkeypatch.delenv(f"ISOFLOP_{name}", raising=False)


def test_settings_without_environment_listen_on_loopback_and_allow_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    settings = Settings()

    assert is_loopback(settings.host)
    assert settings.roots == (tmp_path.resolve(),)
    assert settings.url == f"sqlite:///{tmp_path / '.isoflop' / 'isoflop.db'}"


def test_settings_roots_are_a_path_list_with_links_resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("ISOFLOP_ROOTS", f"{tmp_path / 'link'}:/models")

    assert Settings().roots == ((tmp_path / "real").resolve(), Path("/models"))


def test_settings_database_url_comes_before_the_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOFLOP_DATABASE_URL", "postgresql+psycopg://host/db")

    assert Settings().url == "postgresql+psycopg://host/db"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_settings_host_that_others_reach_is_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="loopback"):
        Settings(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_settings_loopback_host_is_accepted(host: str) -> None:
    assert Settings(host=host).host == host


@pytest.mark.parametrize("fields", [{"port": -1}, {"port": 70_000}, {"max_tick_age_s": 0}, {"max_body_bytes": 1}])
def test_settings_number_out_of_range_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(fields)
