"""The lines of the local chat page's rooms."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from storage.records import tables
from storage.records.database import Database, one
from storage.records.rows import ChatMessage


class Chat:
    """The history of each room."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, room: str, author: str, body: Mapping[str, Any], dedupe: str | None = None) -> ChatMessage:
        """A new line in the room; the one that exists if the room has a line with this `dedupe` already."""
        table = tables.messages
        async with self._database.write() as connection:
            if dedupe is not None:
                known = select(table).where(table.c.room == room, table.c.dedupe == dedupe)
                if row := (await connection.execute(known)).one_or_none():
                    return ChatMessage(**row._mapping)
            created = self._database.now()
            values = {"room": room, "author": author, "body": dict(body), "dedupe": dedupe, "created": created}
            row = (await connection.execute(table.insert().values(values).returning(table))).one()
            return ChatMessage(**row._mapping)

    async def edit(self, message_id: int, body: Mapping[str, Any]) -> ChatMessage:
        """Replace the body of a line. Raises UserError missing_message."""
        table = tables.messages
        update = table.update().where(table.c.id == message_id).values(body=dict(body)).returning(table)
        async with self._database.write() as connection:
            return ChatMessage(**(await one(connection, update, "missing_message"))._mapping)

    async def line(self, room: str, message_id: int) -> ChatMessage | None:
        """One line of a room, or None if the room has no line of this id."""
        table = tables.messages
        row = await self._database.first(select(table).where(table.c.room == room, table.c.id == message_id))
        return ChatMessage(**row._mapping) if row else None

    async def history(self, room: str, after: int = 0, limit: int = 200) -> list[ChatMessage]:
        """The newest `limit` lines with an id above `after`, oldest first."""
        table = tables.messages
        query = select(table).where(table.c.room == room, table.c.id > after).order_by(table.c.id.desc()).limit(limit)
        return [ChatMessage(**row._mapping) for row in reversed(await self._database.rows(query))]
