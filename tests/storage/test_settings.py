from pathlib import Path

import pytest
from pydantic import ValidationError

from storage.settings import StorageSettings


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HOME", "REDIS_URL", "DATABASE_URL", "BLOB_URL"):
        monkeypatch.delenv(f"AVATAR_{name}", raising=False)


def test_all_is_in_the_data_folder_by_default(tmp_path: Path) -> None:
    settings = StorageSettings()
    assert settings.home == tmp_path / ".local/share/avatar-diffusion"
    assert settings.records_url == f"sqlite+aiosqlite:///{settings.home}/records.sqlite"
    assert settings.blob_folder == settings.home / "blobs"
    assert settings.redis_url is None


def test_the_environment_and_env_file_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("AVATAR_BLOB_URL=file:///somewhere\nAVATAR_SOMETHING_ELSE=1\n")
    monkeypatch.setenv("AVATAR_REDIS_URL", "redis://:hunter2@host/0")
    settings = StorageSettings()
    assert settings.blob_folder == Path("/somewhere")
    assert settings.redis_url and settings.redis_url.get_secret_value() == "redis://:hunter2@host/0"
    assert "hunter2" not in repr(settings)


def test_a_bucket_is_refused_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVATAR_BLOB_URL", "s3://bucket")
    with pytest.raises(ValidationError, match="only a folder"):
        StorageSettings()


def test_every_field_is_described() -> None:
    assert all(field.description for field in StorageSettings.model_fields.values())
