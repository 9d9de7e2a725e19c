"""What is said to operators, and by them to everybody."""

from collections.abc import Callable, Mapping, Sequence

from bot.messages import Message
from bot.replies.words import Facts, duration, listing, plural, until
from bot.table import DUTIES
from storage.jobs import State
from storage.records import Job

PAUSED = "I'm having a rest; your place is kept, and it goes on by itself when I'm back."


def _quota_used(facts: Facts) -> str:
    what = "trainings" if facts["what"] == "trainings" else "pictures"
    if not facts["limit"]:
        return f"There are no {what} here for now; an operator has set it so."
    if facts["asked"] > facts["limit"]:
        return f"You have {facts['limit']} {what} a day here, fewer than the {facts['asked']} you ask for."
    left = facts["limit"] - facts["used"]
    rest = f"{left} of your {facts['limit']} {what} a day are left" if left > 0 else (
        f"Your {facts['limit']} {what} of today are used up"
    )  # fmt: skip
    return f"{rest}. There is room for this again {until(facts['free'])}."


REFUSALS: Mapping[str, Callable[[Facts], str]] = {
    "operators_only": lambda facts: "Only the operators of this bot can do that.",
    "unknown_duty": lambda facts: f"I can {listing(list(DUTIES))}, as in /operator pause.",
    "account_shape": lambda facts: "Name the account as platform:id, as in discord:1234.",
    "unknown_account": lambda facts: f"I know nobody by {facts['account']}.",
    "ban_operator": lambda facts: "That is an operator of this bot. Take them out of AVATAR_OPERATORS first.",
    "quota_shape": lambda facts: (
        "Say /operator quota trainings 3 or pictures 100, with none for no limit and platform:id for one person alone."
    ),
    "quota_used": _quota_used,
    "notice_empty": lambda facts: (
        "What shall I tell everybody? For example: /operator broadcast I rest tonight at ten."
    ),
}


def paused(waiting: int) -> Message:
    """No job is taken from now on."""
    return Message(
        f"Paused. What runs goes on to its end; {plural(waiting, 'job')} and all that are still to come wait. "
        "/operator resume goes on."
    )


def resumed(waiting: int) -> Message:
    """Jobs are taken again."""
    return Message(f"I'm back, and go on with {plural(waiting, 'waiting job')}.", tone="good")


def queue(jobs: Sequence[tuple[Job, float]], pause: bool) -> Message:
    """All jobs under way, each with its age in seconds, oldest first. No names and no prompts."""
    state = "paused" if pause else "at work"
    if not jobs:
        return Message(f"Nothing waits and nothing runs; I'm {state}.")
    running = sum(1 for job, _ in jobs if job.state == State.RUNNING)
    lines = [
        f"{job.kind} · {job.state} · for {duration(age)} · {job.frontend} · job {job.id}" for job, age in jobs[:15]
    ]
    more = [f"and {len(jobs) - 15} more"] if len(jobs) > 15 else []
    head = f"{running} running, {len(jobs) - running} waiting; I'm {state}."
    return Message("\n".join([head, *lines, *more]))


def stats(figures: Mapping[str, Mapping[str, int]]) -> Message:
    """How many of everything there are."""

    def row(name: str, title: str) -> str:
        counts = figures[name]
        each = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        return f"{title}: {sum(counts.values())}" + (f" ({each})" if each else "")

    return Message(
        "\n".join(
            [
                row("people", "People"),
                row("avatars", "Avatars"),
                row("jobs", "Jobs in the last 24 hours"),
                row("states", "of which"),
            ]
        )
    )


def banned(account: str, known: bool, stopped: int) -> Message:
    """Somebody is banned."""
    if not known:
        return Message(f"{account} is banned from the first word on; I haven't met them yet.")
    return Message(f"{account} is banned. {plural(stopped, 'job')} stopped; their avatars rest, for everybody.")


def unbanned(account: str) -> Message:
    """A ban is lifted."""
    return Message(f"{account} is welcome again.", tone="good")


def quotas(quota: Mapping[str, int | None], account: str | None) -> Message:
    """What the quotas are now."""
    each = [f"{quota[what]} {what}" if quota.get(what) is not None else f"any number of {what}"
            for what in ("trainings", "pictures")]  # fmt: skip
    return Message(f"{account or 'Everybody'} has {listing(each)} a day.")


def broadcast(rooms: int) -> Message:
    """The notice is on its way."""
    return Message(f"On its way to {plural(rooms, 'room')}.", tone="good")


def notice(text: str) -> Message:
    """What an operator tells a room."""
    return Message(f"A word from those who run this bot: {text}")
