"""`python -m bot chat | demo | discord | telegram | health`: the composition of each bot process.

Each command imports its own modules, so that the frequent health checks stay cheap.
"""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from pydantic import ValidationError

from bot import health
from bot.settings import BotSettings
from storage.errors import RedisUnavailable
from storage.settings import setting_error


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bot", description="Train avatars from photos and draw them.")
    commands = parser.add_subparsers(dest="command", required=True)
    local = commands.add_parser("chat", help="serve the local web chat")
    local.add_argument("--host", help="address to listen on (AVATAR_CHAT_HOST)")
    local.add_argument("--port", type=int, help="port to listen on (AVATAR_CHAT_PORT)")
    scripted = commands.add_parser("demo", help="run a scripted chat in the terminal")
    scripted.add_argument("--album", type=Path, required=True, help="folder with the photos of one person")
    scripted.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    commands.add_parser("discord", help="run the Discord bot (needs AVATAR_DISCORD_TOKEN)")
    commands.add_parser("telegram", help="run the Telegram bot (needs AVATAR_TELEGRAM_TOKEN)")
    commands.add_parser("health", help="exit with 0 while the bot with the same AVATAR_HEALTH_FILE is connected")
    return parser.parse_args(arguments)


async def _chat(settings: BotSettings) -> None:
    from bot.frontends import chat
    from storage.open import open_storage

    serving = asyncio.current_task()
    assert serving
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    async with open_storage(settings) as storage:
        await chat.serve(storage, settings, lambda address: print(f"The chat is open at {address}", flush=True))


async def _discord(settings: BotSettings) -> int:
    from bot.frontends import discord
    from bot.replies.discord import no_token
    from storage.open import open_storage

    if settings.discord_token is None:
        print(f"python -m bot discord: {no_token()}", file=sys.stderr)
        return 2
    serving = asyncio.current_task()
    assert serving
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    async with open_storage(settings) as storage:
        await discord.serve(storage, settings, lambda name: print(f"Talking on Discord as {name}", flush=True))
    return 0


async def _telegram(settings: BotSettings) -> int:
    from bot.frontends import telegram
    from storage.open import open_storage

    serving = asyncio.current_task()
    assert serving
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    try:
        async with open_storage(settings) as storage:
            await telegram.serve(storage, settings, lambda address: print(f"The bot is at {address}", flush=True))
    except telegram.TelegramFailure as error:
        print(f"python -m bot telegram: {error}", file=sys.stderr)
        return 2
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run one process. Return its exit status: 2 for wrong arguments or settings."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asked = _arguments(arguments)
    try:
        match asked.command:
            case "chat":
                given = {"chat_host": asked.host, "chat_port": asked.port}
                settings = BotSettings(**{name: value for name, value in given.items() if value is not None})
                asyncio.run(_chat(settings))
            case "telegram":
                return asyncio.run(_telegram(BotSettings()))
            case "health":
                return health.check(BotSettings().health_file)
            case "demo":
                from bot.frontends.terminal import demo

                return asyncio.run(demo(BotSettings(), asked.album, asked.out))
            case "discord":
                return asyncio.run(_discord(BotSettings()))
    except asyncio.CancelledError:
        return 0
    except KeyboardInterrupt:
        return 130
    except ValidationError as error:
        print(setting_error(error), file=sys.stderr)
        return 2
    except (OSError, RedisUnavailable) as error:
        print(f"python -m bot {asked.command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
