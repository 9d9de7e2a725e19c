"""The demo: a scripted chat in the terminal, from photos to pictures, with the same commands as on every platform.

`demo` plays one person who trains an avatar and draws it. It starts an engine as a separate process.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.align import Align
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn

from bot.commands.commands import Commands
from bot.delivery import Delivery
from bot.frontends.contact_sheet import SheetRow, contact_sheet
from bot.limits import PHOTOS_FEWEST, PHOTOS_MOST
from bot.messages import Caller, Message, Reply, Upload
from bot.replies import jobs, phrases, refusals
from bot.settings import BotSettings
from bot.table import Source
from storage.atomic import write_bytes
from storage.blobs import Blobs
from storage.open import open_storage

NAME = "terminal"
PATIENCE = 1200.0
"""Longest wait for one answer, in seconds."""
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".heic"}
_STYLES = {"good": "green", "warning": "yellow", "trouble": "red", "plain": "blue"}


@dataclass(frozen=True, slots=True)
class Script:
    """What the demo's person types. An album may have its own script in `script.json`."""

    token: str = "mia7"
    noun: str = "woman"
    prompts: Sequence[str] = (
        "mia7 woman in a black suit, blue background",
        "mia7 woman in a red hoodie, smiling",
        "mia7 woman wearing round glasses and a green sweater",
        "close-up of mia7 woman in a yellow t-shirt, surprised, pink background",
    )

    @classmethod
    def beside(cls, album: Path) -> "Script":
        """The album's own script, or the default one."""
        path = album / "script.json"
        return cls(**json.loads(path.read_text("utf-8"))) if path.exists() else cls()


class DemoFailed(Exception):
    """The demo cannot continue; the message says why in one line."""

    def __init__(self, why: str, status: int = 1) -> None:
        super().__init__(why)
        self.status = status


