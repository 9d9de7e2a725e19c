"""Many people at once on a simulated platform: each gives a command of their own, while things go wrong.

`chance` is how often a call goes wrong in each way, and `seed` decides which do, and who asks for what.
"""

import asyncio
import re
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from bot.frontends.discord.answering import OPEN
from bot.frontends.telegram.intake import INBOX
from bot.settings import BotSettings
from storage.events import Event
from storage.jobs import Imagine, JobKind, State
from storage.open import Storage, open_storage
from storage.records import Job
from tests.fakes.engine import Engine
from tests.platforms import discord_server, telegram_server
from tests.platforms.discord_server import DiscordServer, Sent
from tests.platforms.dying import Bot
from tests.platforms.telegram_server import Person as Phone
from tests.platforms.telegram_server import Rates, Server, Weather, labels, served

PATIENCE = 600.0
MIX = {
    "imagine": 50, "avatars": 8, "status": 6, "cancel": 6, "cancel nothing": 4, "share": 6, "unshare": 4, "export": 5,
    "mydata": 5, "help": 4, "privacy": 2,
}  # fmt: skip
"""What people ask for, and how many of a hundred."""
PICTURES = 1000
"""Pictures that a job draws which is under way when its person asks; their number is added, by which it is known."""
_WORDS = ("prompt", "token", "person")
"""Options that are typed without their name."""
_WHOSE = re.compile(r"zoe(\d+)|\(seed (\d+)\)|Drawing 1,(\d{3}) pictures")
_SHARED = re.compile(r"^.*shared with you by.*$", re.MULTILINE)
_ALONE = re.compile(r"\(seed|· ready|· running|Stopping|I know you as|what I learned of|can now draw|is not shared")
"""What nobody but its person may read."""
SHOW = "Show the pictures"
_UNSURE = "The connection broke"
"""What Telegram's people are told if nobody knows whether they were answered: they ask again if they were not."""


@dataclass
class Person:
    """Somebody, what they ask for, and what came of it.

    given: the command's options. answers: what only their answer says, each in one message. pictures: that come along;
    file: what is in the file that does. asked: how often they gave the command; pressed: how often a
    button. acknowledged: the seconds after which they saw that the bot is at it, without the `silenced` ones, for which
    the platform told it to be silent. alone: what they read that nobody else does; aloud: what others read too.
    """

    number: int
    account: int
    name: str
    room: str
    command: str
    given: Mapping[str, str | int]
    answers: Sequence[str]
    pictures: int = 0
    file: str = ""
    asked: int = 0
    pressed: int = 0
    acknowledged: float | None = None
    silenced: float = 0.0
    alone: list[str] = field(default_factory=list)
    aloud: list[str] = field(default_factory=list)
    drawn: int = 0
    files: list[bytes] = field(default_factory=list)

    @property
    def token(self) -> str:
        """Their avatar's."""
        return f"zoe{self.number}"

    @property
    def line(self) -> str:
        """The command as they would type it."""
        words = [str(value) if name in _WORDS else f"--{name} {value}" for name, value in self.given.items()]
        return " ".join([f"/{self.command}", *words])

    def told(self, answer: str) -> int:
        """How many messages say this to them."""
        return sum(re.search(answer, text) is not None for text in (*self.alone, *self.aloud))

    @property
    def content(self) -> bool:
        """Whether they have all that they asked for."""
        return all(map(self.told, self.answers)) and (not self.file or len(self.files) > 0)

    def check(self) -> None:
        """They have it once, and nothing that is somebody else's."""
        assert self.acknowledged is not None, self
        assert all(1 <= self.told(answer) <= self.asked for answer in self.answers), self
        assert self.drawn == self.pictures and (len(self.files) > 0) == bool(self.file), self
        assert all(self.file.encode() in file for file in self.files), self
        for text in self.alone:
            whose = {int("".join(found)) for found in _WHOSE.findall(_SHARED.sub("", text))}
            assert whose <= {self.number}, (self.number, text)
        assert not [text for text in self.aloud if _ALONE.search(text)], self


