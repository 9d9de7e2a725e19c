"""The Discord client: what people do comes in as interactions, runs a command, and the reply is shown."""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import aiohttp
import discord
from discord import app_commands

from bot import limits
from bot.commands.commands import COMMANDS, Commands, Completion
from bot.delivery import Delivery
from bot.frontends.discord.address import point_at
from bot.frontends.discord.form import File, Filled, filled_in, form
from bot.frontends.discord.outbox import NAME, SENT, TOKEN_LIFE, TROUBLE, Outbox, insist, reason, refused
from bot.frontends.discord.registry import Translations, slash_command, values_of, wants_form
from bot.frontends.discord.rendering import Press, Rendered, complete, fitted, notice, pictures, render
from bot.frontends.discord.rooms import Place, Room
from bot.health import beating
from bot.language import closest, speak
from bot.messages import Caller, Message, Reply, Upload
from bot.replies import discord as wording
from bot.replies import jobs as replies
from bot.settings import BotSettings
from bot.table import Command, Source
from storage.errors import UserError
from storage.jobs import SPECS, Imagine
from storage.open import Storage
from storage.records import Job, Note

log = logging.getLogger(__name__)

Interaction = discord.Interaction[Any]
Callback = discord.InteractionCallbackResponse[Any] | None

COMPLETING = 2.0
"""Seconds that a completion may take; Discord waits for three."""
DOWNLOAD = 60.0
"""Seconds that one photo may take to come."""
_CHUNK = 64 * 1024
CROWD = 10
"""People who wait for their first answer from which on the work waits for that, or for `NOTICING` seconds."""
NOTICING = 2.0
_TRIES = 3
_HURRY = (0.6, 1.2, 1.2)
"""Seconds that each try of a first answer may take: Discord waits for three, and the library's pauses between its own
tries are a second and longer."""
_HEARD = 10_000
"""Interactions that are remembered, in case Discord sends one again."""
_POSTING = timedelta(minutes=1)
"""After so long a post that was begun and not noted as sent is one that a dead process left."""
_ACKNOWLEDGED = 40060
"""Discord's code for an interaction that was answered before."""
OPEN = "discord/open"
"""`<interaction>`: {"token", "room", "message", "limit"}: acknowledged, and not answered yet."""