class Terminal:
    """The frontend port for a terminal: messages as bubbles, progress as one live bar."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress: Progress | None = None
        self._shown = -1
        self._posted = 0
        self._answers: dict[str, asyncio.Future[Message]] = {}

    @property
    def name(self) -> str:
        return NAME

    def answer(self, job_id: str) -> asyncio.Future[Message]:
        """A future of the message that ends a job."""
        return self._answers.setdefault(job_id, asyncio.get_running_loop().create_future())

    def say(self, text: str, note: str = "") -> None:
        """Print what the person types."""
        body = escape(text) + (f"\n[dim]{escape(note)}[/]" if note else "")
        panel = Panel(body, title="you", title_align="right", border_style="magenta", expand=False, padding=(0, 1))
        self._console.print(Align.right(Padding(panel, (1, 0, 0, 8))))

    def note(self, text: str) -> None:
        """Print a remark that is no chat message, such as the path of a file."""
        self._console.print(f"[dim]{escape(text)}[/]")

    async def post(self, room: str, message: Message, dedupe: str | None = None) -> str:
        self._posted += 1
        if dedupe is not None:
            # Skip the answers that an interrupted earlier demo left.
            if dedupe not in self._answers:
                return str(self._posted)
            self._bubble(message)
            if not self._answers[dedupe].done():
                self._answers[dedupe].set_result(message)
        elif message.progress is not None:
            self._start(message)
        else:
            self._bubble(message)
        return str(self._posted)

    async def edit(self, ref: str, message: Message) -> None:
        # Jobs run one at a time, so any other reference comes from an earlier demo.
        if ref != str(self._posted):
            return
        if message.progress is None:
            self.stop()
            self.note(f"  {message.text}")
        elif self._progress is not None:
            self._show(message)

    def stop(self) -> None:
        """Remove the progress bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _bubble(self, message: Message) -> None:
        lines = [escape(message.text)]
        for verdict in message.verdicts:
            sign = {"good": "[green]✓[/]", "warning": "[yellow]![/]"}.get(verdict.tone, "[red]✗[/]")
            lines.append(f"{sign} #{verdict.number} {escape(verdict.text)}")
        if message.remark:
            lines.append(escape(message.remark))
        if message.buttons:
            lines.append("\n" + "  ".join(f"[reverse] {escape(button.label)} [/]" for button in message.buttons))
        style = _STYLES[message.tone]
        panel = Panel("\n".join(lines), title="avatars", title_align="left", border_style=style, expand=False)
        self._console.print(Padding(panel, (1, 8, 0, 0)))

    def _start(self, message: Message) -> None:
        self.stop()
        self._shown = -1
        self._progress = Progress(
            TextColumn("  [bold]{task.description}"),
            BarColumn(36),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("[dim]{task.fields[below]}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._progress.add_task("", total=None, below="")
        self._progress.start()
        self._show(message)

    def _show(self, message: Message) -> None:
        progress = message.progress
        if progress is None or self._progress is None:
            return
        parts = []
        if progress.position is not None:
            parts.append(phrases.queue_position(progress.position))
        if progress.step is not None:
            parts.append(f"step {progress.step} of {progress.steps}")
        if progress.seconds_left is not None:
            parts.append(f"about {phrases.duration(progress.seconds_left)} left")
        total = None if progress.fraction is None else 1.0
        task = self._progress.task_ids[0]
        self._progress.update(
            task, description=progress.label, total=total, completed=progress.fraction or 0.0, below=" · ".join(parts)
        )
        # Without a terminal (output to a file, say) no bar can move: print a line for each tenth instead.
        tenth = int((progress.fraction or 0.0) * 10)
        if not self._console.is_terminal and tenth > self._shown:
            self._shown = tenth
            bar = ("#" * tenth).ljust(10, ".")
            self._console.print(f"  {escape(progress.label)} \\[{bar}] {escape(' · '.join(parts))}")


class _Person:
    """The person who chats in the demo."""

    def __init__(
        self, commands: Commands, delivery: Delivery, terminal: Terminal, engine: "asyncio.Task[None]"
    ) -> None:
        self._commands = commands
        self._delivery = delivery
        self._terminal = terminal
        self._engine = engine
        self.caller = Caller(NAME, "demo", "Demo", "demo")

    async def ask(self, text: str, photos: Sequence[Path] = ()) -> Message:
        """Send a line and wait for the answer of its job."""
        note = f"{len(photos)} photos · consent ticked: {refusals.CONSENT}" if photos else ""
        self._terminal.say(text, note)
        return await self._followed(
            await self._commands.line(self.caller, text, _uploads(photos), consent=bool(photos))
        )

    async def press(self, message: Message) -> Message:
        """Press the first button of a message and wait for the answer of its job."""
        button = message.buttons[0]
        self._terminal.say(f"[{button.label}]")
        return await self._followed(await self._commands.press(self.caller, button.action))

    async def _followed(self, reply: Reply) -> Message:
        if reply.job_id is None:
            raise DemoFailed(reply.message.text)
        answer = self._terminal.answer(reply.job_id)
        ref = await self._terminal.post(self.caller.room, reply.message)
        await self._delivery.follow(reply.job_id, ref, reply.message)
        ends: set[asyncio.Future[Any]] = {answer, self._engine}
        done, _ = await asyncio.wait(ends, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if self._engine in done:
            self._engine.result()
        if not answer.done():
            raise DemoFailed(f"no answer within {phrases.duration(PATIENCE)}")
        message = answer.result()
        if message.tone != "good":
            raise DemoFailed(message.text)
        return message

    async def clean_up(self, token: str) -> None:
        """Cancel the jobs and erase the avatar that an earlier demo left."""
        for job in await self._commands.complete(self.caller, Source.JOBS):
            await self._commands.line(self.caller, f"/cancel {job.value}")
        for avatar in await self._commands.complete(self.caller, Source.OWN_AVATARS):
            if avatar.value == token:
                asked = await self._commands.line(self.caller, f"/delete {token}")
                await self._commands.press(self.caller, asked.message.buttons[0].action)


async def demo(settings: BotSettings, album: Path, out: Path, console: Console | None = None) -> int:
    """Train an avatar from the album, draw it, write a contact sheet to `out`. Return the exit status."""
    console = console or Console(highlight=False)
    terminal = Terminal(console)
    try:
        photos, script = _read(album)
        async with open_storage(settings) as storage, _engine(settings) as engine:
            commands = Commands(storage.records, storage.blobs, storage.queue, storage.events)
            delivery = Delivery(
                storage.records, storage.events, terminal, commands.answer, edit_every=0.2, sweep_every=1.0
            )
            person = _Person(commands, delivery, terminal, engine)
            delivering = asyncio.create_task(delivery.run())
            try:
                await _play(person, terminal, storage.blobs, photos, script, out)
            finally:
                delivering.cancel()
                await asyncio.gather(delivering, return_exceptions=True)
    except DemoFailed as failure:
        terminal.stop()
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"The demo did not work out: {failure}", markup=False
        )
        return failure.status
    finally:
        terminal.stop()
    return 0


def _read(album: Path) -> tuple[list[Path], Script]:
    if not album.is_dir():
        raise DemoFailed(
            f"there is no folder {album}; --album names one with {PHOTOS_FEWEST} to {PHOTOS_MOST} photos", 2
        )
    photos = sorted(path for path in album.iterdir() if path.suffix.lower() in _SUFFIXES)[:PHOTOS_MOST]
    if len(photos) < PHOTOS_FEWEST:
        raise DemoFailed(f"{album} holds {len(photos)} photos; {PHOTOS_FEWEST} to {PHOTOS_MOST} are needed", 2)
    try:
        return photos, Script.beside(album)
    except (ValueError, TypeError) as error:
        raise DemoFailed(f"{album}/script.json is no script: {error}", 2) from None


async def _play(
    person: _Person, terminal: Terminal, blobs: Blobs, photos: list[Path], script: Script, out: Path
) -> None:
    await person.clean_up(script.token)
    checked = await person.ask(f"/train {script.token} {script.noun}", photos)
    trained = await person.press(checked)
    rows = []
    for number, prompt in enumerate(script.prompts, start=1):
        drawn = await person.ask(f"/imagine {prompt}")
        pictures = [await blobs.get(picture.key) for picture in drawn.pictures]
        rows.append(SheetRow(prompt, pictures))
        await asyncio.to_thread(_write, out, f"{number}-{_slug(prompt)}", pictures)
    sheet = out / "contact-sheet.png"
    note = f" {jobs.CARTOON}" if jobs.CARTOON in trained.text else ""
    subtitle = f"A {script.noun}, learned from {len(photos)} photos.{note}"
    await asyncio.to_thread(contact_sheet, sheet, script.token, subtitle, photos, rows)
    terminal.note(f"\nThe contact sheet and the single pictures are in {out}: open {sheet}")


def _write(out: Path, name: str, pictures: Sequence[bytes]) -> None:
    for number, picture in enumerate(pictures, start=1):
        write_bytes(out / f"{name}-{number}.png", picture)


def _slug(prompt: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", prompt.lower()))[:60]


async def _uploads(photos: Sequence[Path]) -> AsyncIterator[Upload]:
    async def chunks(path: Path) -> AsyncIterator[bytes]:
        yield await asyncio.to_thread(path.read_bytes)

    for path in photos:
        yield Upload(chunks(path))


@asynccontextmanager
async def _engine(settings: BotSettings) -> AsyncIterator["asyncio.Task[None]"]:
    """Run an engine process. The yielded task raises DemoFailed as soon as the process ends by itself."""
    log = settings.home / "demo-engine.log"
    environment = {**os.environ, "AVATAR_HOME": str(settings.home)}
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "engine", "work", stdout=file, stderr=file, env=environment
        )

    async def watch() -> None:
        status = await process.wait()
        lines = log.read_text("utf-8", "replace").strip().splitlines()
        raise DemoFailed(f"the engine ended with status {status}: {lines[-1] if lines else 'it said nothing'} ({log})")

    task = asyncio.create_task(watch())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
