"""Renders a `Message` for Discord: content, buttons and files. Nobody but its recipient is mentioned."""

import asyncio
import io
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar, cast

import discord
from discord import ui
from PIL import Image

from bot.frontends.files import content as file_content
from bot.frontends.progress import with_progress_bar
from bot.language import say
from bot.messages import File, Message, Role, Shown
from bot.replies import account
from bot.replies import discord as wording
from storage.blobs import Blobs
from storage.errors import UnknownBlob

log = logging.getLogger(__name__)

CONTENT = 2000
"""Most characters of a message."""
LABEL = 80
"""Most characters of a button's label."""
BUTTONS = 25
"""Most buttons of a message, in five rows."""
ALT_TEXT = 1024
"""Most characters of a file's description."""
FILE = 10 * 1024 * 1024
"""Most bytes of a file where no interaction allows more."""
FILES = 24 * 1024 * 1024
"""Most bytes of all files of a message; the rest of Discord's 25 MiB is left for the rest of the request."""
_LIGHTER = 8
"""Divisor of the file limit after Discord has refused files within it."""
_TOO_LARGE = 413
_PROMPT = 700

T = TypeVar("T")

_STYLES: Mapping[Role, discord.ButtonStyle] = {
    "primary": discord.ButtonStyle.primary,
    "plain": discord.ButtonStyle.secondary,
    "danger": discord.ButtonStyle.danger,
}


class Presses(Protocol):
    """The client's handler of presses."""

    async def pressed(self, interaction: discord.Interaction[Any], verb: str, subject: str) -> None:
        """`verb` "do": run the action `subject`; "show", "post", "edit": the answer of the job `subject`; "pick": one
        picture of it, from 1, as "2:job"."""


