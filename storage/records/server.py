"""Values that belong to the server and not to a person, by name."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.records import tables


async def get_value(connection: AsyncConnection, name: str) -> Any:
    """The value of this name, or None."""
    table = tables.server
    return await connection.scalar(select(table.c.value).where(table.c.name == name))


async def put_value(connection: AsyncConnection, name: str, value: Any) -> None:
    """Give this name a value."""
    table = tables.server
    if not (await connection.execute(table.update().where(table.c.name == name).values(value=value))).rowcount:
        await connection.execute(table.insert().values(name=name, value=value))
