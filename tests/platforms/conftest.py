import asyncio
from collections.abc import Iterator

import pytest

from storage.embedded import EmbeddedRedis


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real embedded server that every test may empty, and none may kill."""
    embedded = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    yield asyncio.run(embedded.ensure())
    asyncio.run(embedded.release())
