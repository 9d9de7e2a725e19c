"""The bot process's settings."""

from pydantic import Field, SecretStr

from storage.settings import StorageSettings


class BotSettings(StorageSettings):
    """What the bot reads from the environment and an `.env` file, with the prefix AVATAR_."""

    chat_host: str = Field(default="127.0.0.1", description="address that the local web chat listens on")
    chat_port: int = Field(default=8765, ge=0, le=65535, description="port of the local web chat; 0 picks a free one")
    discord_token: SecretStr | None = Field(default=None, description="the bot's token from Discord's developer portal")
    discord_api_url: str = Field(
        default="https://discord.com/api/v10", description="Discord's REST interface with its version, or a simulator's"
    )
    discord_gateway_url: str = Field(
        default="wss://gateway.discord.gg/", description="Discord's gateway, or a simulator's"
    )
