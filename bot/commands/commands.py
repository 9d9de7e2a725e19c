"""What the bot can do, the same on every platform: typed commands in, a typed `Reply` out.

A frontend parses what its platform delivers, calls `run`, `line` or `press`, and renders the reply. When a job is
over, the delivery loop calls `answer` for the message that ends it. The handlers are in the modules beside this one.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

from bot import limits
from bot.commands.account import Account
from bot.commands.avatars import Avatars
from bot.commands.desk import Desk, JobQueue, Visit
from bot.commands.imagining import Imagining
from bot.commands.operators import Operators
from bot.commands.training import Training
from bot.commands.under_way import UnderWay
from bot.lines import Value, parse
from bot.messages import Caller, Message, Reply, Upload
from bot.programs import PROGRAMS
from bot.replies import jobs, overview, refusals
from bot.table import COMMANDS, OptionKind, Source
from storage.blobs import Blobs
from storage.errors import UserError
from storage.events import Events
from storage.jobs import Imagine, Inspect, Train
from storage.records import Job, Picture, Records

__all__ = ["COMMANDS", "Commands", "Completion", "JobQueue"]

log = logging.getLogger(__name__)


class Access(Enum):
    """Who may use a command or button."""

    ANYBODY = "anybody"
    """Everybody, and no user is created for it: the handler gets only the `Caller`."""
    BANNED_TOO = "banned too"
    """Everybody, banned people too: for a person's own data."""
    NOT_BANNED = "not banned"
    """Everybody who is not banned."""


