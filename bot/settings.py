"""The bot process's settings."""

import re
from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from storage.settings import StorageSettings


class BotSettings(StorageSettings):
    """Settings of the bot: `AVATAR_...` in the environment or in `.env`."""

    chat_host: str = Field(default="127.0.0.1", description="Address that the local web chat listens on.")
    chat_port: int = Field(
        default=8765, ge=0, le=65535, description="Port that the local web chat listens on; 0 picks a free one."
    )
    operators: str | None = Field(
        default=None,
        description="Accounts that may use /operator: platform:id, separated by commas (discord:1234,telegram:567).",
    )
    discord_token: SecretStr | None = Field(
        default=None, description="Token of the Discord bot, from Discord's developer portal."
    )
    discord_api_url: str = Field(
        default="https://discord.com/api/v10",
        description="Root of Discord's REST API, with its version, or of a simulator.",
    )
    discord_gateway_url: str = Field(
        default="wss://gateway.discord.gg/", description="URL of Discord's gateway, or of a simulator."
    )
    telegram_token: SecretStr | None = Field(default=None, description="Token of the Telegram bot, from @BotFather.")
    telegram_api_url: str = Field(
        default="https://api.telegram.org",
        description="Root of the Bot API server; `/bot<token>/` and `/file/bot<token>/` follow it.",
    )
    telegram_webhook_url: str | None = Field(
        default=None, description="HTTPS URL that Telegram sends updates to; unset means polling."
    )
    telegram_webhook_host: str = Field(default="127.0.0.1", description="Address that the webhook listens on.")
    telegram_webhook_port: int = Field(
        default=8443, ge=0, le=65535, description="Port that the webhook listens on; 0 picks a free one."
    )

    health_file: Path | None = Field(
        default=None,
        description="File that a bot touches while it is connected; `python -m bot health` fails once it is 20 s old.",
    )

    @field_validator("operators")
    @classmethod
    def _accounts(cls, operators: str | None) -> str | None:
        for account in _split(operators):
            if not re.fullmatch(r"[a-z]+:\S+", account):
                raise ValueError(f"{account!r} is no account; write platform:id, for example discord:1234")
        return operators

    @field_validator("telegram_api_url")
    @classmethod
    def _without_a_slash(cls, url: str) -> str:
        return url.rstrip("/")

    @property
    def operator_accounts(self) -> frozenset[str]:
        """The operators, each as platform:id."""
        return frozenset(_split(self.operators))


def _split(operators: str | None) -> list[str]:
    return [account.strip() for account in (operators or "").split(",") if account.strip()]
