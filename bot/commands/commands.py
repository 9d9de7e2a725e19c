"""What the bot can do, for every platform alike: typed commands in, a typed `Reply` out.

A frontend parses what its platform delivers, calls `run` or `press`, and renders the reply. When a job is over,
the delivery loop asks `answer` for the message that ends it. The commands themselves stand in the modules beside.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from bot import limits
from bot.commands.account import Account
from bot.commands.avatars import Avatars
from bot.commands.desk import Desk, JobQueue
from bot.commands.imagining import Imagining
from bot.commands.operators import Operators
from bot.commands.training import Training
from bot.lines import Value, parse
from bot.messages import Caller, Message, Reply, Upload
from bot.replies import jobs as replies
from bot.table import COMMANDS, OptionKind, Source
from storage.blobs import Blobs
from storage.errors import UserError
from storage.events import Events
from storage.jobs import Imagine, Inspect, Train
from storage.records import Job, Picture, Records

__all__ = ["COMMANDS", "Commands", "Completion", "JobQueue"]

log = logging.getLogger(__name__)

OPEN_TO_ALL = frozenset({"cancel", "unshare", "export", "delete", "mydata", "privacy", "forget", "help"})
"""The commands that a ban leaves: what is somebody's own stays theirs."""
_OPEN_BUTTONS = frozenset(
    {"cancel", "discard", "revoke", "export", "delete", "erase", "keep", "remove", "mydata", "privacy"}
    | {"forget", "forget-all", "forget-lines", "forget-not"}
)


@dataclass(frozen=True, slots=True)
class Completion:
    """A word that fits what somebody is typing, and what it stands for."""

    value: str
    hint: str = ""


