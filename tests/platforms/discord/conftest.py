"""A world for each test, whose server must have found no fault in the end."""

from collections.abc import AsyncIterator
from pathlib import Path

import discord
import pytest

from bot.frontends.discord.address import point_at
from storage.open import open_storage
from storage.settings import StorageSettings
from tests.platforms.discord.world import ANNA, BEN, World, engine_of
from tests.platforms.discord_server import DiscordServer


@pytest.fixture
async def server() -> AsyncIterator[DiscordServer]:
    before = discord.http.Route.BASE, discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY
    async with DiscordServer() as served:
        point_at(served.api, served.gateway)
        yield served
    discord.http.Route.BASE, discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = before


@pytest.fixture
async def world(server: DiscordServer, tmp_path: Path) -> AsyncIterator[World]:
    async with open_storage(StorageSettings(home=tmp_path)) as storage, engine_of(storage) as engine:
        made = World(server, storage, engine, None, [])  # type: ignore[arg-type]
        await made.start()
        yield made
        await made.stop()
    assert server.faults == []


@pytest.fixture
def studio(server: DiscordServer) -> int:
    """A channel of a server where Anna and Ben are."""
    return server.add("server", ANNA, BEN)
