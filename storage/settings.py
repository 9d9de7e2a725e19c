"""Settings of the storage. The environment is read when the class is called, not when it is imported."""

from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class StorageSettings(BaseSettings):
    """Settings that bot and engine share: `AVATAR_...` in the environment or in `.env`."""

    model_config = SettingsConfigDict(
        env_prefix="AVATAR_", env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True
    )

    home: Path = Field(
        default=Path("~/.local/share/avatar-diffusion"),
        validate_default=True,
        description="Data folder: records, blobs and the embedded Redis, unless one of the URLs below is set.",
    )
    redis_url: SecretStr | None = Field(
        default=None, description="URL of Redis: redis://, rediss:// or unix://; unset starts the embedded Redis."
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="SQLAlchemy URL of the database of records; unset means records.sqlite in the data folder.",
    )
    blob_url: str | None = Field(
        default=None, description="Folder for photos, adapters and pictures; unset means blobs in the data folder."
    )

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("blob_url")
    @classmethod
    def _a_folder(cls, url: str | None) -> str | None:
        if url and "://" in url and not url.startswith("file:///"):
            raise ValueError("only a folder (a path or file:///path) can hold blobs so far")
        return url

    @property
    def records_url(self) -> str:
        """The SQLAlchemy URL in use."""
        return (
            self.database_url.get_secret_value()
            if self.database_url
            else f"sqlite+aiosqlite:///{self.home}/records.sqlite"
        )

    @property
    def blob_folder(self) -> Path:
        """The folder of blobs in use."""
        if self.blob_url:
            return Path(self.blob_url.removeprefix("file://")).expanduser().absolute()
        return self.home / "blobs"


def table(*classes: type[StorageSettings]) -> str:
    """The settings of these classes as a Markdown table, each once: the one in docs/self-hosting.md."""
    fields = {name: field for settings in classes for name, field in settings.model_fields.items()}
    rows = [
        f"| `AVATAR_{name.upper()}` | {'' if field.default is None else f'`{field.default}`'} | {field.description} |"
        for name, field in fields.items()
    ]
    return "\n".join(["| setting | default | what |", "|---|---|---|", *rows])


def setting_error(error: ValidationError) -> str:
    """The first wrong setting in one line: its name in the environment and what is wrong with it, not its value."""
    first = error.errors()[0]
    return f"AVATAR_{'_'.join(map(str, first['loc'])).upper()}: {first['msg']}"
