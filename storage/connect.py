"""How every part of the project talks to Redis."""

from arq.connections import ArqRedis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError, TimeoutError

RETRIES = 20
"""Times a command is tried again, 0.1 to 1 s apart, before it raises."""


def connect(url: str) -> ArqRedis:
    """A client that sits out about 15 s without Redis before it raises. Connects at its first command."""
    return ArqRedis.from_url(
        url,
        retry=Retry(ExponentialBackoff(cap=1, base=0.1), RETRIES),
        retry_on_error=[ConnectionError, TimeoutError],
        socket_connect_timeout=5,
    )
