"""Texts about sharing: who may draw whose avatar, and for how long."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from bot.language import listing, say
from bot.messages import Button, Message
from bot.replies.phrases import Facts, span_to, until
from storage.records import Avatar


@dataclass(frozen=True, slots=True)
class Share:
    """One grant. `grantee`: the grantee as a phrase, such as "Ben" or "this group"."""

    grant_id: str
    token: str
    grantee: str
    expires: datetime | None


REFUSALS: Mapping[str, Callable[[Facts], str]] = {
    "share_where": lambda facts: say(
        "It's just you and me here. Send /share {token} in the group that may draw it, or name a person.", **facts
    ),
    "share_self": lambda facts: say("That is you, and you can draw your own avatars anyway."),
    "unknown_person": lambda facts: say(
        "I don't know anybody called {person} here. They have to write to me once; then try again.", **facts
    ),
    "unknown_handle": lambda facts: say(
        "I can't look up @{person}. Give the name shown above their messages, or their id. They must have "
        "written to me once.",
        **facts,
    ),
    "several_persons": lambda facts: say(
        "{count} people here are called {person}. Mention the right one, or give their id.", **facts
    ),
    "lifetime_shape": lambda facts: say(
        "Give the time as a number with m, h, d or w, such as --expires 2h or --expires 7d, a year at most."
    ),
    "unknown_program": lambda facts: say("I have no files for “{program}”, only for: {programs}.", **facts),
    "not_for_program": lambda facts: say("What I learned of {token} cannot be written for {program}.", **facts),
    "no_share": lambda facts: say("{token} is not shared. Nobody but you can draw it.", **facts),
    "not_shared": lambda facts: say("That avatar is not shared with you here. /avatars shows the ones you can use."),
    "share_gone": lambda facts: say("That is no longer shared."),
}


def this_group() -> str:
    """The grantee of a grant to this room."""
    return say("this group")


def another_group() -> str:
    """The grantee of a grant to another room, whose name stays private."""
    return say("another group")


def somebody() -> str:
    """The grantee of a grant to a person whose account is gone."""
    return say("somebody")


def belongs(token: str, name: str) -> str:
    """Says whose avatar this is."""
    return say("{token} is {name}'s.", token=token, name=name)


def line_of(share: Share) -> str:
    """One grant as a line of a list."""
    if share.expires:
        return say("Shared with {grantee} for another {span}.", grantee=share.grantee, span=span_to(share.expires))
    return say("Shared with {grantee}, until you take it back.", grantee=share.grantee)


def take_back(share: Share) -> Button:
    """The button that ends a grant."""
    return Button(say("Take back from {grantee}", grantee=share.grantee), f"revoke:{share.grant_id}")


def _ends(share: Share) -> list[str]:
    return [say("This ends {when}.", when=until(share.expires))] if share.expires else []


def shared_here(avatar: Avatar, name: str, share: Share) -> Message:
    """The public answer to /share: everybody in the group may draw the avatar."""
    text = say(
        "{name} shares {token} with this group: /imagine {token} {noun} in a suit.",
        name=name,
        token=avatar.token,
        noun=avatar.noun,
    )
    return Message(
        " ".join([text, *_ends(share)]),
        tone="good",
        buttons=(Button(say("Take it back"), f"revoke:{share.grant_id}"),),
        avatar=avatar.id,
    )


def shared_with(avatar: Avatar, share: Share) -> Message:
    """The owner's answer to /share: one person may draw the avatar."""
    text = say("{grantee} can now draw {token} anywhere I am.", grantee=share.grantee, token=avatar.token)
    return Message(
        " ".join([text, *_ends(share)]),
        tone="good",
        buttons=(Button(say("Take it back"), f"revoke:{share.grant_id}"),),
        avatar=avatar.id,
    )


def unshared(token: str, grantee: str, stopped: int, left: Sequence[Share]) -> Message:
    """A grant was taken back. stopped: the number of cancelled drawings. left: the grants that remain."""
    parts = [say("{token} is not shared with {grantee} any more.", token=token, grantee=grantee)]
    if stopped:
        parts.append(say("Drawings under way there are stopped."))
    if left:
        parts.append(say("It is still shared with {grantee}.", grantee=listing([share.grantee for share in left])))
    return Message(" ".join(parts), buttons=tuple(map(take_back, left[:4])))


def unshare_which(token: str, shares: Sequence[Share]) -> Message:
    """The avatar is not shared there but elsewhere: the person chooses a grant to take back."""
    head = say("{token} is not shared there. These can draw it:", token=token)
    return Message("\n".join([head, *map(line_of, shares)]), buttons=tuple(map(take_back, shares[:4])))
