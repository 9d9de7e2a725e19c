"""Downloads the photos that people attach."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import aiohttp

from bot import limits
from bot.frontends.discord.form import FormFile
from bot.messages import Upload
from storage.errors import UserError

_DOWNLOAD_MOST = 60.0
"""Time limit of one photo, in seconds."""
_CHUNK = 64 * 1024
_TRIES = 3


class Photos:
    """Downloads through one HTTP session, from `open` to `close`."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Start the session. An event loop must be running."""
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        """End the session, if it was started."""
        if self._session is not None:
            await self._session.close()

    async def uploads(self, files: Sequence[FormFile]) -> AsyncIterator[Upload]:
        """The files as uploads for a command. Raises UserError for a file that is too large or fails to download."""
        for number, file in enumerate(files, start=1):
            # Checked before the download, so that no large video is fetched.
            limits.photo_size(file.size, number)
            yield Upload(self._chunks(file.url))

    async def _chunks(self, url: str) -> AsyncIterator[bytes]:
        assert self._session
        for tries_left in reversed(range(_TRIES)):
            begun = False
            try:
                async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=_DOWNLOAD_MOST)) as response:
                    response.raise_for_status()
                    async for chunk in response.content.iter_chunked(_CHUNK):
                        begun = True
                        yield chunk
                    return
            except (aiohttp.ClientError, TimeoutError, OSError):
                if begun or not tries_left:
                    raise UserError("upload_cut") from None
            await asyncio.sleep(0.5)
