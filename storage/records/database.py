"""One SQL database: opening it, reading, and writing in transactions."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Executable, Select, event, text
from sqlalchemy.engine import Connection, Row, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from storage.errors import UserError
from storage.folders import private_folder
from storage.records.migrations import upgrade

BUSY_SECONDS = 20.0
"""How long a writer waits for another process to finish writing (SQLite)."""

Clock = Callable[[], datetime]
"""Gives this moment, aware."""


def utc_now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


class Database:
    """The database behind one URL. Any number of processes may open it at the same time.

    `clock` decides when rows are created and when codes, grants and leases end; a test may replace it.
    """

    def __init__(self, engine: AsyncEngine, clock: Clock = utc_now) -> None:
        self.clock = clock
        self._engine = engine
        self._writing = engine.execution_options(begin="BEGIN IMMEDIATE")
        self._turn: AbstractAsyncContextManager[object] = (
            asyncio.Lock() if engine.dialect.name == "sqlite" else nullcontext()
        )

    @classmethod
    async def open(cls, url: str, clock: Clock = utc_now) -> "Database":
        """Connect and bring the schema up to date. `sqlite+aiosqlite://` keeps everything in memory, for tests."""
        parsed = make_url(url)
        sqlite = parsed.get_backend_name() == "sqlite"
        in_memory = sqlite and parsed.database in (None, "", ":memory:")
        if sqlite and not in_memory:
            await asyncio.to_thread(_private_file, Path(str(parsed.database)))
        # A database in memory lives and dies with its one connection.
        pool: dict[str, Any] = (
            {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0} if in_memory else {}
        )
        # Names and prompts must not reach a log through an error of the database.
        engine = create_async_engine(parsed, hide_parameters=True, **pool)
        if sqlite:
            event.listen(engine.sync_engine, "connect", _tune_sqlite)
            event.listen(engine.sync_engine, "begin", _begin_sqlite)
        database = cls(engine, clock)
        try:
            async with database.write() as connection:
                await connection.run_sync(upgrade)
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    def now(self) -> datetime:
        """This moment, by the database's clock."""
        return self.clock()

    def new_row(self) -> dict[str, Any]:
        """The id and the creation time of a new row."""
        return {"id": uuid.uuid4().hex, "created": self.now()}

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A connection to read on."""
        return self._engine.connect()

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A connection within one transaction: committed at the end, rolled back if anything is raised."""
        # BEGIN IMMEDIATE takes SQLite's write lock first: a reader that turns writer is refused without waiting if
        # another process wrote meanwhile. The lock of this process keeps the order: SQLite lets a waiting writer sleep
        # for up to 0.1 s and wakes several in no order.
        async with self._turn, self._writing.begin() as connection:
            yield connection

    async def rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        """Every row of a query."""
        async with self.read() as connection:
            return [*await connection.execute(query)]

    async def first(self, query: Select[Any]) -> Row[Any] | None:
        """The first row of a query, or None."""
        rows = await self.rows(query)
        return rows[0] if rows else None

    async def truncate_log(self) -> None:
        """Empty SQLite's write-ahead log, where erased rows stay readable until enough writes follow."""
        if self._engine.dialect.name == "sqlite":
            async with self._engine.execution_options(begin="").connect() as connection:
                await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))


async def one(connection: AsyncConnection, statement: Executable, code: str) -> Row[Any]:
    """The only row of a statement. Raises UserError with this code if there is none."""
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        raise UserError(code)
    return row


def _private_file(path: Path) -> None:
    private_folder(path.parent)
    path.touch(0o600)


def _tune_sqlite(connection: DBAPIConnection, _: object) -> None:
    connection.isolation_level = None  # the driver leaves BEGIN to _begin_sqlite
    cursor = connection.cursor()
    pragmas = (f"busy_timeout={int(BUSY_SECONDS * 1000)}", "journal_mode=WAL", "foreign_keys=ON", "secure_delete=ON")
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    if begin := connection.get_execution_options().get("begin", "BEGIN"):
        connection.exec_driver_sql(begin)