@dataclass(frozen=True, slots=True)
class Handler:
    """What runs a command or button.

    A command's `run` takes the visit and, as keyword arguments, the options of `bot.table.COMMANDS` by their names. A
    button's takes the visit and what follows the colon in the button's action. With ANYBODY both take the `Caller`
    instead of the visit.
    """

    run: Callable[..., Awaitable[Reply]]
    access: Access = Access.NOT_BANNED


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion of the typed word, and a hint what it means."""

    value: str
    hint: str = ""


class Commands:
    """The commands over one storage. What a caller may do is decided here.

    `operators` are the accounts, as platform:id, that may use /operator.
    """

    def __init__(
        self, records: Records, blobs: Blobs, queue: JobQueue, events: Events, operators: Collection[str] = ()
    ) -> None:
        self._desk = Desk(records, blobs, queue, events, operators)
        self._training = training = Training(self._desk)
        self._imagining = imagining = Imagining(self._desk)
        avatars, account, under_way = Avatars(self._desk), Account(self._desk), UnderWay(self._desk)
        self._commands: Mapping[str, Handler] = {
            "train": Handler(training.train),
            "imagine": Handler(imagining.imagine),
            "avatars": Handler(avatars.avatars),
            "status": Handler(under_way.status),
            "cancel": Handler(under_way.cancel, Access.BANNED_TOO),
            "share": Handler(avatars.share),
            "unshare": Handler(avatars.unshare, Access.BANNED_TOO),
            "link": Handler(account.link),
            "export": Handler(avatars.export, Access.BANNED_TOO),
            "delete": Handler(avatars.delete, Access.BANNED_TOO),
            "mydata": Handler(account.mydata, Access.BANNED_TOO),
            "privacy": Handler(account.privacy, Access.ANYBODY),
            "forget": Handler(account.forget, Access.BANNED_TOO),
            "help": Handler(self._help, Access.ANYBODY),
            "operator": Handler(Operators(self._desk).operator),
        }
        self._buttons: Mapping[str, Handler] = {
            "train": Handler(training.start_training),
            "look": Handler(training.look),
            "discard": Handler(training.discard, Access.BANNED_TOO),
            "imagine": Handler(imagining.how),
            "again": Handler(imagining.again),
            "seed": Handler(imagining.seed),
            "remove": Handler(imagining.remove, Access.BANNED_TOO),
            "vary": Handler(imagining.vary),
            "cancel": Handler(under_way.cancel, Access.BANNED_TOO),
            "avatar": Handler(avatars.card),
            "rename": Handler(avatars.how_to_rename),
            "default": Handler(avatars.prefer),
            "share": Handler(avatars.share_here),
            "revoke": Handler(avatars.revoke, Access.BANNED_TOO),
            "export": Handler(avatars.export_of, Access.BANNED_TOO),
            **{
                f"export-{program}": Handler(partial(avatars.export_for, program), Access.BANNED_TOO)
                for program in PROGRAMS
            },
            "delete": Handler(avatars.delete_of, Access.BANNED_TOO),
            "erase": Handler(avatars.erase, Access.BANNED_TOO),
            "keep": Handler(avatars.keep, Access.BANNED_TOO),
            "mydata": Handler(lambda visit, _: account.mydata(visit), Access.BANNED_TOO),
            "forget": Handler(lambda visit, _: account.forget(visit), Access.BANNED_TOO),
            # The first press erased the person; a second press must not create them again.
            "forget-all": Handler(partial(account.forgotten, lines=False), Access.ANYBODY),
            "forget-lines": Handler(partial(account.forgotten, lines=True), Access.ANYBODY),
            "forget-not": Handler(account.not_forgotten, Access.ANYBODY),
        }
        self._requests: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    # How frontends call

    async def run(
        self, caller: Caller, command: str, values: Mapping[str, Value], photos: AsyncIterator[Upload] | None = None
    ) -> Reply:
        """Run a command of the table with the values of its options. Never raises on wrong input."""
        return await self._answered(caller, lambda: self._run(caller, command, values, photos or _no_photos()))

    async def line(
        self, caller: Caller, text: str, photos: AsyncIterator[Upload] | None = None, *, consent: bool = False
    ) -> Reply:
        """Run a typed command. `consent`: the consent box was ticked. Never raises on wrong input."""
        return await self._answered(caller, lambda: self._line(caller, text, photos or _no_photos(), consent))

    async def press(self, caller: Caller, action: str) -> Reply:
        """Run a button's action. Never raises on wrong input."""
        return await self._answered(caller, lambda: self._press(caller, action))

    async def vary(self, caller: Caller, picture: str, prompt: str) -> Reply:
        """Vary a picture, "2:job" counted from 1, under another prompt. Never raises on wrong input."""

        async def vary() -> Reply:
            return await self._imagining.vary(await self._admitted(caller), picture, prompt)

        return await self._answered(caller, vary)

    async def edit(self, caller: Caller, job_id: str, shown: Collection[str], values: Mapping[str, Value]) -> Reply:
        """Draw what the person asked for before, with the `values` of the options that they were `shown`. Never raises
        on wrong input."""

        async def edit() -> Reply:
            return await self._imagining.edit(await self._admitted(caller), job_id, shown, values)

        return await self._answered(caller, edit)

    async def options(self, job: Job) -> dict[str, Value]:
        """The values of /imagine's options with which a drawing was asked for, or that say how it came out."""
        return await self._imagining.options(job)

    async def named(self, picture: str, text: str) -> bool:
        """Whether the text names an avatar that a picture, "2:job" counted from 1, shows."""
        return await self._imagining.named(picture, text)

    async def complete(self, caller: Caller, source: Source) -> list[Completion]:
        """The completions from this source, for this person in this room."""
        visit = await self._visit(caller)
        if visit.user.banned:
            return []
        records = self._desk.records
        match source:
            case Source.AVATARS:
                usable = await self._desk.usable(visit)
                return [Completion(avatar.token, avatar.noun) for avatar in usable if avatar.state == "ready"]
            case Source.OWN_AVATARS:
                return [
                    Completion(avatar.token, avatar.noun) for avatar in await records.avatars.owned_by(visit.user.id)
                ]
            case Source.JOBS:
                active = await records.jobs.for_user(visit.user.id, active_only=True)
                return [Completion(job.id, job.kind) for job in active]
            case Source.STYLES:
                styles = await self._desk.queue.styles()
                weaker = [Completion(limits.style_word(style, 0.6), jobs.weaker()) for style in styles]
                return [*map(Completion, styles), *weaker]
            case Source.SIZES:
                return [Completion(size) for size in await self._desk.sizes()]
            case Source.CHOICES:
                return []

    async def answer(self, job: Job) -> Message:
        """The one message that ends a job. Called again after a crash, it gives the same message."""
        match job.payload:
            case Inspect(avatar_id=avatar_id):
                return await self._training.answer_inspect(job, avatar_id)
            case Train(avatar_id=avatar_id):
                return await self._training.answer_train(job, avatar_id)
            case Imagine():
                return await self._imagining.answer_imagine(job)

    # What frontends may show

    async def drawings(self, caller: Caller, skip: int, limit: int) -> list[tuple[Job, list[Picture]]]:
        """The person's drawings with their pictures, from every room, newest first: `limit` after the first `skip`."""
        user = (await self._visit(caller)).user
        return await self._desk.records.jobs.drawings(user.id, skip=skip, limit=limit)

    async def visible_job(self, caller: Caller, job_id: str) -> Job | None:
        """The job, if its answer may be shown to this person here.

        It was asked for in this room, where everybody sees it; or this person asked for it and nobody else reads here.
        """
        job = await self._desk.records.jobs.get(job_id)
        if job is None or (job.frontend, job.room) == (caller.platform, caller.room):
            return job
        if not caller.direct or not await self._desk.records.users.exists(caller.platform, caller.platform_id):
            return None
        return job if job.user_id == (await self._visit(caller)).user.id else None

    async def may_draw(self, caller: Caller, avatar_id: str) -> bool:
        """Whether this person may draw the avatar in this room."""
        usable = await self._desk.usable(await self._visit(caller))
        return avatar_id in {avatar.id for avatar in usable}

    async def may_save(self, caller: Caller, key: str) -> bool:
        """Whether this person may have the blob of a message's file: the adapter of an avatar of their own."""
        user = (await self._visit(caller)).user
        return any(
            key in (avatar.adapter_key, *(avatar.details.get("exports") or {}).values())
            for avatar in await self._desk.records.avatars.owned_by(user.id)
        )

    # Admission: repeated requests, banned people, errors

    async def _answered(self, caller: Caller, run: Callable[[], Awaitable[Reply]]) -> Reply:
        """The reply of `run`, or of the job that an earlier delivery of the same request made."""
        try:
            if not caller.request:
                return await run()
            # Simultaneous deliveries run one at a time, so that the second finds the job of the first.
            lock = self._requests.setdefault((caller.account, caller.request), asyncio.Lock())
            async with lock:
                return await self._made_before(caller) or await run()
        except UserError as error:
            if error.code == "disk_full":
                log.error("the disk is full: %s cannot be written", error.facts["folder"])
            return Reply(refusals.refusal(error), private=True)
        except Exception:
            error_id = uuid4().hex[:8]
            log.exception("error %s while answering a command", error_id)
            return Reply(refusals.apology(error_id), private=True)

    async def _made_before(self, caller: Caller) -> Reply | None:
        job = await self._desk.records.jobs.by_request(caller.platform, caller.platform_id, caller.request)
        if job is None:
            return None
        token = await self._desk.token(job)
        # As in the first reply: [Train] can be pressed once, [Again] and the others as often as wanted.
        spent = isinstance(job.payload, Train)
        if job.over:
            return Reply(jobs.ended(job, token), job_id=job.id, spent=spent)
        waiting = await self._desk.waiting(job)
        code = "queued" if waiting["position"] else "started"
        return Reply(jobs.under_way(job, token, code, waiting), job_id=job.id, spent=spent)

    async def _visit(self, caller: Caller) -> Visit:
        # A request that is delivered again after its person was erased must not create them again.
        user = await self._desk.records.users.get_or_create(
            caller.platform, caller.platform_id, caller.name, request=caller.request or None
        )
        return Visit(caller, user, self._desk.is_operator(caller))

    async def _admitted(self, caller: Caller, banned_too: bool = False) -> Visit:
        visit = await self._visit(caller)
        if visit.user.banned and not banned_too:
            raise UserError("banned")
        return visit

    async def _handle(self, handler: Handler, caller: Caller, *values: str, **options: Any) -> Reply:
        if handler.access is Access.ANYBODY:
            return await handler.run(caller, *values, **options)
        return await handler.run(await self._admitted(caller, handler.access is Access.BANNED_TOO), *values, **options)

    async def _line(self, caller: Caller, text: str, photos: AsyncIterator[Upload], consent: bool) -> Reply:
        line = parse(text)
        values = dict(line.values)
        if consent and any(option.name == "consent" for option in COMMANDS[line.command].options):
            values["consent"] = True
        return await self._run(caller, line.command, values, photos)

    async def _run(
        self, caller: Caller, command: str, values: Mapping[str, Value], photos: AsyncIterator[Upload]
    ) -> Reply:
        if command not in COMMANDS:
            raise UserError("unknown_command", name=command[:32])
        given: dict[str, Any] = dict(values)
        for option in COMMANDS[command].options:
            if option.required and option.kind in (OptionKind.WORD, OptionKind.TEXT) and not values.get(option.name):
                raise UserError("missing_option", command=command, option=option.name)
            if option.kind is OptionKind.PHOTOS:
                given[option.name] = photos
        return await self._handle(self._commands[command], caller, **given)

    async def _press(self, caller: Caller, action: str) -> Reply:
        verb, _, subject = action.partition(":")
        if verb not in self._buttons:
            raise UserError("unknown_action")
        return await self._handle(self._buttons[verb], caller, subject)

    async def _help(self, caller: Caller) -> Reply:
        return Reply(overview.help_text(self._desk.is_operator(caller)), private=True)


async def _no_photos() -> AsyncIterator[Upload]:
    nothing: tuple[Upload, ...] = ()
    for upload in nothing:
        yield upload
