"""Joining two accounts to one person, by a code. All on the caller's transaction."""

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import naming
from storage.errors import UserError
from storage.records import tables
from storage.records.accounts import DAY, accounts_of, belongs_to, person_id
from storage.records.avatars import new_token_values
from storage.records.rows import Linked

CODE_LETTERS = "bcdfghjkmnpqrstvwxz"
CODE_LENGTH = 8
CODE_LIFE = timedelta(minutes=10)
REDEEMED = "link/redeemed"
"""The space of notes by digest of a code: {"person", "platforms", "renamed"}. Redeeming it again changes nothing."""


async def make_code(connection: AsyncConnection, user_id: str, now: datetime) -> str:
    """A code that joins another account to this person, once and within CODE_LIFE. It replaces earlier ones."""
    table, notes = tables.link_codes, tables.notes
    owner = await person_id(connection, user_id)
    await connection.execute(table.delete().where(or_(table.c.user_id == owner, table.c.expires <= now)))
    await connection.execute(notes.delete().where(notes.c.space == REDEEMED, notes.c.created < now - DAY))
    code = "".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH))
    await connection.execute(table.insert().values(digest=_digest(code), user_id=owner, expires=now + CODE_LIFE))
    return code


def _digest(code: str) -> str:
    return hashlib.sha256(code.strip().lower().encode()).hexdigest()


async def link(connection: AsyncConnection, user_id: str, code: str, now: datetime) -> Linked:
    """Join this account, and what it has, to the person who made the code.

    An account that this code joined before gets the same answer again.

    Raises UserError link_code (unknown, used or too old), link_self, link_same_platform or banned.
    """
    if joined := await _redeemed(connection, user_id, code):
        return joined
    # Spend the code.
    table, users = tables.link_codes, tables.users
    spent = table.delete().where(table.c.digest == _digest(code), table.c.expires > now).returning(table.c.user_id)
    main = await connection.scalar(spent)
    if main is None:
        raise UserError("link_code")
    # Check who would be joined.
    other = await person_id(connection, user_id)
    if other == main:
        raise UserError("link_self")
    mains, others = await accounts_of(connection, main), await accounts_of(connection, other)
    if {account.platform for account in mains} & {account.platform for account in others}:
        # Nobody needs it, and an attacker would talk somebody into it.
        raise UserError("link_same_platform", platform=others[0].platform)
    if mains[0].banned or others[0].banned:
        raise UserError("banned")
    # Move everything to the person.
    renamed = await _move_avatars(connection, main, other)
    await _move_grants(connection, main, other)
    await _move_jobs(connection, main, other)
    await connection.execute(tables.consents.update().where(tables.consents.c.user_id == other).values(user_id=main))
    await connection.execute(table.delete().where(table.c.user_id.in_((main, other))))
    if mains[0].quota is None and others[0].quota is not None:
        await connection.execute(users.update().where(users.c.id == main).values(quota=others[0].quota))
    await connection.execute(users.update().where(belongs_to(other)).values(person_id=main))
    # Remember the answer.
    body = {"person": main, "platforms": [account.platform for account in others], "renamed": renamed}
    owner = f"{mains[0].platform}:{mains[0].platform_id}"
    note = {"space": REDEEMED, "key": _digest(code), "body": body, "owner": owner, "created": now}
    await connection.execute(tables.notes.insert().values(note))
    return Linked(mains[0], tuple(others), tuple(renamed))


async def _redeemed(connection: AsyncConnection, user_id: str, code: str) -> Linked | None:
    """What this code did, if it joined this person."""
    table = tables.notes
    query = select(table.c.body).where(table.c.space == REDEEMED, table.c.key == _digest(code))
    body = await connection.scalar(query)
    if body is None or await person_id(connection, body["person"]) != await person_id(connection, user_id):
        return None
    accounts = await accounts_of(connection, body["person"])
    joined = tuple(account for account in accounts if account.platform in body["platforms"])
    main = next(account for account in accounts if account not in joined)
    return Linked(main, joined, tuple((old, new) for old, new in body["renamed"]))


async def _move_avatars(connection: AsyncConnection, main: str, other: str) -> list[tuple[str, str]]:
    """Returns the tokens that both persons had, old and new."""
    table = tables.avatars
    taken = set(await connection.scalars(select(table.c.token).where(table.c.owner_id.in_((main, other)))))
    of_main = select(table.c.token).where(table.c.owner_id == main, table.c.state != "failed")
    live = set(await connection.scalars(of_main))
    renamed = []
    rows = (await connection.execute(select(table).where(table.c.owner_id == other).order_by(table.c.created))).all()
    for row in rows:
        values: dict[str, Any] = {"owner_id": main}
        if row.token in live and row.state != "failed":
            token = naming.suggest_token(row.token, taken)
            taken.add(token)
            renamed.append((row.token, token))
            values |= new_token_values(row, token)
        await connection.execute(table.update().where(table.c.id == row.id).values(values))
    return renamed


async def _move_jobs(connection: AsyncConnection, main: str, other: str) -> None:
    table = tables.jobs
    # Request keys name their platform, so two accounts should share none. If they do, one of the two jobs keeps it.
    used = select(table.c.request).where(table.c.user_id == main, table.c.request.is_not(None))
    clashing = table.update().where(table.c.user_id == other, table.c.request.in_(used))
    await connection.execute(clashing.values(request=None))
    await connection.execute(table.update().where(table.c.user_id == other).values(user_id=main))


async def _move_grants(connection: AsyncConnection, main: str, other: str) -> None:
    """Keep, of two grants of one avatar, the one that ends later; drop those of avatars that the person now owns."""
    table = tables.grants
    to_user = table.c.grantee_kind == "user"
    rows = (await connection.execute(select(table).where(to_user, table.c.grantee_id.in_((main, other))))).all()
    own = set(await connection.scalars(select(tables.avatars.c.id).where(tables.avatars.c.owner_id == main)))
    kept: dict[str, Row[Any]] = {}
    for row in rows:
        best = kept.get(row.avatar_id)
        if row.avatar_id not in own and (best is None or _ends_later(row.expires, best.expires)):
            kept[row.avatar_id] = row
    dropped = [row.id for row in rows if kept.get(row.avatar_id) is not row]
    await connection.execute(table.delete().where(table.c.id.in_(dropped)))
    moved = table.update().where(table.c.id.in_([row.id for row in kept.values()]))
    await connection.execute(moved.values(grantee_id=main))


def _ends_later(one: datetime | None, other: datetime | None) -> bool:
    """None is no end."""
    return other is not None and (one is None or one > other)
