"""Accounts and persons: queries that every topic needs. All run on the caller's connection.

An account is a row of `users`: somebody on one platform. The person is the account that owns what they have; accounts
that were joined to it name it in `person_id`.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.errors import UserError
from storage.records import tables
from storage.records.rows import User
from storage.records.server import get_value, put_value

DAY = timedelta(days=1)
"""How long an erasure keeps the used quota and the fingerprints of requests; quotas count over a day too."""


def select_accounts(*where: ColumnElement[bool]) -> Select[Any]:
    """The accounts for which this holds, oldest first, each with the id, the ban and the quota of its person."""
    own, person = tables.users, tables.users.alias("person")
    join = person.c.id == func.coalesce(own.c.person_id, own.c.id)
    columns = (person.c.id, own.c.platform, own.c.platform_id, own.c.name, own.c.created, person.c.banned)
    return select(*columns, person.c.quota).join_from(own, person, join).where(*where).order_by(own.c.created)


def belongs_to(user_id: str) -> ColumnElement[bool]:
    """Whether an account is this person's."""
    return or_(tables.users.c.id == user_id, tables.users.c.person_id == user_id)


async def accounts_of(connection: AsyncConnection, user_id: str) -> list[User]:
    """The person's accounts, oldest first."""
    return [User(**row._mapping) for row in await connection.execute(select_accounts(belongs_to(user_id)))]


async def person_id(connection: AsyncConnection, user_id: str) -> str:
    """The person's id now: an account may have been joined to another one since somebody read it.

    Raises UserError forgotten if it was erased since.
    """
    query = select(tables.users.c.person_id).where(tables.users.c.id == user_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise UserError("forgotten")
    return str(row.person_id or user_id)


async def fingerprint(connection: AsyncConnection, platform: str, platform_id: str, request: str = "") -> str:
    """A keyed hash of an account, or of one request that it sent.

    Equal accounts have equal fingerprints, but without this server's key nobody can find the account of one.
    """
    key = await get_value(connection, "key")
    if key is None:
        key = secrets.token_hex(32)
        await put_value(connection, "key", key)
    text = f"{platform}:{platform_id} {request}" if request else f"{platform}:{platform_id}"
    return hmac.new(str(key).encode(), text.encode(), hashlib.sha256).hexdigest()


async def insert_account(connection: AsyncConnection, values: Mapping[str, Any], now: datetime) -> None:
    """Insert a new account. A ban outlives an erasure."""
    marks = tables.forgotten
    mark = await fingerprint(connection, values["platform"], values["platform_id"])
    banned = await connection.scalar(select(marks.c.banned).where(marks.c.fingerprint == mark))
    await connection.execute(tables.users.insert().values(**values, banned=banned))
    await connection.execute(marks.update().where(marks.c.fingerprint == mark).values(banned=None))
    await connection.execute(marks.delete().where(marks.c.banned.is_(None), marks.c.until < now))


async def refuse_erased_request(
    connection: AsyncConnection, accounts: Iterable[tuple[str, str]], request: str | None, now: datetime
) -> None:
    """Raise UserError forgotten if one of these accounts (platform, id there) was erased after it sent this request."""
    if request is None:
        return
    table = tables.forgotten
    for platform, platform_id in accounts:
        mark = await fingerprint(connection, platform, platform_id, request)
        query = select(table.c.fingerprint).where(table.c.fingerprint == mark, table.c.until > now)
        if (await connection.execute(query)).one_or_none():
            raise UserError("forgotten")


async def set_ban(connection: AsyncConnection, platform: str, platform_id: str, since: datetime | None) -> User | None:
    """Ban an account's person, or lift the ban with None. Returns None if the account is unknown: a fingerprint of it
    is kept, so that the ban holds once they come."""
    users, marks = tables.users, tables.forgotten
    query = select_accounts(users.c.platform == platform, users.c.platform_id == platform_id)
    row = (await connection.execute(query)).one_or_none()
    if row is not None:
        await connection.execute(users.update().where(users.c.id == row.id).values(banned=since))
        return User(**{**row._mapping, "banned": since})
    mark = await fingerprint(connection, platform, platform_id)
    marked = await connection.execute(marks.update().where(marks.c.fingerprint == mark).values(banned=since))
    if not marked.rowcount and since is not None:
        values = {"fingerprint": mark, "banned": since, "spent": {}, "until": since}
        await connection.execute(marks.insert().values(values))
    return None
