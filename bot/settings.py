"""The bot process's settings."""

import re
from pathlib import Path

from pydantic import Field, SecretStr, field_validator

from storage.settings import StorageSettings


class BotSettings(StorageSettings):
    """What the bot reads from the environment and an `.env` file, with the prefix AVATAR_."""

    chat_host: str = Field(default="127.0.0.1", description="address that the local web chat listens on")
    chat_port: int = Field(default=8765, ge=0, le=65535, description="port of the local web chat; 0 picks a free one")
    operators: str | None = Field(
        default=None,
        description="Who may use /operator: platform:id with commas between, as discord:1234,telegram:567.",
    )
    discord_token: SecretStr | None = Field(default=None, description="the bot's token from Discord's developer portal")
    discord_api_url: str = Field(
        default="https://discord.com/api/v10", description="Discord's REST interface with its version, or a simulator's"
    )
    discord_gateway_url: str = Field(
        default="wss://gateway.discord.gg/", description="Discord's gateway, or a simulator's"
    )
    telegram_token: SecretStr | None = Field(default=None, description="the Telegram bot's token, from @BotFather")
    telegram_api_url: str = Field(
        default="https://api.telegram.org",
        description="root of the Bot API server; `/bot<token>/` and `/file/bot<token>/` follow it",
    )
    telegram_webhook_url: str | None = Field(
        default=None, description="https URL under which Telegram reaches this bot; unset means polling"
    )
    telegram_webhook_host: str = Field(default="127.0.0.1", description="address that the webhook listens on")
    telegram_webhook_port: int = Field(default=8443, ge=0, le=65535, description="port that the webhook listens on")

    health_file: Path | None = Field(
        default=None,
        description="file that a bot touches while it is connected; `python -m bot health` fails once it is 20 s old",
    )

    @field_validator("operators")
    @classmethod
    def _accounts(cls, operators: str | None) -> str | None:
        for account in _split(operators):
            if not re.fullmatch(r"[a-z]+:\S+", account):
                raise ValueError(f"{account!r} is no account; write platform:id, as discord:1234")
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
