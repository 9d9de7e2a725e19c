"""Texts for operators, and their notices to everybody."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bot.language import listing, marked, number, say, several
from bot.messages import Message
from bot.replies.phrases import Facts, duration, jobs, pictures, trainings, until
from bot.table import DUTIES
from storage.jobs import State
from storage.records import Job

PAUSED = marked("I'm taking a break. Your place in the queue is kept, and this continues by itself when I'm back.")

_CODES: Mapping[str, str] = {
    "draft": marked("not trained yet"),
    "training": marked("in training"),
    "ready": marked("ready"),
    "failed": marked("failed"),
    "inspect": marked("photo check"),
    "train": marked("training"),
    "imagine": marked("drawing"),
    "queued": marked("waiting"),
    "running": marked("running"),
    "succeeded": marked("done"),
    "cancelled": marked("cancelled"),
}


def _quota_used(facts: Facts) -> str:
    learning = facts["what"] == "trainings"
    amount = (trainings if learning else pictures)(facts["limit"])
    if not facts["limit"]:
        return (
            say("An operator has switched training off here for now.")
            if learning
            else say("An operator has switched drawing off here for now.")
        )
    if facts["asked"] > facts["limit"]:
        return say(
            "You can have {amount} a day here, fewer than the {asked} you asked for.",
            amount=amount,
            asked=number(facts["asked"]),
        )
    left = facts["limit"] - facts["used"]
    rest = (
        say("You have {left} left of {amount} a day.", left=number(left), amount=amount)
        if left > 0
        else say("You have used up today's {amount}.", amount=amount)
    )
    return f"{rest} " + say("You can do this again {when}.", when=until(facts["free"]))


REFUSALS: Mapping[str, Callable[[Facts], str]] = {
    "operators_only": lambda facts: say("Only the operators of this bot can do that."),
    "unknown_duty": lambda facts: say("I can {duties}, as in /operator pause.", duties=listing(DUTIES)),
    "account_shape": lambda facts: say("Name the account as platform:id, as in discord:1234."),
    "unknown_account": lambda facts: say("I don't know the account {account}.", **facts),
    "ban_operator": lambda facts: say("That is an operator of this bot. Take them out of AVATAR_OPERATORS first."),
    "quota_shape": lambda facts: say(
        "Send /operator quota trainings 3 or /operator quota pictures 100. “none” means no limit; add "
        "platform:id for one person."
    ),
    "quota_used": _quota_used,
    "notice_empty": lambda facts: say(
        "What should I tell everybody? For example: /operator broadcast I'm taking a break tonight at ten."
    ),
}


def paused(waiting: int) -> Message:
    """The engines start no more jobs."""
    return Message(
        say(
            "Paused. Running jobs finish; waiting jobs ({jobs}) and new ones wait. /operator resume continues.",
            jobs=jobs(waiting),
        )
    )


def resumed(waiting: int) -> Message:
    """The engines start jobs again."""
    text = several(
        "I'm back, and continue with {count} waiting job.",
        "I'm back, and continue with {count} waiting jobs.",
        waiting,
    )
    return Message(text, tone="good")


def queue(under_way: Sequence[tuple[Job, float]], pause: bool) -> Message:
    """All jobs under way, each with its age in seconds, oldest first. No names and no prompts."""
    state = say("I'm paused.") if pause else say("I'm working.")
    if not under_way:
        return Message(say("Nothing is waiting or running.") + f" {state}")
    running = sum(1 for job, _ in under_way if job.state == State.RUNNING)
    lines = [
        say(
            "{kind} · {state} · for {span} · {platform} · job {job}",
            kind=_named(job.kind),
            state=_named(job.state),
            span=duration(age),
            platform=job.frontend,
            job=job.id,
        )
        for job, age in under_way[:15]
    ]
    more = [say("and {count} more", count=number(len(under_way) - 15))] if len(under_way) > 15 else []
    head = say(
        "{running} running, {waiting} waiting.", running=number(running), waiting=number(len(under_way) - running)
    )
    return Message("\n".join([f"{head} {state}", *lines, *more]))


def _named(code: str) -> str:
    return say(_CODES[code]) if code in _CODES else code


NOTICES: Mapping[str, str] = {
    "cartoon": marked(
        "It draws cartoons of people. For pictures like photos set AVATAR_BASE_MODEL (docs/base-models.md)."
    ),
}
"""What operators read about a base model's pictures, by the engine's code."""


def stats(figures: Mapping[str, Mapping[str, int]], base: Mapping[str, Any] | None = None) -> Message:
    """The answer to /operator stats: how many people, avatars and jobs there are, and which base model is in use.

    base: {"source", "notice"} of the engine that started last; None if none ever did.
    """

    def row(name: str, title: str) -> str:
        counts = figures[name]
        each = ", ".join(f"{number(count)} {_named(what)}" for what, count in sorted(counts.items()))
        return f"{title}: {number(sum(counts.values()))}" + (f" ({each})" if each else "")

    rows = [
        row("people", say("People")),
        row("avatars", say("Avatars")),
        row("jobs", say("Jobs in the last 24 hours")),
        row("states", say("of which")),
    ]
    if base:
        rows.append(say("Base model: {source}.", source=base["source"]))
        rows += [say(text) for code, text in NOTICES.items() if code == base["notice"]]
    return Message("\n".join(rows))


def banned(account: str, known: bool, stopped: int) -> Message:
    """An account was banned. known: it has written to the bot before. stopped: the number of its cancelled jobs."""
    if not known:
        return Message(say("{account} is banned, though I haven't met them yet.", account=account))
    text = say(
        "{account} is banned, and nobody can use their avatars. Stopped: {jobs}.", account=account, jobs=jobs(stopped)
    )
    return Message(text)


def unbanned(account: str) -> Message:
    """A ban was lifted."""
    return Message(say("{account} is welcome again.", account=account), tone="good")


def quotas(quota: Mapping[str, int | None], account: str | None) -> Message:
    """The quotas in force. account: whose, or None for everybody."""
    learning, drawing = quota.get("trainings"), quota.get("pictures")
    each = listing(
        [
            say("any number of trainings") if learning is None else trainings(learning),
            say("any number of pictures") if drawing is None else pictures(drawing),
        ]
    )
    if account is None:
        return Message(say("Everybody has {each} a day.", each=each))
    return Message(say("{account} has {each} a day.", account=account, each=each))


def broadcast(rooms: int) -> Message:
    """A notice will be posted. rooms: the number of rooms."""
    return Message(several("On its way to {count} room.", "On its way to {count} rooms.", rooms), tone="good")


def notice(text: str) -> Message:
    """An operator's notice to a room. Only its introduction is translated."""
    return Message(say("A message from the people who run this bot: {text}", text=text))
