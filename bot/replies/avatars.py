"""Texts about avatars: the list, one avatar's card, and its changes."""

from collections.abc import Sequence

from bot.language import marked, say
from bot.messages import Button, Message, Shown
from bot.replies import refusals, rights
from bot.replies.phrases import files, photos
from storage.errors import UserError
from storage.records import Avatar

_STATES = {
    "draft": marked("waiting for you to press Train"),
    "training": marked("in training"),
    "ready": marked("ready"),
    "failed": marked("training failed"),
}


def _line(avatar: Avatar, *more: str) -> str:
    return " · ".join([avatar.token, avatar.noun, *more])


def listed(own: Sequence[Avatar], shared: Sequence[tuple[Avatar, str]], default: str | None = None) -> Message:
    """The answer to /avatars.

    shared: each with its owner's name. default: the id of the avatar that is drawn when a prompt names nobody.
    """
    if not own and not shared:
        return refusals.refusal(UserError("no_avatars"))
    lines = []
    for avatar in own:
        preferred = [say("default")] if avatar.id == default else []
        lines.append(_line(avatar, say(_STATES[avatar.state]), *_likeness(avatar), *preferred))
    lines += [_line(avatar, say("shared with you by {name}", name=name)) for avatar, name in shared]
    ready = [avatar for avatar in (*own, *(avatar for avatar, _ in shared)) if avatar.state == "ready"]
    buttons = [Button(say("Imagine {token}", token=avatar.token), f"imagine:{avatar.id}") for avatar in ready[:4]]
    buttons += [Button(say("Change {token}", token=avatar.token), f"avatar:{avatar.id}") for avatar in own[:4]]
    pictures = tuple(picture for avatar in ready[:4] for picture in _sample(avatar))
    return Message("\n".join([say("Avatars you can use here:"), *lines]), pictures=pictures, buttons=tuple(buttons))


def _likeness(avatar: Avatar) -> list[str]:
    """The likeness of its samples, if it was measured."""
    likeness = avatar.details.get("likeness")
    return [] if likeness is None else [say("{percent} % alike", percent=round(100 * likeness))]


def _sample(avatar: Avatar) -> list[Shown]:
    return [first_picture(avatar, key) for key in avatar.details.get("samples", ())[:1]]


def avatar_card(avatar: Avatar, count: int, shares: Sequence[rights.Share], default: bool) -> Message:
    """One of the person's own avatars, with a button for each thing to do with it. count: the number of its photos."""
    lines = [_line(avatar, say(_STATES[avatar.state]), photos(count), *_likeness(avatar))]
    if default:
        lines.append(say("It is your default: I draw it when a prompt names nobody."))
    if avatar.learned_as != avatar.token:
        lines.append(
            say("It was trained as {word}; prompts for an exported file use that word.", word=avatar.learned_as)
        )
    lines += [rights.line_of(share) for share in shares] or [say("Nobody but you can draw it.")]
    buttons = []
    if avatar.state == "ready":
        buttons += [
            Button(say("Imagine"), f"imagine:{avatar.id}", "primary"),
            Button(say("Share here"), f"share:{avatar.id}"),
            *([] if default else [Button(say("Make it the default"), f"default:{avatar.id}")]),
            Button(say("Export"), f"export:{avatar.id}"),
        ]
    buttons += [Button(say("Rename"), f"rename:{avatar.id}"), Button(say("Delete"), f"delete:{avatar.id}", "danger")]
    buttons += [rights.take_back(share) for share in shares[:4]]
    return Message("\n".join(lines), pictures=tuple(_sample(avatar)), buttons=tuple(buttons), avatar=avatar.id)


def how_to_rename(avatar: Avatar) -> Message:
    """The answer to the Rename button in frontends that cannot fill in the person's input field."""
    command = f"/avatars {avatar.token} --rename "
    return Message(
        say("What should it be called? For example: {example}", example=f"{command}{avatar.token[:14]}b"),
        prompt=command,
    )


def renamed(avatar: Avatar, former: str) -> Message:
    """The avatar has another name."""
    text = say("{former} is now called {token}.", former=former, token=avatar.token)
    return Message(text, tone="good", avatar=avatar.id)


def preferred(avatar: Avatar) -> Message:
    """The avatar is the default."""
    text = say(
        "{token} is now your default. I draw it when a prompt names nobody: /imagine in a suit", token=avatar.token
    )
    return Message(text, tone="good", avatar=avatar.id)


def first_picture(avatar: Avatar, key: str) -> Shown:
    """A sample picture that the training drew."""
    return Shown(key, say("A first picture of {token}", token=avatar.token))


def how_to_imagine(avatar: Avatar) -> Message:
    """The answer to the Imagine button in frontends that cannot fill in the person's input field."""
    command = f"/imagine {avatar.token} {avatar.noun} "
    return Message(
        say("Tell me what to draw, for example: {example}", example=f"{command}in a suit"),
        prompt=command,
    )


def confirm_delete(avatar: Avatar, count: int) -> Message:
    """The question before an avatar is erased. count: the number of its photos."""
    text = say(
        "Erase {token} for good, with {photos}, what I learned and all its pictures? This can't be undone.",
        token=avatar.token,
        photos=photos(count),
    )
    buttons = (
        Button(say("Erase {token}", token=avatar.token), f"erase:{avatar.id}", "danger"),
        Button(say("Keep it"), f"keep:{avatar.id}"),
    )
    return Message(text, tone="warning", buttons=buttons)


def erased(avatar: Avatar, count: int) -> Message:
    """The receipt of an erasure. count: the number of files."""
    text = say(
        "{token} is erased, with its photos, pictures and training: {files} in all.",
        token=avatar.token,
        files=files(count),
    )
    return Message(text)


def kept(avatar: Avatar) -> Message:
    """The person decided against the erasure."""
    return Message(say("All right, {token} stays.", token=avatar.token))
