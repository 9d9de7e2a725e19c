"""Rooms on Discord: a channel, and whether the bot itself can write there."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from discord import Interaction

NAME = "discord"


class ChannelKind(StrEnum):
    """Who reads a channel, and whether the bot can write there without an interaction."""

    DM = "dm"
    """The person's private chat with the bot: nobody else sees it, and the bot can write there."""
    SERVER = "server"
    """A channel of a server that the bot is in: others see what the bot writes there."""
    PRIVATE = "private"
    """A channel where only the person has the app: the bot can answer there, but not write by itself."""


@dataclass(frozen=True, slots=True)
class Room:
    """A channel, as "server/123" in the records."""

    kind: ChannelKind
    channel: int

    def __str__(self) -> str:
        return f"{self.kind}/{self.channel}"

    @classmethod
    def read(cls, text: str) -> "Room":
        """The room from its text in the records. Raises ValueError."""
        kind, _, channel = text.partition("/")
        return cls(ChannelKind(kind), int(channel))

    @classmethod
    def of(cls, interaction: Interaction[Any]) -> "Room":
        """The room of an interaction."""
        channel = interaction.channel_id or 0
        if interaction.guild_id is not None:
            return cls(ChannelKind.SERVER if interaction.is_guild_integration() else ChannelKind.PRIVATE, channel)
        return cls(ChannelKind.DM if interaction.context.dm_channel else ChannelKind.PRIVATE, channel)