class DiscordBot(discord.Client):
    """One connection to Discord over one storage. `clock` counts the seconds of interaction tokens."""

    def __init__(
        self,
        storage: Storage,
        *,
        operators: Collection[str] = (),
        clock: Callable[[], float] = time.time,
        edit_every: float = 5.0,
        sweep_every: float = 5.0,
        **options: Any,
    ) -> None:
        # The bot has no voice, so nobody needs to read what it would take.
        discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
        super().__init__(
            intents=discord.Intents(guilds=True),
            allowed_mentions=discord.AllowedMentions.none(),
            max_messages=None,
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
            **options,
        )
        self._records = storage.records
        self._blobs = storage.blobs
        self.commands = Commands(storage.records, storage.blobs, storage.queue, storage.events, operators)
        self.outbox = Outbox(self, storage.records, storage.blobs, clock)
        self.delivery = Delivery(
            storage.records,
            storage.events,
            self.outbox,
            self.commands.answer,
            edit_every=edit_every,
            sweep_every=sweep_every,
        )
        self.tree = app_commands.CommandTree(self)
        anyone = any(account.startswith(f"{NAME}:") for account in operators)
        for command in [command for command in COMMANDS.values() if anyone or not command.operators]:
            self.tree.add_command(slash_command(command, self.asked, self.completed))
        self._downloads: aiohttp.ClientSession | None = None
        self._taking_up: asyncio.Task[None] | None = None
        self._heard: deque[int] = deque(maxlen=_HEARD)
        self._untold = 0
        self._calm = asyncio.Event()
        self._calm.set()

    async def setup_hook(self) -> None:
        self._downloads = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        self.add_dynamic_items(Press)
        await self.tree.set_translator(Translations())
        try:
            await self.tree.sync()
        except (*TROUBLE, app_commands.AppCommandError):
            # Those that were registered before go on working.
            log.exception("the commands were not registered")
        await self.outbox.tidy()
        left = await self._records.notes(OPEN)
        self._taking_up = asyncio.create_task(self._take_up(left))

    async def close(self) -> None:
        await self.outbox.close()
        if self._taking_up is not None:
            self._taking_up.cancel()  # whoever was not told yet is told by the next process
            await asyncio.gather(self._taking_up, return_exceptions=True)
        if self._downloads is not None:
            await self._downloads.close()
        await super().close()

    @property
    def connected(self) -> bool:
        """Whether Discord's gateway is ready and alive: the library closes one that leaves a heartbeat unanswered."""
        return self.is_ready() and not self.is_closed() and self.ws.open

    # What people do

    async def asked(self, interaction: Interaction, command: Command, given: Mapping[str, Any]) -> None:
        """A slash command. One that needs several photos and came without opens a form."""
        _speak(interaction)
        values, attached = values_of(command, given)
        if wants_form(command) and not attached:
            await self._answered(interaction, lambda: interaction.response.send_modal(form(command, values)))
            return
        files = [File(attachment.url, attachment.size) for attachment in attached]
        await self._converse(
            interaction, lambda caller: self.commands.run(caller, command.name, values, self._uploads(files))
        )

    async def on_interaction(self, interaction: Interaction) -> None:
        """A form that was sent in; the library sees to everything else."""
        if interaction.type != discord.InteractionType.modal_submit:
            return
        _speak(interaction)
        try:
            filled = filled_in(interaction)
        except UserError as error:
            refused = Reply(replies.refusal(error), private=True)
            await self._converse(interaction, lambda caller: _settled(refused))
            return
        if filled is not None:
            await self._converse(interaction, lambda caller: self._sent_in(caller, filled))

    def _sent_in(self, caller: Caller, filled: Filled) -> Awaitable[Reply]:
        if filled.job:
            return self.commands.edit(caller, filled.job, filled.shown, filled.values)
        return self.commands.run(caller, filled.command.name, filled.values, self._uploads(filled.files))

    async def pressed(self, interaction: Interaction, verb: str, subject: str) -> None:
        """A button, of whatever age."""
        _speak(interaction)
        match verb:
            case "show":
                await self._show(interaction, subject)
            case "post":
                await self._post_here(interaction, subject)
            case "edit":
                await self._edit_prompt(interaction, subject)
            case "pick":
                await self._pick(interaction, *subject.split(":", 1))
            case _:
                await self._converse(interaction, lambda caller: self.commands.press(caller, subject), pressed=True)

    async def completed(self, interaction: Interaction, source: Source) -> Sequence[Completion]:
        """Completions, or none if they take too long."""
        try:
            async with asyncio.timeout(COMPLETING):
                return await self.commands.complete(_caller(interaction), source)
        except TimeoutError:
            return []

    # Answering

    async def _converse(
        self, interaction: Interaction, call: Callable[[Caller], Awaitable[Reply]], pressed: bool = False
    ) -> None:
        """Acknowledge at once, run the command, and show its reply."""
        room = Room.of(interaction)
        thinking = {} if pressed else {"thinking": True, "ephemeral": room.place != Place.DM}
        if not await self._acknowledged(interaction, **thinking):
            return
        with suppress(TimeoutError):
            # First everybody is told that the bot is at it; the work would only slow that down.
            await asyncio.wait_for(self._calm.wait(), NOTICING)
        with self.outbox.talking(str(interaction.user.id)):
            await self._note_open(interaction, room, pressed)
            reply = await call(_caller(interaction))
            if pressed and reply.spent:
                await _quietly(interaction.edit_original_response(view=None))
            if reply.job_id is not None and (job := await self._records.job(reply.job_id)):
                await self._follow(interaction, room, reply.message, job, pressed)
            elif reply.private or room.place == Place.DM:
                await self._say(interaction, reply.message, pressed)
            else:
                await self._announce(interaction, reply.message, pressed)
            await self._records.note_delete(OPEN, str(interaction.id))
            await self._catch_up(interaction)

    async def _note_open(self, interaction: Interaction, room: Room, pressed: bool) -> None:
        """So that the person can be told, should the process die before it answers."""
        message = None if pressed else interaction.extras.get("message")
        body = {"token": interaction.token, "room": str(room), "limit": interaction.filesize_limit, "message": message}
        await self._records.note_add(OPEN, str(interaction.id), body, f"{NAME}:{interaction.user.id}")

    async def _take_up(self, left: Sequence[Note]) -> None:
        """Tell those whom an earlier process acknowledged and never answered what became of it."""
        await asyncio.gather(*[self._tell_of(note, (note.owner or "").partition(":")[2]) for note in left])

    async def _tell_of(self, note: Note, person: str) -> None:
        # Should the job be over already, its answer is not to come before this, or be replaced by it.
        with self.outbox.talking(person):
            for pause in itertools.count(1):
                try:
                    await self._told_of(note, person)
                except TROUBLE as error:
                    if not refused(error):
                        await asyncio.sleep(pause)
                        continue
                break
            await self._records.note_delete(OPEN, note.key)

    async def _told_of(self, note: Note, person: str) -> None:
        asker = await self._records.find_users(NAME, person)
        jobs = await self._records.jobs_of(asker[0].id) if asker else []
        here = [job for job in jobs if job.room == note.body["room"] and job.created >= note.created]
        if here and (here[0].delivered or here[0].progress_ref):
            return  # its message was shown, and the delivery loop goes on with it
        message = wording.went_on() if here else wording.interrupted()
        hook, room, number = self.outbox.hook(note.body["token"]), Room.read(note.body["room"]), note.body["message"]
        rendered = render(message)
        try:
            if number is not None:
                await insist(lambda: hook.edit_message(number, **rendered.to_edit()), rendered)
            else:
                number = (await hook.send(**rendered.to_send(), ephemeral=room.place != Place.DM, wait=True)).id
        except discord.HTTPException as error:
            if not refused(error):
                raise
            if not here:  # or the answer of the job says all
                await self.outbox.tell(room, message, person)
            return
        if here:
            ref = f"{room}/{number}"
            if room.place != Place.DM:
                door = self.outbox.door(note.body["token"], number, note.body["limit"])
                ref = await self.outbox.opened(room, here[0].id, door, person)
            await self.delivery.follow(here[0].id, ref, message)

    async def _follow(self, interaction: Interaction, room: Room, message: Message, job: Job, pressed: bool) -> None:
        """Show the message that tells how far the job is, and let the delivery loop keep it up to date."""
        if room.place != Place.DM and SPECS[job.kind].time_limit > TOKEN_LIFE:
            ref = await self._follow_openly(interaction, room, message, job, pressed)
        else:
            sent = await _quietly(self._shown(interaction, message, pressed))
            if sent is None and not pressed:
                # That it is at it stands there, and can still become the answer.
                sent = interaction.extras.get("message")
            ref = f"{room}/{sent}" if sent and room.place == Place.DM else ""
            ref = ref or await self._opened(interaction, room, job, sent)
        await self.delivery.follow(job.id, ref, message)

    async def _follow_openly(
        self, interaction: Interaction, room: Room, message: Message, job: Job, pressed: bool
    ) -> str:
        try:
            ref = await self.outbox.post(str(room), message, dedupe=f"progress:{job.id}")
        except TROUBLE as error:
            log.warning("the message of job %s comes later: %s", job.id, reason(error))
            return await self._opened(interaction, room, job, None)
        told = None if pressed else wording.followed_below()
        if ref.endswith("/-"):
            told = wording.followed_nowhere()
        elif not ref.startswith(f"{room}/"):
            told = wording.followed_in_private()
        if told is not None:
            await _quietly(self._shown(interaction, told, pressed))
        return ref

    async def _opened(self, interaction: Interaction, room: Room, job: Job, sent: int | None) -> str:
        door = self.outbox.door(interaction.token, sent, interaction.filesize_limit) if sent else None
        return await self.outbox.opened(room, job.id, door, str(interaction.user.id))

    async def _catch_up(self, interaction: Interaction) -> None:
        """Tell the person of answers that could be told nowhere, now that they are here."""
        for job_id in await self.outbox.missed(str(interaction.user.id)):
            place = Room.of(interaction).place
            sending = interaction.followup.send(
                **notice(job_id, None).to_send(), ephemeral=place != Place.DM, wait=True
            )
            if await _quietly(sending):
                await self.outbox.told(str(interaction.user.id), job_id)

    async def _announce(self, interaction: Interaction, message: Message, pressed: bool) -> None:
        """A reply that is meant for everybody in the room."""
        if not pressed:
            await _quietly(self._shown(interaction, wording.posted(), pressed))
        room = Room.of(interaction)
        if room.place == Place.SERVER and await _quietly(self.outbox.announce(room, message)):
            return
        files = await pictures(self._blobs, message.pictures, interaction.filesize_limit)
        sending = interaction.followup.send(**render(message, files=files, public=True).to_send(), wait=True)
        await self._or_alone(interaction, message, sending)

    async def _say(self, interaction: Interaction, message: Message, pressed: bool) -> None:
        """Show the person a message, in the private chat or unseen by others."""
        await self._or_alone(interaction, message, self._shown(interaction, message, pressed))

    async def _or_alone(self, interaction: Interaction, message: Message, sending: Awaitable[object]) -> None:
        """Tell the person in the private chat what Discord does not take through the interaction any more."""
        try:
            await sending
        except TROUBLE as error:
            log.warning("a reply was not shown: %s", reason(error))
            if refused(error):
                await _quietly(self.outbox.tell(Room.of(interaction), message, str(interaction.user.id)))

    async def _shown(self, interaction: Interaction, message: Message, pressed: bool) -> int:
        """Show the person a message through the interaction; its id."""
        place, limit = Room.of(interaction).place, interaction.filesize_limit

        async def send(rendered: Rendered) -> int:
            if pressed:
                hidden = place != Place.DM
                return (await interaction.followup.send(**rendered.to_send(), ephemeral=hidden, wait=True)).id
            return (await insist(lambda: interaction.edit_original_response(**rendered.to_edit()), rendered)).id

        return await fitted(lambda most: complete(self._blobs, message, most, postable=place != Place.DM), send, limit)

    async def _show(self, interaction: Interaction, job_id: str) -> None:
        """[Show me]: the answer, for its person alone."""
        if await self._acknowledged(interaction, thinking=True, ephemeral=True):
            await self._say(interaction, await self._answer(interaction, job_id), pressed=False)

    async def _pick(self, interaction: Interaction, number: str, job_id: str) -> None:
        """[U1] to [U4]: this picture alone, in its full size."""
        if not await self._acknowledged(interaction, thinking=True, ephemeral=Room.of(interaction).place != Place.DM):
            return
        message = await self._answer(interaction, job_id)
        if message.job is not None:
            one = message.pictures[int(number) - 1 : int(number)]
            message = replace(message, text=message.prompt or message.text, prompt=None, pictures=one)
        await self._say(interaction, message, pressed=False)

    async def _edit_prompt(self, interaction: Interaction, job_id: str) -> None:
        """[Edit prompt]: the form of /imagine, filled in with what was asked for."""
        job = await self._records.job(job_id)
        message = await self._answer(interaction, job_id)
        if job is None or message.job is None or not isinstance(job.payload, Imagine):
            await self._converse(interaction, lambda caller: _settled(Reply(message, private=True)))
            return
        modal = form(COMMANDS["imagine"], await self.commands.options(job), job.id)
        await self._answered(interaction, lambda: interaction.response.send_modal(modal))

    async def _post_here(self, interaction: Interaction, job_id: str) -> None:
        """[Post here]: the pictures, for everybody in the channel."""
        if not await self._acknowledged(interaction):
            return
        say = partial(self._say, interaction, pressed=True)
        message = await self._answer(interaction, job_id)
        if message.job is None:
            await say(message)
            return
        key, owner = f"{Room.of(interaction)}|posted:{job_id}", f"{NAME}:{interaction.user.id}"
        before = await self._records.note(SENT, key)
        if before and before.body["ref"] is None and datetime.now(UTC) - before.created > _POSTING:
            await self._records.note_delete(SENT, key)  # whoever was at it did not live to send it
        if not await self._records.note_add(SENT, key, {"ref": None}, owner):
            await say(wording.posted_before())
            return
        files = await pictures(self._blobs, message.pictures, interaction.filesize_limit)
        sent = await _quietly(interaction.followup.send(**render(message, files=files).to_send(), wait=True))
        if sent:
            await self._records.note_set(SENT, key, {"ref": f"{Room.of(interaction)}/{sent.id}"}, owner)
        else:
            await self._records.note_delete(SENT, key)
            await say(wording.not_posted())

    async def _answer(self, interaction: Interaction, job_id: str) -> Message:
        """The answer of a job to whoever gave it, or a refusal, which names no job."""
        caller = _caller(interaction)
        job = await self._records.job(job_id)
        asker = await self._records.user(caller.platform, caller.platform_id, caller.name)
        if job is None or not job.over:
            return replies.refusal(UserError("unknown_job"))
        if job.user_id != asker.id:
            return replies.refusal(UserError("not_yours"))
        message = await self.commands.answer(job)
        exist = [await self._blobs.exists(picture.key) for picture in message.pictures]
        return message if not exist or any(exist) else wording.pictures_gone()

    async def _acknowledged(self, interaction: Interaction, **how: bool) -> bool:
        """Tell Discord that an answer will come. False if nothing must be done: it is too late, or came twice."""
        return await self._answered(interaction, lambda: interaction.response.defer(**how))

    async def _answered(self, interaction: Interaction, answer: Callable[[], Awaitable[Callback]]) -> bool:
        """Give the first answer. False if nothing must be done: it is too late, or came twice."""
        if interaction.id in self._heard:
            return False
        self._heard.append(interaction.id)
        self._wait_for(1)
        try:
            return await self._hurried(interaction, answer)
        finally:
            self._wait_for(-1)

    def _wait_for(self, people: int) -> None:
        """So many more wait for their first answer."""
        self._untold += people
        if self._untold < CROWD:
            self._calm.set()
        else:
            self._calm.clear()

    async def _hurried(self, interaction: Interaction, answer: Callable[[], Awaitable[Callback]]) -> bool:
        for number, seconds in enumerate(_HURRY, start=1):
            try:
                async with asyncio.timeout(seconds):
                    if (told := await answer()) is not None:
                        interaction.extras["message"] = told.message_id
            except TROUBLE as error:
                # A try that seemed to fail may have got through.
                if isinstance(error, discord.HTTPException) and error.code == _ACKNOWLEDGED:
                    break
                if refused(error) or number == len(_HURRY):
                    log.warning("an interaction was not answered: %s", reason(error))
                    return False
            else:
                break
        return True

    # Photos

    async def _uploads(self, files: Sequence[File]) -> AsyncIterator[Upload]:
        for number, file in enumerate(files, start=1):
            # Before it is fetched: somebody's whole video would come otherwise.
            limits.photo_size(file.size, number)
            yield Upload(self._chunks(file.url))

    async def _chunks(self, url: str) -> AsyncIterator[bytes]:
        assert self._downloads
        for left in reversed(range(_TRIES)):
            begun = False
            try:
                async with self._downloads.get(url, timeout=aiohttp.ClientTimeout(total=DOWNLOAD)) as response:
                    response.raise_for_status()
                    async for chunk in response.content.iter_chunked(_CHUNK):
                        begun = True
                        yield chunk
                    return
            except (aiohttp.ClientError, TimeoutError, OSError):
                if begun or not left:
                    raise UserError("upload_cut") from None
            await asyncio.sleep(0.5)


