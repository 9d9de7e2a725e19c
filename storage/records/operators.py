"""What operators control and see: a pause, bans and statistics."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, func, select

from storage.records import tables
from storage.records.accounts import DAY, set_ban
from storage.records.database import Database
from storage.records.rows import User
from storage.records.server import get_value, put_value


class Operators:
    """A pause, bans and statistics."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def paused(self) -> bool:
        """Whether engines take no new jobs at the moment."""
        async with self._database.read() as connection:
            return await get_value(connection, "paused") is True

    async def pause(self, paused: bool) -> None:
        """Stop engines from taking jobs, or let them again. Running jobs go on."""
        async with self._database.write() as connection:
            await put_value(connection, "paused", paused)

    async def base_model(self) -> dict[str, Any] | None:
        """The base model of the engine that started last, {"source", "notice", "sizes"}; None before the first start.
        "sizes" is missing if that engine was an older one."""
        async with self._database.read() as connection:
            found = await get_value(connection, "base")
            return dict(found) if found else None

    async def set_base_model(self, source: str, notice: str | None, sizes: Sequence[Sequence[int]] = ()) -> None:
        """Note an engine's base model.

        Args:
            source: a folder, a file or a hub id.
            notice: the code of what people should know about its pictures, None if there is nothing.
            sizes: usual sizes of its pictures, width and height in pixels, the most usual first.
        """
        async with self._database.write() as connection:
            await put_value(connection, "base", {"source": source, "notice": notice, "sizes": sizes})

    async def ban(self, platform: str, platform_id: str) -> User | None:
        """Ban the person with this account. Returns None if nobody has it yet; the ban then applies to the first user
        who does."""
        async with self._database.write() as connection:
            return await set_ban(connection, platform, platform_id, self._database.now())

    async def unban(self, platform: str, platform_id: str) -> User | None:
        """Lift a ban. Returns None if nobody has this account."""
        async with self._database.write() as connection:
            return await set_ban(connection, platform, platform_id, None)

    async def statistics(self) -> dict[str, dict[str, int]]:
        """Counts: people by platform, avatars by state, and the jobs of the last 24 hours by kind and by state."""
        avatars, jobs, users = tables.avatars, tables.jobs, tables.users
        recent = jobs.c.created > self._database.now() - DAY
        persons = users.c.person_id.is_(None)
        queries: dict[str, Select[Any]] = {
            "people": select(users.c.platform, func.count()).where(persons).group_by(users.c.platform),
            "avatars": select(avatars.c.state, func.count()).group_by(avatars.c.state),
            "jobs": select(jobs.c.kind, func.count()).where(recent).group_by(jobs.c.kind),
            "states": select(jobs.c.state, func.count()).where(recent).group_by(jobs.c.state),
        }
        found: dict[str, dict[str, int]] = {}
        for name, query in queries.items():
            pairs: Any = await self._database.rows(query)
            found[name] = dict(pairs)
        return found
