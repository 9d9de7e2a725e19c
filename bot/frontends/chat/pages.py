"""The public files: the page in the reader's language, and its scripts and pictures."""

import re
from dataclasses import asdict
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from aiohttp import web
from babel import Locale

from bot import limits
from bot.language import LANGUAGES, closest, dictionary, say, spoken
from bot.replies import refusals
from bot.table import COMMANDS, Command

CHOSEN = "avatar_language"
"""The cookie that stores the language chosen in the page."""
TEXT_MOST = 4000
"""Most characters of a message."""

_FOLDER = Path(__file__).parent / "page"
_SCRIPTS = ("base.js", "chat.js", "composer.js", "gallery.js", "messages.js", "sending.js")
FILES = {
    "/chat.css": "text/css",
    "/icon.svg": "image/svg+xml",
    **{f"/{name}": "text/javascript" for name in _SCRIPTS},
}


def language_of(request: web.Request) -> str:
    """The language chosen in the page, or the best of the browser's Accept-Language."""
    accepted = []
    for entry in request.headers.get("Accept-Language", "").split(","):
        tag, _, rest = entry.strip().partition(";")
        weight = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)\s*", rest)
        accepted.append((-float(weight[1]) if weight else -1.0, tag.strip()))
    preferred = [tag for weight, tag in sorted(accepted, key=lambda pair: pair[0]) if weight]
    return closest([request.cookies.get(CHOSEN), *preferred])


async def page(request: web.Request) -> web.StreamResponse:
    """The page itself."""
    return web.Response(text=_page(spoken()), content_type="text/html", headers={"Cache-Control": "no-cache"})


@cache
def _page(language: str) -> str:
    def option(one: str) -> str:
        chosen = " selected" if one == language else ""
        return (
            f'<option value="{one}" lang="{one}"{chosen}>{(Locale(one).get_language_name(one) or one).title()}</option>'
        )

    text = (_FOLDER / "index.html").read_text("utf-8")
    text = re.sub(r"\{\{(.+?)\}\}", lambda found: escape(say(found[1])), text)
    return text.replace("{language}", language).replace("{languages}", "".join(map(option, LANGUAGES)))


async def file(request: web.Request) -> web.StreamResponse:
    """A script, style sheet or picture of the page."""
    kind = FILES[request.path]
    headers = {"Cache-Control": "no-cache", "Content-Type": kind}
    return web.FileResponse(_FOLDER / request.path.removeprefix("/"), headers=headers)


async def table(request: web.Request) -> web.Response:
    """The table of commands and the sentences of the page, in the reader's language."""
    return web.json_response(
        {
            "commands": [_translated(command) for command in COMMANDS.values()],
            "consent": say(refusals.CONSENT),
            "photos": {
                "fewest": limits.PHOTOS_FEWEST,
                "most": limits.PHOTOS_MOST,
                "bytes": limits.PHOTO_BYTES,
            },
            "text": {"most": TEXT_MOST},
            "catalog": dictionary(spoken()),
        }
    )


def _translated(command: Command) -> dict[str, Any]:
    options = [{**asdict(option), "description": say(option.description)} for option in command.options]
    return {**asdict(command), "description": say(command.description), "topic": say(command.topic), "options": options}
