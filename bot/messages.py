"""What the bot says, as data: every frontend renders these in its own way."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol

Tone = Literal["plain", "good", "warning", "trouble"]
Role = Literal["primary", "plain", "danger"]


@dataclass(frozen=True, slots=True)
class Button:
    """Something to press. `action` goes to `Commands.press` and fits Telegram's 64 bytes."""

    label: str
    action: str
    role: Role = "plain"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the inspection says about photo `number` (from 1)."""

    number: int
    tone: Tone
    text: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture that is shown: its blob key, what a screen reader says, and its seed if it has one."""

    key: str
    text: str
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A file to save, for nobody but the person who asked: either a blob's key, or its whole content as text."""

    name: str
    text: str
    key: str | None = None
    content: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. `fraction` is 0 to 1, or None before the first step. `position` in the queue: 1 is next."""

    label: str
    fraction: float | None = None
    step: int | None = None
    steps: int | None = None
    seconds_left: float | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the bot. `text` alone says all; the other parts let a frontend show it better.

    `files` come in private replies only. `avatar` is the id of the one it is about, so that it can be erased with it.
    """

    text: str
    tone: Tone = "plain"
    job: str | None = None
    prompt: str | None = None
    verdicts: tuple[Verdict, ...] = ()
    pictures: tuple[Shown, ...] = ()
    progress: Progress | None = None
    buttons: tuple[Button, ...] = ()
    files: tuple[File, ...] = ()
    avatar: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one command or button.

    `private`: only the person who asked should see it. `job_id`: the message follows this job from now on.
    `spent`: the buttons of the message that was pressed have done their work.
    """

    message: Message
    private: bool = False
    job_id: str | None = None
    spent: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """Who gives a command, and where.

    `room` is where the answer goes. `group` is what it belongs to, if people think of that as the group: a Discord
    server with its channels, a Telegram group with its topics. `direct`: nobody but this person reads there.
    `request` identifies what the person sent: one message or one press of a button. A platform that delivers it again
    (a repeated update, a proxy that retries, a browser that reconnects) gives the same value; a second message with the
    same text, or a second press of the same button, gets another. A request makes at most one job. The frontend forms
    it from the platform's own id, such as "telegram:<update id>"; it need only be unique for one account. Empty:
    the platform never delivers twice, and nothing is compared.
    """

    platform: str
    platform_id: str
    name: str
    room: str
    group: str = ""
    direct: bool = False
    request: str = ""

    @property
    def account(self) -> str:
        """The account as "platform:id"."""
        return f"{self.platform}:{self.platform_id}"

    @property
    def grant_scope(self) -> str:
        """What a grant to everybody here names: "platform:group", since two platforms may use the same id."""
        return f"{self.platform}:{self.group or self.room}"


@dataclass(frozen=True, slots=True)
class Upload:
    """A photo on its way in, read once."""

    chunks: AsyncIterator[bytes]


class Frontend(Protocol):
    """A place where people chat, as the delivery loop sees it."""

    @property
    def name(self) -> str:
        """The platform's name, as `Job.frontend` stores it."""

    async def post(self, room: str, message: Message, dedupe: str | None = None) -> str:
        """Show a message and return its reference. A message of the same `dedupe` in this room is not posted twice."""

    async def edit(self, ref: str, message: Message) -> None:
        """Replace what an earlier message says."""
