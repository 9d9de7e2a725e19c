"""Short phrases: times, amounts and queue positions."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from bot.language import say, several

Facts = Mapping[str, Any]


def duration(seconds: float) -> str:
    """A length of time: '12 s', '3 min', '1 h 20 min'."""
    rounded = max(0, round(seconds))
    if rounded < 60:
        return say("{seconds} s", seconds=rounded)
    minutes = max(1, round(rounded / 60))
    if minutes < 60:
        return say("{minutes} min", minutes=minutes)
    hours, minutes = divmod(minutes, 60)
    return say("{hours} h {minutes} min", hours=hours, minutes=minutes) if minutes else say("{hours} h", hours=hours)


def queue_position(position: int) -> str:
    """A position in the queue; 1 is next."""
    return say("next in line") if position <= 1 else say("number {number} in line", number=position)


def until(moment: datetime | str) -> str:
    """The time to a moment (a datetime or its ISO format): 'in 3 h 20 min', from two days on 'in 3 days'."""
    seconds = _seconds_to(moment)
    if seconds < 2 * 86400:
        return say("in {span}", span=duration(seconds))
    return several("in {count} day", "in {count} days", round(seconds / 86400))


def span_to(moment: datetime | str) -> str:
    """Like `until`, without the 'in'."""
    seconds = _seconds_to(moment)
    return duration(seconds) if seconds < 2 * 86400 else several("{count} day", "{count} days", round(seconds / 86400))


def _seconds_to(moment: datetime | str) -> float:
    end = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return (end - datetime.now(UTC)).total_seconds()


# Amounts


def photos(count: int) -> str:
    """'1 photo', '2 photos'."""
    return several("{count} photo", "{count} photos", count)


def avatars(count: int) -> str:
    """'1 avatar', '2 avatars'."""
    return several("{count} avatar", "{count} avatars", count)


def pictures(count: int) -> str:
    """'1 picture', '2 pictures'."""
    return several("{count} picture", "{count} pictures", count)


def trainings(count: int) -> str:
    """'1 training', '2 trainings'."""
    return several("{count} training", "{count} trainings", count)


def requests(count: int) -> str:
    """'1 request', '2 requests'."""
    return several("{count} request", "{count} requests", count)


def permissions(count: int) -> str:
    """'1 permission', '2 permissions'."""
    return several("{count} permission", "{count} permissions", count)


def chat_lines(count: int) -> str:
    """'1 chat line', '2 chat lines'."""
    return several("{count} chat line", "{count} chat lines", count)


def files(count: int) -> str:
    """'1 file', '2 files'."""
    return several("{count} file", "{count} files", count)


def times(count: int) -> str:
    """'once', '2 times'."""
    return several("once", "{count} times", count)


def jobs(count: int) -> str:
    """'1 job', '2 jobs'."""
    return several("{count} job", "{count} jobs", count)
