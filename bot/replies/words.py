"""Small words: times, numbers and lists as people say them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Facts = Mapping[str, Any]


def duration(seconds: float) -> str:
    """A time that people say: '12 s', '3 min', '1 h 20 min'."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = max(1, round(whole / 60))
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def plural(count: int, noun: str) -> str:
    """'1 photo', '2 photos'."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listing(words: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def place(number: int) -> str:
    """A place in the queue."""
    return "next in line" if number <= 1 else f"number {number} in line"


def until(moment: datetime | str) -> str:
    """How long it is to a moment, given as such or in ISO's spelling: 'in 3 h 20 min'."""
    end = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return f"in {span((end - datetime.now(UTC)).total_seconds())}"


def span(seconds: float) -> str:
    """As `duration`, but days from two days on."""
    days = round(seconds / 86400)
    return duration(seconds) if seconds < 2 * 86400 else f"{days} days"
