"""`make simulate`: the real Discord and Telegram frontends without a token, against this folder's strict simulators.

Starts both platforms, both bots and an engine, and a page on which one plays Anna and Ben on either of them. What a
bot does that its platform would not take is shown on the page. Everything is kept in a folder that goes at the end.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web

from bot.lines import parse
from bot.table import COMMANDS, OptionKind
from storage.errors import UserError
from tests.platforms import telegram_server
from tests.platforms.discord_server import TOKEN as DISCORD_TOKEN
from tests.platforms.discord_server import DiscordServer, Sent

PAGE = Path(__file__).parent / "simulate.html"
MODAL = 9
NAMES = {"Anna": 11, "Ben": 12}
"""Who there is, and their ids on Discord."""


class Impossible(Exception):
    """Nobody could do that on the platform; the message says why."""


@dataclass(frozen=True)
class Shown:
    """A message as the page shows it. files: (address, whether it is a picture)."""

    ref: str
    author: str
    text: str
    buttons: list[str]
    files: list[tuple[str, bool]]


class Telegram:
    """The people on the simulated Telegram."""

    def __init__(self, server: telegram_server.Server) -> None:
        self.server = server
        self.people = {name: server.person(name) for name in NAMES}
        self.group = server.group("Friends")

    def _chat(self, person: str, place: str) -> int:
        return self.people[person].id if place == "private" else self.group

    def seen(self, person: str, place: str) -> list[Shown]:
        chat, shown = self._chat(person, place), []
        for (where, number), body in self.server.messages.items():
            if where == chat:
                kept = [body["photo"][-1]] if "photo" in body else [body["document"]] if "document" in body else []
                files = [(f"/file/telegram/{one['file_id']}", True) for one in kept]
                author = "" if body["from"]["is_bot"] else body["from"]["first_name"]
                shown.append(
                    Shown(str(number), author, telegram_server.said(body), telegram_server.labels(body), files)
                )
        return shown

    async def say(self, person: str, place: str, text: str, photos: list[bytes]) -> None:
        who = self.people[person]
        if not photos:
            await who.say(text, self._chat(person, place))
        elif place != "private":
            raise Impossible("The page sends photos to the private chat only, as the bot wants them.")
        elif len(photos) == 1:
            await who.hand_out([who.photo(photos[0], caption=text or None)])
        else:
            await who.send(photos[:10], text or None)

    async def press(self, person: str, place: str, ref: str, label: str) -> None:
        await self.people[person].press(self.server.messages[self._chat(person, place), int(ref)], label)

    def file(self, name: str) -> bytes:
        return self.server.files[name]


class Discord:
    """The people on the simulated Discord."""

    def __init__(self, server: DiscordServer) -> None:
        self.server = server
        self.group = server.add("server", *NAMES.values())
        self.private = {name: server.dm(number) for name, number in NAMES.items()}

    def _channel(self, person: str, place: str) -> int:
        return self.private[person] if place == "private" else self.group

    def seen(self, person: str, place: str) -> list[Shown]:
        shown = []
        for one in self.server.seen(NAMES[person], self._channel(person, place)):
            files = [(f"/file/discord/{one.id}-{file['id']}", _picture(file["filename"])) for file in one.files]
            text = one.content + ("\n(only you see this)" if one.only_for else "")
            shown.append(Shown(str(one.id), "", text, list(one.buttons), files))
        return shown

    async def say(self, person: str, place: str, text: str, photos: list[bytes]) -> None:
        try:
            line = parse(text)
        except UserError as error:
            raise Impossible(f"Discord offers no such command ({error.code}).") from None
        values: dict[str, Any] = dict(line.values)
        wants_photos = any(option.kind == OptionKind.PHOTOS for option in COMMANDS[line.command].options)
        user, channel = NAMES[person], self._channel(person, place)
        try:
            asked = await self.server.slash(user, channel, line.command, **({} if wants_photos else values))
            if wants_photos:
                await self.server.until(lambda: asked.answer)
                if asked.answer == MODAL:
                    # Who sends photos from this page has ticked the box there.
                    await self.server.submit(asked, photos, **{**values, "consent": True})
        except AssertionError as error:
            raise Impossible(f"Discord would not let you: {error}.") from None

    async def press(self, person: str, place: str, ref: str, label: str) -> None:
        message: Sent = self.server.messages[int(ref)]
        await self.server.press(NAMES[person], message, label)

    def file(self, name: str) -> bytes:
        message, _, file = name.partition("-")
        return next(bytes(one["data"]) for one in self.server.messages[int(message)].files if one["id"] == file)


def _picture(name: str) -> bool:
    return name.endswith((".png", ".jpg"))


class Simulation:
    """The page and what it asks for."""

    def __init__(self, telegram: Telegram, discord: Discord) -> None:
        self.platforms: dict[str, Telegram | Discord] = {"telegram": telegram, "discord": discord}

    def app(self) -> web.Application:
        app = web.Application(client_max_size=300 * 1024 * 1024, middlewares=[_kindly])
        app.router.add_get("/", self._page)
        app.router.add_get("/file/{platform}/{name}", self._file)
        app.router.add_get("/{platform}/{person}/{place}", self._seen)
        app.router.add_post("/{platform}/{person}/{place}/say", self._say)
        app.router.add_post("/{platform}/{person}/{place}/press", self._press)
        return app

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(PAGE)

    async def _file(self, request: web.Request) -> web.Response:
        where = request.match_info
        return web.Response(body=self.platforms[where["platform"]].file(where["name"]), content_type="image/png")

    async def _seen(self, request: web.Request) -> web.Response:
        where = request.match_info
        platform = self.platforms[where["platform"]]
        shown = platform.seen(where["person"], where["place"])
        return web.json_response({"messages": [vars(one) for one in shown], "faults": platform.server.faults})

    async def _say(self, request: web.Request) -> web.Response:
        where, text, photos = request.match_info, "", []
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            data = bytes(await part.read())
            if part.name == "text":
                text = data.decode().strip()
            else:
                photos.append(data)
        await self.platforms[where["platform"]].say(where["person"], where["place"], text, photos)
        return web.json_response({})

    async def _press(self, request: web.Request) -> web.Response:
        where, pressed = request.match_info, await request.json()
        platform = self.platforms[where["platform"]]
        await platform.press(where["person"], where["place"], pressed["ref"], pressed["label"])
        return web.json_response({})


@web.middleware
async def _kindly(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        return await handler(request)  # type: ignore[no-any-return]
    except Impossible as error:
        return web.json_response({"impossible": str(error)})
    except (KeyError, StopIteration, ValueError):
        raise web.HTTPNotFound from None


@asynccontextmanager
async def _process(*words: str, environment: dict[str, str], ready: bytes) -> AsyncIterator[None]:
    """A process of the project, ended with the block. Raises RuntimeError if it does not come up."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *words, env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    try:
        if ready not in await process.stdout.readline():
            raise RuntimeError(f"{' '.join(words)} did not start")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def simulate(port: int, ended: asyncio.Event) -> None:
    """Run everything until `ended`; port 0 picks a free one, which is printed with the address."""
    async with AsyncExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="avatar-simulation-"))
        telegram, discord = telegram_server.Server(), await stack.enter_async_context(DiscordServer())
        environment = {
            "AVATAR_HOME": home,
            "AVATAR_TELEGRAM_TOKEN": telegram_server.TOKEN,
            "AVATAR_TELEGRAM_API_URL": await stack.enter_async_context(telegram_server.served(telegram)),
            "AVATAR_DISCORD_TOKEN": DISCORD_TOKEN,
            "AVATAR_DISCORD_API_URL": discord.api,
            "AVATAR_DISCORD_GATEWAY_URL": discord.gateway,
        }
        page = Simulation(Telegram(telegram), Discord(discord))
        for words, ready in (
            (("engine", "work"), b"ready"),
            (("bot", "telegram"), b"The bot is at"),
            (("bot", "discord"), b"Talking on Discord"),
        ):
            await stack.enter_async_context(_process(*words, environment=environment, ready=ready))
        runner = web.AppRunner(page.app(), access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", port).start()
        print(f"Play Anna and Ben at http://127.0.0.1:{runner.addresses[0][1]}; Ctrl-C ends", flush=True)
        await ended.wait()


async def main() -> None:
    """Until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--port", type=int, default=8770)
    asked, ended, loop = parser.parse_args(), asyncio.Event(), asyncio.get_running_loop()
    work = asyncio.create_task(simulate(asked.port, ended))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    await work


if __name__ == "__main__":
    asyncio.run(main())