@dataclass(frozen=True)
class Seen:
    """What came of it. `seconds`: until all had their answers."""

    people: Sequence[Person]
    seconds: float
    faults: Sequence[str]

    def percentile(self, part: float) -> float:
        """The seconds within which this part of the people, 0 to 1, saw that the bot is at it."""
        times = sorted(one.acknowledged for one in self.people if one.acknowledged is not None)
        return times[min(len(times) - 1, int(part * len(times)))]

    def check(self) -> None:
        """No answer lost, doubled or given to somebody else; everybody was told that the bot is at it."""
        assert not self.faults, self.faults[:5]
        for one in self.people:
            one.check()


def _crowd(accounts: Sequence[tuple[int, str, str]], seed: int) -> list[Person]:
    """The people of these accounts, names and rooms, each with a command: all of them occur, if there are enough."""
    pick, most = Random(seed), len(accounts)
    commands = [*MIX, *pick.choices([*MIX], [*MIX.values()], k=most)][:most]
    pick.shuffle(commands)
    people = []
    for number, ((account, name, room), command) in enumerate(zip(accounts, commands, strict=True), start=1):
        token, under_way = f"zoe{number}", f"Drawing {PICTURES + number:,} pictures"
        somebody = {"token": token, "person": str(accounts[number % most][0])}
        given: Mapping[str, str | int] = {}
        match command:
            case "imagine":
                given, answers = {"prompt": token, "count": 1, "seed": number}, [rf"\(seed {number}\)"]
            case "avatars":
                answers = [f"{token} · woman · ready"]
            case "status":
                answers = [f"{under_way} · running"]
            case "cancel":
                # Who was left in doubt and asks again has nothing to stop any more.
                stopping = f"Stopping: {under_way}|You have no jobs under way"
                answers = [stopping, f"^(<@{account}> )?The drawing is cancelled"]
            case "cancel nothing":
                answers = ["You have no jobs under way"]
            case "share":
                given = {"token": token} if room.startswith("server") else somebody
                answers = [f"can now draw {token} anywhere|shares {token} with this group"]
            case "unshare":
                given, answers = somebody, [rf"{token} is not shared( with|\.)"]
            case "export":
                given, answers = {"token": token}, [rf"what I learned of {token}\."]
            case "mydata":
                answers = [f"I know you as {name} on"]
            case "help":
                answers = ["Show me 5 to 10 photos of a person"]
            case _:
                answers = ["What I keep about you"]
        file = token if command in ("export", "mydata") else ""
        word = command.partition(" ")[0]
        people.append(Person(number, account, name, room, word, given, answers, int(command == "imagine"), file))
    return people


async def _settle(storage: Storage, platform: str, people: Sequence[Person]) -> list[Job]:
    """Give everybody an avatar, and what their command needs; the jobs that are under way."""
    records, under_way = storage.records, []
    users = [await records.users.get_or_create(platform, str(one.account), one.name) for one in people]
    for number, (one, user) in enumerate(zip(people, users, strict=True)):
        avatar = await records.avatars.create(user.id, one.token, "woman", [], "1")
        adapter = f"adapters/{avatar.id}/x"
        await storage.blobs.put(adapter, one.token.encode())
        await records.avatars.update(avatar.id, state="ready", adapter_key=adapter)
        if one.command == "unshare":
            await records.grants.create(avatar.id, "user", users[(number + 1) % len(users)].id)
        if "Drawing" in one.answers[0]:
            asked = Imagine(one.token, (avatar.id,), PICTURES + one.number)
            job = await records.jobs.create(JobKind.IMAGINE, user.id, platform, one.room, asked)
            claimed = await records.jobs.claim(job.id)
            assert claimed
            under_way.append(claimed)
    return under_way


@asynccontextmanager
async def _at_work(home: Path, platform: str, people: Sequence[Person]) -> AsyncIterator[tuple[Storage, Engine]]:
    async with open_storage(BotSettings(_env_file=None, home=home)) as storage:
        engine = Engine(storage.records, storage.blobs, storage.events, steps=1)  # type: ignore[arg-type]
        under_way = await _settle(storage, platform, people)
        engine.held = {job.id for job in under_way}
        running = [engine.run(), *(_until_stopped(storage, engine, job) for job in under_way)]
        tasks = [asyncio.create_task(one) for one in running]
        try:
            yield storage, engine
        finally:
            engine.stopping.set()
            await asyncio.gather(*tasks)


