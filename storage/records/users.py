"""People: their accounts, joining and erasing them."""

from typing import Any

from sqlalchemy import func, or_, select

from storage.errors import UserError
from storage.records import erasure, linking, tables
from storage.records.accounts import accounts_of, belongs_to, insert_account, refuse_erased_request, select_accounts
from storage.records.database import Database
from storage.records.rows import Forgotten, Linked, User


class Users:
    """People and their accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_or_create(self, platform: str, platform_id: str, name: str, *, request: str | None = None) -> User:
        """The user with this account, created if new; `name` is what the platform calls them now.

        `request` is the key of the request that they sent, as `Jobs.create` takes it. Raises UserError forgotten, and
        creates nobody, if the account is unknown because the person who sent this request was erased.
        """
        table = tables.users
        account = (table.c.platform == platform, table.c.platform_id == platform_id)
        query = select_accounts(*account)
        if (row := await self._database.first(query)) and row.name == name:
            return User(**row._mapping)
        values = {"platform": platform, "platform_id": platform_id, "name": name}
        async with self._database.write() as connection:
            if not (await connection.execute(table.update().where(*account).values(name=name))).rowcount:
                now = self._database.now()
                await refuse_erased_request(connection, [(platform, platform_id)], request, now)
                await insert_account(connection, {**self._database.new_row(), **values}, now)
            return User(**(await connection.execute(query)).one()._mapping)

    async def find(self, platform: str, id_or_name: str) -> list[User]:
        """The user with this id on this platform, or else all users of this name there."""
        table = tables.users
        by_id = table.c.platform_id.in_((id_or_name, id_or_name.lower()))
        if row := await self._database.first(select_accounts(table.c.platform == platform, by_id)):
            return [User(**row._mapping)]
        # SQLite lowers ASCII only; other letters have to be as they are in the name.
        by_name = or_(table.c.name == id_or_name, func.lower(table.c.name) == id_or_name.lower())
        rows = await self._database.rows(select_accounts(table.c.platform == platform, by_name))
        return [User(**row._mapping) for row in rows]

    async def exists(self, platform: str, platform_id: str) -> bool:
        """Whether somebody has this account here."""
        table = tables.users
        where = (table.c.platform == platform, table.c.platform_id == platform_id)
        return await self._database.first(select(table.c.id).where(*where)) is not None

    async def accounts(self, user_id: str) -> list[User]:
        """The person's accounts, oldest first."""
        async with self._database.read() as connection:
            return await accounts_of(connection, user_id)

    async def account_on(self, user_id: str, platform: str) -> User | None:
        """The person's account on this platform, or None."""
        row = await self._database.first(select_accounts(belongs_to(user_id), tables.users.c.platform == platform))
        return User(**row._mapping) if row else None

    async def link_code(self, user_id: str) -> str:
        """A code that joins another account to this person, once and within ten minutes. It replaces earlier ones."""
        async with self._database.write() as connection:
            return await linking.make_code(connection, user_id, self._database.now())

    async def link(self, user_id: str, code: str) -> Linked:
        """Join this account, and what it has, to the person who made the code.

        An avatar whose token that person has too gets another token. An account that this code joined before gets the
        same answer again, so that a call may be repeated. Raises UserError link_code (unknown, used or too old),
        link_self, link_same_platform or banned; then nothing has changed, except that the code is spent.
        """
        async with self._database.write() as connection:
            try:
                return await linking.link(connection, user_id, code, self._database.now())
            except UserError as error:
                refusal = error  # raised after the commit: the code stays spent, so nobody tries several accounts on it
        raise refusal

    async def export(self, user_id: str) -> dict[str, list[dict[str, Any]]]:
        """All rows about this person, by table."""
        async with self._database.read() as connection:
            return await erasure.rows_about(connection, user_id)

    async def blob_keys(self, user_id: str) -> list[str]:
        """The blobs of a person: keys, and prefixes that end in a slash."""
        async with self._database.read() as connection:
            return await erasure.blob_keys(connection, user_id)

    async def forget(self, user_id: str, *, lines: bool = False) -> Forgotten:
        """Erase a person: accounts, avatars, photos, jobs, pictures, grants, and with `lines` their lines in the chat.

        Other people's jobs that drew one of the person's avatars are emptied, and stopped if they are under way. What
        stays is a fingerprint of each account, for a day or for as long as a ban lasts, and one of each request of the
        last day.
        """
        async with self._database.write() as connection:
            forgotten = await erasure.forget(connection, user_id, lines, self._database.now())
        await self._database.truncate_log()
        return forgotten
