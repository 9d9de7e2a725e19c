"""All records, by topic, over one database."""

from storage.records.avatars import Avatars
from storage.records.chat import Chat
from storage.records.database import Clock, Database, utc_now
from storage.records.grants import Grants
from storage.records.jobs import Jobs
from storage.records.leases import Leases
from storage.records.notes import Notes
from storage.records.notices import Notices
from storage.records.operators import Operators
from storage.records.quotas import Quotas
from storage.records.users import Users


class Records:
    """The records of one database. Every method of a topic is one transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.users = Users(database)
        self.avatars = Avatars(database)
        self.grants = Grants(database)
        self.jobs = Jobs(database)
        self.quotas = Quotas(database)
        self.operators = Operators(database)
        self.notices = Notices(database)
        self.chat = Chat(database)
        self.notes = Notes(database)
        self.leases = Leases(database)

    @classmethod
    async def open(cls, url: str, clock: Clock = utc_now) -> "Records":
        """Connect and bring the schema up to date. `sqlite+aiosqlite://` keeps everything in memory, for tests."""
        return cls(await Database.open(url, clock))

    async def close(self) -> None:
        """Close every connection."""
        await self.database.close()