class Commands:
    """The commands over one storage. Whoever calls is a `Caller`; what they may do is decided here.

    `operators` are the accounts, as platform:id, that may use /operator.
    """

    def __init__(
        self, records: Records, blobs: Blobs, queue: JobQueue, events: Events, operators: Collection[str] = ()
    ) -> None:
        self._queue = queue
        self._desk = Desk(records, blobs, queue, events, operators)
        self._training = Training(self._desk)
        self._imagining = Imagining(self._desk)
        self._avatars = Avatars(self._desk)
        self._account = Account(self._desk)
        self._operators = Operators(self._desk)

    # How frontends call

    async def run(
        self, caller: Caller, command: str, values: Mapping[str, Value], photos: AsyncIterator[Upload] | None = None
    ) -> Reply:
        """Run a command of the table with the values of its options. Never raises on wrong input."""
        return await self._kindly(caller, lambda: self._run(caller, command, values, photos or _no_photos()))

    async def line(
        self, caller: Caller, text: str, photos: AsyncIterator[Upload] | None = None, *, consent: bool = False
    ) -> Reply:
        """Run a command as somebody typed it; `consent` is a ticked box beside it. Never raises on wrong input."""
        return await self._kindly(caller, lambda: self._line(caller, text, photos or _no_photos(), consent))

    async def press(self, caller: Caller, action: str) -> Reply:
        """Run what a button stands for. Never raises on wrong input."""
        return await self._kindly(caller, lambda: self._press(caller, action))

    async def vary(self, caller: Caller, picture: str, prompt: str) -> Reply:
        """Vary a picture, "2:job" counted from 1, under another prompt. Never raises on wrong input."""
        return await self._kindly(caller, lambda: self._vary(caller, picture, prompt))

    async def edit(self, caller: Caller, job_id: str, shown: Collection[str], values: Mapping[str, Value]) -> Reply:
        """Draw what the person asked for before, but by the `values` of those options that they were `shown`. Never
        raises on wrong input."""
        return await self._kindly(caller, lambda: self._edit(caller, job_id, shown, values))

    async def options(self, job: Job) -> dict[str, Value]:
        """The values of /imagine's options with which a drawing was asked for, or that say how it came out."""
        return await self._imagining.options(job)

    async def named(self, picture: str, words: str) -> bool:
        """Whether the words name an avatar that a picture, "2:job" counted from 1, shows."""
        return await self._imagining.named(picture, words)

    async def complete(self, caller: Caller, source: Source) -> list[Completion]:
        """What an option of the given source can be, for this person in this room."""
        user = await self._desk.user(caller)
        if user.banned:
            return []
        match source:
            case Source.AVATARS:
                usable = await self._desk.usable(caller, user)
                return [Completion(avatar.token, avatar.noun) for avatar in usable if avatar.state == "ready"]
            case Source.OWN_AVATARS:
                return [
                    Completion(avatar.token, avatar.noun)
                    for avatar in await self._desk.records.avatars.owned_by(user.id)
                ]
            case Source.JOBS:
                return [
                    Completion(job.id, job.kind)
                    for job in await self._desk.records.jobs.for_user(user.id, active_only=True)
                ]
            case Source.STYLES:
                styles = await self._desk.queue.styles()
                weaker = [Completion(limits.style_word(style, 0.6), replies.less_of_it()) for style in styles]
                return [*map(Completion, styles), *weaker]
            case Source.CHOICES:
                return []

    async def drawings(self, caller: Caller, skip: int, most: int) -> list[tuple[Job, list[Picture]]]:
        """What the person had drawn, newest first, wherever they asked for it: `most` jobs after the first `skip`."""
        return await self._imagining.drawings(caller, skip, most)

    async def asked_for(self, caller: Caller, job_id: str) -> bool:
        """Whether this person asked for the job."""
        job = await self._desk.records.jobs.get(job_id)
        return job is not None and job.user_id == (await self._desk.user(caller)).id

    async def may_draw(self, caller: Caller, avatar_id: str) -> bool:
        """Whether this person may draw the avatar in this room."""
        usable = await self._desk.usable(caller, await self._desk.user(caller))
        return avatar_id in {avatar.id for avatar in usable}

    async def may_save(self, caller: Caller, key: str) -> bool:
        """Whether the blob of a message's file is this person's to have: their own avatar's adapter."""
        user = await self._desk.user(caller)
        return any(avatar.adapter_key == key for avatar in await self._desk.records.avatars.owned_by(user.id))

    async def _kindly(self, caller: Caller, call: Callable[[], Awaitable[Reply]]) -> Reply:
        try:
            return await self._made_before(caller) or await call()
        except UserError as error:
            return Reply(replies.refusal(error), private=True)
        except Exception:
            error_id = uuid4().hex[:8]
            log.exception("error %s while answering a command", error_id)
            return Reply(replies.apology(error_id), private=True)

    async def _made_before(self, caller: Caller) -> Reply | None:
        """The reply for the job that an earlier delivery of this request made."""
        records = self._desk.records
        job = (
            await records.jobs.by_request(caller.platform, caller.platform_id, caller.request)
            if caller.request
            else None
        )
        if job is None:
            return None
        return Reply(replies.under_way(job, None, "started", {}), job_id=job.id, spent=True)

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
        for option in COMMANDS[command].options:
            if option.required and option.kind in (OptionKind.WORD, OptionKind.TEXT) and not values.get(option.name):
                raise UserError("missing_option", command=command, option=option.name)
        await self._check_ban(caller, command in OPEN_TO_ALL)
        given: dict[str, Any] = dict(values)
        match command:
            case "train":
                return await self._training.train(caller, photos=photos, **given)
            case "imagine":
                return await self._imagining.imagine(caller, **given)
            case "avatars":
                return await self._avatars.avatars(caller, **given)
            case "status":
                return await self.status(caller)
            case "cancel":
                return await self.cancel(caller, **given)
            case "share":
                return await self._avatars.share(caller, **given)
            case "unshare":
                return await self._avatars.unshare(caller, **given)
            case "link":
                return await self._account.link(caller, **given)
            case "export":
                return await self._avatars.export(caller, **given)
            case "delete":
                return await self._avatars.delete(caller, **given)
            case "mydata":
                return await self._account.mydata(caller)
            case "privacy":
                return await self._account.privacy()
            case "forget":
                return await self._account.forget(caller)
            case "operator":
                return await self._operators.operator(caller, **given)
            case _:
                return await self.help(caller)

    async def _vary(self, caller: Caller, picture: str, prompt: str) -> Reply:
        await self._check_ban(caller, is_open=False)
        return await self._imagining.vary(caller, picture, prompt)

    async def _edit(self, caller: Caller, job_id: str, shown: Collection[str], values: Mapping[str, Value]) -> Reply:
        await self._check_ban(caller, is_open=False)
        return await self._imagining.edit(caller, job_id, shown, values)

    async def _press(self, caller: Caller, action: str) -> Reply:
        verb, _, subject = action.partition(":")
        await self._check_ban(caller, verb in _OPEN_BUTTONS)
        match verb:
            case "train":
                return await self._training.start_training(caller, subject)
            case "discard":
                return await self._training.discard(caller, subject)
            case "imagine":
                return await self._imagining.how(caller, subject)
            case "again":
                return await self._imagining.again(caller, subject)
            case "seed":
                return await self._imagining.seed(caller, subject)
            case "remove":
                return await self._imagining.remove(caller, subject)
            case "vary":
                return await self._imagining.vary(caller, subject)
            case "cancel":
                return await self.cancel(caller, subject)
            case "avatar":
                return await self._avatars.card(caller, subject)
            case "rename":
                return await self._avatars.how_to_rename(caller, subject)
            case "default":
                return await self._avatars.prefer(caller, subject)
            case "share":
                return await self._avatars.share_here(caller, subject)
            case "revoke":
                return await self._avatars.revoke(caller, subject)
            case "export":
                return await self._avatars.export_of(caller, subject)
            case "delete":
                return await self._avatars.delete_of(caller, subject)
            case "erase":
                return await self._avatars.erase(caller, subject)
            case "keep":
                return await self._avatars.keep(caller, subject)
            case "mydata":
                return await self._account.mydata(caller)
            case "forget":
                return await self._account.forget(caller)
            case "forget-all" | "forget-lines":
                return await self._account.forgotten(caller, subject, lines=verb == "forget-lines")
            case "forget-not":
                return await self._account.not_forgotten(caller, subject)
            case _:
                raise UserError("unknown_action")

    async def _check_ban(self, caller: Caller, is_open: bool) -> None:
        if not is_open and (await self._desk.user(caller)).banned:
            raise UserError("banned")

    # /status, /cancel, /help

    async def status(self, caller: Caller) -> Reply:
        """List the person's jobs that are not over."""
        user = await self._desk.user(caller)
        jobs = [
            (job, await self._desk.waiting(job), await self._desk.token(job))
            for job in await self._desk.records.jobs.for_user(user.id, active_only=True)
        ]
        return Reply(replies.status(jobs), private=True)

    async def cancel(self, caller: Caller, job: str = "") -> Reply:
        """Stop one of the person's own jobs, the newest if none is named; operators may name anybody's."""
        user = await self._desk.user(caller)
        if job:
            found = await self._desk.job(job)
            if found.user_id != user.id and not self._desk.is_operator(caller):
                raise UserError("not_yours")
            if found.over:
                raise UserError("job_over")
        else:
            active = await self._desk.records.jobs.for_user(user.id, active_only=True)
            if not active:
                raise UserError("no_jobs")
            found = active[0]
        stopped = await self._desk.stop(found.id)
        return Reply(replies.cancelling(stopped, await self._desk.token(stopped)), private=True)

    async def help(self, caller: Caller) -> Reply:
        """What there is."""
        return Reply(replies.help_text(self._desk.is_operator(caller)), private=True)

    # The end of a job

    async def answer(self, job: Job) -> Message:
        """The one message that ends a job. Can be asked for again after a crash, with the same outcome."""
        match job.payload:
            case Inspect(avatar_id=avatar_id):
                return await self._training.answer_inspect(job, avatar_id)
            case Train(avatar_id=avatar_id):
                return await self._training.answer_train(job, avatar_id)
            case Imagine():
                return await self._imagining.answer_imagine(job)


async def _no_photos() -> AsyncIterator[Upload]:
    nothing: tuple[Upload, ...] = ()
    for upload in nothing:
        yield upload