def _speak(interaction: Interaction) -> None:
    """Say everything in the language that the person's Discord is in."""
    speak(closest([interaction.locale.value]))


def _caller(interaction: Interaction) -> Caller:
    user = interaction.user
    room, group = Room.of(interaction), str(interaction.guild_id or "")
    return Caller(NAME, str(user.id), user.global_name or user.name, str(room), group, room.place == Place.DM)


async def _settled(reply: Reply) -> Reply:
    return reply


async def _quietly(sending: Awaitable[Any]) -> Any:
    """What Discord returns, or None if it refuses; the job goes on either way."""
    try:
        return await sending
    except TROUBLE as error:
        log.warning("a reply was not shown: %s", reason(error))
        return None


async def serve(storage: Storage, settings: BotSettings, ready: Callable[[str], None]) -> None:
    """Talk to Discord and deliver until cancelled. `ready` gets the bot's name once people can use it.

    Raises PermissionError if Discord does not accept the token, ConnectionError if it turns the bot away later.
    """
    token = settings.discord_token
    point_at(settings.discord_api_url, settings.discord_gateway_url)
    async with DiscordBot(storage, operators=settings.operator_accounts) as bot:
        try:
            await bot.login(token.get_secret_value() if token else "")
            ready(str(bot.user))
            beside = [
                asyncio.create_task(bot.delivery.run()),
                asyncio.create_task(beating(settings.health_file, lambda: bot.connected)),
            ]
            try:
                await bot.connect()
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
        except discord.LoginFailure:
            raise PermissionError(wording.wrong_token()) from None
        except (discord.DiscordException, aiohttp.ClientError) as error:
            raise ConnectionError(f"Discord turned the bot away: {error}") from None
