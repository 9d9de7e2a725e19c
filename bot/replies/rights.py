"""What is said about sharing: who may draw whose avatar, and for how long."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from bot.messages import Button, Message
from bot.replies.words import Facts, listing, until
from storage.records import Avatar


@dataclass(frozen=True, slots=True)
class Share:
    """One grant in words: `whom` is "Ben", "this group" or "another group"."""

    grant_id: str
    token: str
    whom: str
    expires: datetime | None


REFUSALS: Mapping[str, Callable[[Facts], str]] = {
    "share_where": lambda facts: (
        f"Here are only you and I. Send /share {facts['token']} in the group that may draw it, or name a person."
    ),
    "share_self": lambda facts: "That is you, and what is yours you can draw anyway.",
    "unknown_person": lambda facts: (
        f"I know nobody called {facts['person']} here. Whoever it is has to write to me once; then try again."
    ),
    "several_persons": lambda facts: (
        f"{facts['count']} people here are called {facts['person']}. Mention the right one, or give their id."
    ),
    "lifetime_shape": lambda facts: (
        "Say how long as a number with m, h, d or w: --expires 2h or --expires 7d, a year at most."
    ),
    "no_share": lambda facts: f"{facts['token']} is not shared. Nobody but you can draw it.",
    "not_shared": lambda facts: "That avatar is not shared with you here. /avatars shows those you can use.",
    "share_gone": lambda facts: "That is not shared any more.",
}


def belongs(token: str, name: str) -> str:
    """Whose a shared avatar is."""
    return f"{token} is {name}'s."


def line_of(share: Share) -> str:
    """One grant, as a line of a list."""
    ends = f"until {until(share.expires).removeprefix('in ')} from now" if share.expires else "until you take it back"
    return f"Shared with {share.whom}, {ends}."


def take_back(share: Share) -> Button:
    """The one tap that ends a grant."""
    return Button(f"Take back from {share.whom}", f"revoke:{share.grant_id}")


def shared_here(avatar: Avatar, name: str, share: Share) -> Message:
    """Everybody in the group may draw the avatar; they all read this."""
    ends = f" This ends {until(share.expires)}." if share.expires else ""
    return Message(
        f"{name} shares {avatar.token} with this group: /imagine {avatar.token} {avatar.noun} in a suit.{ends}",
        tone="good",
        buttons=(Button("Take it back", f"revoke:{share.grant_id}"),),
        avatar=avatar.id,
    )


def shared_with(avatar: Avatar, share: Share) -> Message:
    """One person may draw the avatar; its owner reads this."""
    ends = f" This ends {until(share.expires)}." if share.expires else ""
    return Message(
        f"{share.whom} can draw {avatar.token} now, wherever I am.{ends}",
        tone="good",
        buttons=(Button("Take it back", f"revoke:{share.grant_id}"),),
        avatar=avatar.id,
    )


def unshared(token: str, whom: str, stopped: int, left: Sequence[Share]) -> Message:
    """A grant was taken back."""
    jobs = "" if not stopped else " What was on its way there is stopped."
    more = f" It is still shared with {listing([share.whom for share in left])}." if left else ""
    return Message(f"{token} is not shared with {whom} any more.{jobs}{more}", buttons=tuple(map(take_back, left[:4])))


def unshare_which(token: str, shares: Sequence[Share]) -> Message:
    """It is shared elsewhere, so the person chooses."""
    return Message(
        "\n".join([f"{token} is not shared there. These can draw it:", *map(line_of, shares)]),
        buttons=tuple(map(take_back, shares[:4])),
    )
