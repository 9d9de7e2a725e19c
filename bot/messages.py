"""The bot's messages as data. Every frontend renders them in its own way."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal, Protocol

Tone = Literal["plain", "good", "warning", "trouble"]
Role = Literal["primary", "plain", "danger"]


@dataclass(frozen=True, slots=True)
class Button:
    """A button under a message. `action` goes to `Commands.press` and fits Telegram's 64 bytes."""

    label: str
    action: str
    role: Role = "plain"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The inspection's result for photo `number` (from 1)."""

    number: int
    tone: Tone
    text: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture in a message: its blob key, its alternative text, and its seed if it has one."""

    key: str
    text: str
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A file for the person who asked: `key` names its blob, or `content` is its text. `text` describes it."""

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
    """One message of the bot. `text` says everything; the other fields let a frontend show it better.

    `files` occur in private replies only. `avatar` is the id of the avatar that it is about and is erased with.
    `remark` is said under the pictures; it quotes the prompt, so it is left out wherever the prompt is.
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
    remark: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one command or button.

    `private`: only the person who asked should see it. `job_id`: the message shows this job's progress from now on.
    `spent`: remove the buttons of the message whose button was pressed. `replaces`: show the message in place of the
    one whose button was pressed.
    """

    message: Message
    private: bool = False
    job_id: str | None = None
    spent: bool = False
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a command, and from where.

    `room` is where the answer goes. `group` is the group that the room belongs to, if it has one: a Discord server
    with its channels, a Telegram group with its topics. `direct`: nobody but this person reads the room.
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
    """A photo that is being uploaded. It can be read once."""

    chunks: AsyncIterator[bytes]


class Frontend(Protocol):
    """The delivery loop's port to a chat platform."""

    @property
    def name(self) -> str:
        """The platform's name, as `Job.frontend` stores it."""

    async def post(self, room: str, message: Message, dedupe: str | None = None) -> str:
        """Post a message and return its reference. A second one with the same `dedupe` in a room is dropped."""

    async def edit(self, ref: str, message: Message) -> None:
        """Replace the content of an earlier message."""