@asynccontextmanager
async def _bot(platform: str, environment: dict[str, str]) -> AsyncIterator[None]:
    bot = Bot(platform, environment, None)
    try:
        await bot.start()
        yield
    finally:
        await bot.stop()


async def _until_stopped(storage: Storage, engine: Engine, job: Job) -> None:
    """Work on a job until its person does not want it any more."""
    while not engine.stopping.is_set():
        if await storage.records.jobs.renew(job.id, job.attempt) == "cancel":
            await storage.records.jobs.finish(job.id, job.attempt, State.CANCELLED)
            await storage.events.publish(Event(job.id, job.attempt, "cancelled"))
            return
        await asyncio.sleep(0.5)


async def _all_answered(storage: Storage, engine: Engine, platform: str, people: Sequence[Person]) -> None:
    """Until every drawing is answered."""
    async with asyncio.timeout(PATIENCE):
        while (
            len(engine.seen) < sum(one.pictures for one in people)
            or await storage.records.jobs.active(engine.held)
            or await storage.records.jobs.undelivered(platform)
        ):
            await asyncio.sleep(0.2)


async def on_telegram(people: int, chance: float, seed: int = 0) -> Seen:
    """Everybody in their private chat. Updates come doubled and out of order, too."""
    server, pick = Server(), Random(seed)
    # The simulator counts like the bot, but what arrives late from one second counts for the next.
    server.rates = Rates(overall=60)
    phones = [server.person(f"Person {number}") for number in range(people)]
    crowd = _crowd([(one.id, one.user["first_name"], f"telegram:{one.id}") for one in phones], seed)
    pairs = list(zip(crowd, phones, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        async with _at_work(Path(folder), "telegram", crowd) as (storage, engine), served(server) as address:

            async def over() -> None:
                async with asyncio.timeout(PATIENCE):
                    while True:
                        notes, given = (
                            await storage.records.notes.find(INBOX),
                            sum(one.asked + one.pressed for one in crowd),
                        )
                        if len(notes) == given and not any(note.body for note in notes):
                            break
                        await asyncio.sleep(0.2)
                await _all_answered(storage, engine, "telegram", crowd)
                for one in crowd:
                    _look_at_telegram(server, one)

            environment = {"AVATAR_TELEGRAM_TOKEN": telegram_server.TOKEN, "AVATAR_TELEGRAM_API_URL": address}
            async with _bot("telegram", {"AVATAR_HOME": folder, **environment}):
                server.weather = Weather(chance, Random(seed))
                for place in range(len(pairs) - 1):
                    if pick.random() < chance:
                        pairs[place], pairs[place + 1] = pairs[place + 1], pairs[place]
                started = time.monotonic()
                for one, phone in pairs:
                    await phone.say(one.line, times=1 + (pick.random() < chance))
                    one.asked += 1
                await over()
                seconds = time.monotonic() - started
                server.weather = Weather()
                for one, phone in pairs:
                    if not one.content and one.told(_UNSURE):
                        await phone.say(one.line)
                        one.asked += 1
                    await _fetch_unseen(server, one, phone)
                await over()
                await asyncio.sleep(1)
    for one in crowd:
        _look_at_telegram(server, one)
        signs = [at for at, chat in server.actions if chat == one.account]
        signs += [at for (chat, _), at in server.times.items() if chat == one.account]
        if signs:
            told = [(at, silence) for at, chat, silence in server.silences if chat in (0, one.account)]
            one.silenced = sum(silence for at, silence in told if at < min(signs))
            one.acknowledged = min(signs) - started - one.silenced
    return Seen(crowd, seconds, server.faults)


async def _fetch_unseen(server: Server, one: Person, phone: Phone) -> None:
    """Press [Show the pictures] under an answer whose pictures have not come, since their line broke."""
    for body in server.of_bot(one.account):
        if one.drawn < one.pictures and SHOW in labels(body):
            await phone.press(body, SHOW)
            one.pressed += 1
            async with asyncio.timeout(PATIENCE):
                while one.drawn < one.pictures:
                    await asyncio.sleep(0.2)
                    _look_at_telegram(server, one)


def _look_at_telegram(server: Server, one: Person) -> None:
    """Note what they have in their chat."""
    sent = server.of_bot(one.account)
    texts = [server.told[one.account, body["message_id"]] for body in sent]
    one.alone = [text for told in texts for text in dict.fromkeys(told)]
    one.drawn = len([body for body in sent if "photo" in body])
    one.files = [server.files[body["document"]["file_id"]] for body in sent if "document" in body]


async def on_discord(people: int, chance: float, seed: int = 0) -> Seen:
    """Every other person in their private chat, the rest in one channel of a server, where each sees their own."""
    everybody = range(1000, 1000 + people)
    async with DiscordServer() as server:
        studio = server.add("server", *everybody)
        rooms = [f"dm/{server.dm(user)}" if user % 2 else f"server/{studio}" for user in everybody]
        crowd = _crowd([(user, f"User {user}", room) for user, room in zip(everybody, rooms, strict=True)], seed)
        with tempfile.TemporaryDirectory() as folder:
            async with _at_work(Path(folder), "discord", crowd) as (storage, engine):
                environment = {
                    "AVATAR_DISCORD_TOKEN": discord_server.TOKEN,
                    "AVATAR_DISCORD_API_URL": server.api,
                    "AVATAR_DISCORD_GATEWAY_URL": server.gateway,
                }
                async with _bot("discord", {"AVATAR_HOME": folder, **environment}):
                    await server.until(lambda: server._sockets, 60)
                    server.storm(chance, seed)
                    started = time.monotonic()
                    asked = []
                    for one in crowd:
                        channel = int(one.room.partition("/")[2])
                        asked.append(await server.slash(one.account, channel, one.command, **one.given))
                        one.asked += 1
                    await server.until(lambda: all(one.answer for one in asked), 60)
                    await _all_answered(storage, engine, "discord", crowd)
                    async with asyncio.timeout(PATIENCE):
                        while await storage.records.notes.find(OPEN):
                            await asyncio.sleep(0.2)
                    seconds = time.monotonic() - started
                    server.storm(0)
                    await _open_what_waits(server, studio, crowd)
                    await asyncio.sleep(1)
        for one, interaction in zip(crowd, asked, strict=True):
            one.acknowledged = interaction.delay if interaction.answer else None
            _look_at_discord(server, studio, one)
    return Seen(crowd, seconds, server.faults)


async def _open_what_waits(server: DiscordServer, studio: int, crowd: Sequence[Person]) -> None:
    """Press [Show me] under what waits in front of everybody."""
    for one in crowd:
        for sent in server.seen(one.account, studio):
            if "Show me" in sent.buttons and sent.mentions == [one.account]:
                await server.press(one.account, sent, "Show me")
                await server.until(lambda one=one: _look_at_discord(server, studio, one).content)  # type: ignore[misc]


def _look_at_discord(server: DiscordServer, studio: int, one: Person) -> Person:
    """Note what they have in their private chat and in the channel."""
    here: list[Sent] = [*server.seen(one.account, server.dm(one.account)), *server.seen(one.account, studio)]
    alone = [sent for sent in here if sent.only_for or sent.channel != studio]
    one.alone = [text for sent in alone for text in _texts(sent)]
    one.aloud = [text for sent in here if sent not in alone for text in _texts(sent)]
    files = [file for sent in alone for file in sent.files]
    one.drawn = len([file for file in files if file["filename"].endswith(".png")])
    one.files = [file["data"] for file in files if not file["filename"].endswith(".png")]
    return one


def _texts(sent: Sent) -> list[str]:
    """All that it ever said, without Markdown's backslashes."""
    return [text.replace("\\", "") for text in dict.fromkeys(sent.said)]