class Press(ui.DynamicItem[ui.Button[Any]], template=r"(?P<verb>do|show|post|edit|pick):(?P<subject>.{1,90})"):
    """A button whose id holds its action, so that it works after a restart too."""

    def __init__(self, button: ui.Button[Any], verb: str, subject: str) -> None:
        super().__init__(button)
        self._verb = verb
        self._subject = subject

    @classmethod
    def of(cls, verb: str, subject: str, label: str, role: Role) -> Self:
        """A button to send."""
        button: ui.Button[Any] = ui.Button(label=cut(label, LABEL), style=_STYLES[role], custom_id=f"{verb}:{subject}")
        return cls(button, verb, subject)

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str], /
    ) -> Self:
        return cls(cast("ui.Button[Any]", item), match["verb"], match["subject"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        await cast(Presses, interaction.client).pressed(interaction, self._verb, self._subject)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The content of a Discord message. `files`: None keeps the files of an edited message."""

    content: str
    view: ui.View | None
    files: list[discord.File] | None
    mentions: discord.AllowedMentions

    def to_send(self) -> dict[str, Any]:
        """The arguments of the library's `send`, which accepts no None."""
        given = {"view": self.view} if self.view else {}
        return {"content": self.content, "files": self.files or [], "allowed_mentions": self.mentions, **given}

    def to_edit(self) -> dict[str, Any]:
        """The arguments of the library's `edit`, where a view of None removes the buttons."""
        given = {} if self.files is None else {"attachments": self.files}
        return {"content": self.content, "view": self.view, "allowed_mentions": self.mentions, **given}


def render(
    message: Message,
    *,
    files: list[discord.File] | None = None,
    mention: str | None = None,
    public: bool = False,
    postable: bool = False,
    showing: bool = False,
) -> Rendered:
    """Render a message.

    `mention`: the id of the person to notify. `public`: leave out the prompt, since others read it.
    `postable`: add [Post here] if there are pictures. `showing`: add [Show me].
    """
    buttons = [Press.of("do", button.action, button.label, button.role) for button in message.buttons]
    if postable and message.job and message.pictures and message.progress is None:
        buttons = [*buttons[: BUTTONS - 1], Press.of("post", message.job, say(wording.POST_HERE), "plain")]
    if (
        message.job
        and not public
        and message.progress is None
        and any(one.seed is not None for one in message.pictures)
    ):
        drawn = [Press.of("edit", message.job, say(wording.EDIT), "plain")]
        if len(message.pictures) > 1:
            numbers = range(1, len(message.pictures) + 1)
            drawn += [Press.of("pick", f"{number}:{message.job}", f"U{number}", "plain") for number in numbers]
        buttons = [*buttons, *drawn][:BUTTONS]
    if message.job and showing:
        buttons = [*buttons[: BUTTONS - 1], Press.of("show", message.job, say(wording.SHOW), "primary")]
    users = [discord.Object(int(mention))] if mention else []
    return Rendered(
        content(message, mention=mention, public=public),
        _view(buttons),
        files,
        discord.AllowedMentions(everyone=False, roles=False, users=users, replied_user=False),
    )


def notice(job_id: str, mention: str | None) -> Rendered:
    """The public notice for an answer that only its person may open."""
    rendered = render(wording.waiting_for_you(job_id), mention=mention)
    show = _view([Press.of("show", job_id, say(wording.SHOW), "primary")])
    return Rendered(rendered.content, show, None, rendered.mentions)


def private(message: Message) -> bool:
    """Whether only the person may see the answer: pictures, a prompt, verdicts on photos, or an error."""
    return bool(message.pictures or message.verdicts or message.prompt or message.tone == "trouble")


def content(message: Message, *, mention: str | None = None, public: bool = False) -> str:
    """The message in Discord's Markdown, at most 2,000 characters. Text of people is escaped."""
    # The text may contain names and prompts, which must not become links or headings.
    text = discord.utils.escape_markdown(message.text)
    head = with_progress_bar(f"<@{mention}> {text}" if mention else text, message.progress)
    tail = []
    if message.remark and not public:
        tail.append(_prose(message.remark))
    if message.job and message.prompt and not public:
        tail.append(f"> {_prose(cut(message.prompt, _PROMPT))}")
    if message.job:
        tail.append(f"-# {wording.job(message.job)}")
    below = "\n".join(tail)
    return cut(head, CONTENT - len(below) - 1) + (f"\n{below}" if below else "")


def _prose(text: str) -> str:
    """The text on one line, without markup and mentions."""
    return discord.utils.escape_mentions(discord.utils.escape_markdown(" ".join(text.split())))


def cut(text: str, most: int) -> str:
    """The text, shortened to `most` characters if it is longer."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _view(buttons: Sequence[Press]) -> ui.View | None:
    if not buttons:
        return None
    view = ui.View(timeout=None)
    for button in {button.custom_id: button for button in buttons[:BUTTONS]}.values():
        view.add_item(button)
    return view


async def pictures(blobs: Blobs, shown: Sequence[Shown], limit: int = FILE) -> list[discord.File]:
    """The pictures as files of at most `limit` bytes each. Erased ones are left out."""
    files = []
    most = min(limit, FILES // max(1, len(shown)))
    for number, picture in enumerate(shown[:10], start=1):
        try:
            data = await blobs.get(picture.key)
        except UnknownBlob:
            continue
        ending = "png"
        if len(data) > most:
            data, ending = await asyncio.to_thread(_smaller, data, most), "jpg"
        name = f"{number}-{picture.seed}.{ending}" if picture.seed is not None else f"{number}.{ending}"
        files.append(discord.File(io.BytesIO(data), name, description=cut(picture.text, ALT_TEXT) or None))
    return files


async def files_of(blobs: Blobs, files: Sequence[File], limit: int = FILE) -> tuple[list[discord.File], list[str]]:
    """The message's files, and a line for each that was erased or has more than `limit` bytes."""
    fit, missing = [], []
    most = min(limit, FILES)
    for file in files:
        try:
            data = await file_content(blobs, file, most)
        except UnknownBlob:
            missing.append(account.file_gone(file))
            continue
        if data is None:
            missing.append(account.file_large(file, most))
        else:
            fit.append(discord.File(io.BytesIO(data), file.name, description=cut(file.text, ALT_TEXT)))
    return fit, missing


async def complete(blobs: Blobs, message: Message, limit: int, **how: Any) -> Rendered:
    """The message with its pictures and files, each of at most `limit` bytes; 0 sends none. A line names each file that
    is missing. `how`: the options of `render`."""
    if not limit:
        missing = [wording.files_kept(bool(message.job))] if message.pictures or message.files else []
        handed = shown = list[discord.File]()
    else:
        handed, missing = await files_of(blobs, message.files, limit)
        shown = await pictures(blobs, message.pictures, limit)
    complete_text = replace(message, text="\n".join([message.text, *missing]))
    return render(complete_text, files=[*shown, *handed], showing=not limit, **how)


async def fitted(
    compose: Callable[[int], Awaitable[Rendered]], send: Callable[[Rendered], Awaitable[T]], limit: int = FILE
) -> T:
    """Send a message composed with files of at most `limit` bytes. If Discord still finds them too large, send it with
    smaller ones, and at last without files. Raises what `send` raises."""
    for most in (limit, limit // _LIGHTER):
        rendered = await compose(most)
        try:
            return await send(rendered)
        except discord.HTTPException as error:
            if error.status != _TOO_LARGE or not rendered.files:
                raise
            log.warning("files of up to %d bytes were too large here", most)
    return await send(await compose(0))


def _smaller(data: bytes, most: int) -> bytes:
    """The picture as JPEG, halved until it fits."""
    with Image.open(io.BytesIO(data)) as opened:
        picture = opened.convert("RGB")
    while True:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=92)
        if file.tell() <= most or min(picture.size) < 16:
            return file.getvalue()
        picture = picture.reduce(2)
