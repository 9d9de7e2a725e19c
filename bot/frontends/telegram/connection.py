"""The library's requests, sent by aiohttp.

httpx, which the library comes with, looks through all its connections at every call: to acknowledge 500 people
at once took it 0.7 s of one core, and aiohttp 0.06 s (`sendChatAction` to the simulator, two cores).
"""

from typing import Any

import aiohttp
from telegram.error import NetworkError, TimedOut
from telegram.request import BaseRequest, RequestData

CONNECTIONS = 64
"""At most. A call to Telegram takes some fifty milliseconds, so that these are more than a thousand calls a second."""
_CONNECT, _READ, _WRITE, _WRITE_FILES = 5.0, 5.0, 5.0, 20.0
"""Seconds, as in the library's `HTTPXRequest`."""

Seconds = Any
"""A number, or the library's marker for the default."""


class NeverSent(NetworkError):
    """No connection to Telegram: the request had no effect."""


class Broken(NetworkError):
    """The connection broke: it is unknown whether Telegram received the request."""


class Connection(BaseRequest):
    """One pool of connections to the Bot API."""

    def __init__(self, connections: int = CONNECTIONS) -> None:
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    @property
    def read_timeout(self) -> float:
        return _READ

    async def initialize(self) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": self.USER_AGENT},
                trust_env=True,  # an operator's proxy
            )

    async def shutdown(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def do_request(
        self,
        url: str,
        method: str,
        request_data: RequestData | None = None,
        read_timeout: Seconds = BaseRequest.DEFAULT_NONE,
        write_timeout: Seconds = BaseRequest.DEFAULT_NONE,
        connect_timeout: Seconds = BaseRequest.DEFAULT_NONE,
        pool_timeout: Seconds = BaseRequest.DEFAULT_NONE,
    ) -> tuple[int, bytes]:
        if self._session is None:
            raise RuntimeError("a request before the start or after the end")
        files = request_data.multipart_data if request_data else {}
        connect, read = _or(connect_timeout, _CONNECT), _or(read_timeout, _READ)
        write = _or(write_timeout, _WRITE_FILES if files else _WRITE)
        # A download has no total limit as long as data arrives; an upload has one.
        total = connect + write + read if request_data else None
        timeout = aiohttp.ClientTimeout(total=total, sock_connect=connect, sock_read=read)
        try:
            async with self._session.request(
                method, url, data=_body(request_data, files), timeout=timeout, allow_redirects=False
            ) as response:
                return response.status, await response.read()
        # The original error text may contain the address, and with it the token.
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NeverSent(type(error).__name__) from None
        except TimeoutError:
            raise TimedOut from None
        except aiohttp.ClientError as error:
            raise Broken(type(error).__name__) from None


def _or(seconds: Seconds, usual: float) -> float:
    return seconds if isinstance(seconds, int | float) else usual


def _body(data: RequestData | None, files: dict[str, Any]) -> aiohttp.FormData | None:
    if data is None:
        return None
    form = aiohttp.FormData(data.json_parameters)
    for field, (name, content, kind) in files.items():
        form.add_field(field, content, filename=name, content_type=kind)
    return form
