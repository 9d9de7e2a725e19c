"""Locks by key, for work that must run one at a time within a chat, a person or a job."""

import asyncio
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

Key = TypeVar("Key")


class Locks(Generic[Key]):
    """One lock for each key. A lock is dropped once no task holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    def __getitem__(self, key: Key) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())

    def locked(self, key: Key) -> bool:
        """Whether some task holds the lock of this key."""
        lock = self._locks.get(key)
        return lock is not None and lock.locked()
