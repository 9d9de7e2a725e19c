"""Texts about the check of the photos."""

from collections.abc import Callable, Mapping, Sequence

from bot import limits
from bot.language import listing, say, several
from bot.messages import Button, Message, Progress, Verdict
from bot.replies import looks
from bot.replies.phrases import Facts, photos
from storage.records import Avatar, Job


def _with_size(text: str, facts: Facts) -> str:
    return f"{text} ({facts['width']} x {facts['height']})" if {"width", "height"} <= facts.keys() else text


def _several_faces(facts: Facts) -> str:
    match facts.get("faces", 0):
        case 2:
            return say("shows two faces")
        case 3:
            return say("shows three faces")
        case _:
            return say("shows several faces")


def _duplicate(facts: Facts) -> str:
    return say("is the same as #{number}", number=facts["of"]) if facts.get("of") else say("appears twice")


def _near_duplicate(facts: Facts) -> str:
    return (
        say("is almost the same as #{number}", number=facts["of"]) if facts.get("of") else say("has a near duplicate")
    )


_VERDICTS: Mapping[str, Callable[[Facts], str]] = {
    "empty": lambda facts: say("is an empty file"),
    "too_heavy": lambda facts: say("is too large a file"),
    "not_image": lambda facts: say("is not a picture"),
    "broken": lambda facts: say("is damaged and can't be opened"),
    "too_many_pixels": lambda facts: say("has far too many pixels"),
    "float_tiff": lambda facts: say("is a TIFF that I can't read; send it as JPEG or PNG"),
    "odd_tiff": lambda facts: say("is a TIFF that I can't read; send it as JPEG or PNG"),
    "unknown_colours": lambda facts: say("has colours that I can't read; send it as JPEG or PNG"),
    "animated": lambda facts: say("is an animation"),
    "too_small": lambda facts: _with_size(say("is too small"), facts),
    "aspect": lambda facts: say("is too long and narrow"),
    "no_face": lambda facts: say("shows no face that I can see"),
    "several_faces": _several_faces,
    "blurred": lambda facts: say("is blurred"),
    "too_dark": lambda facts: say("is too dark"),
    "duplicate": _duplicate,
    "soft": lambda facts: say("is a little soft"),
    "face_small": lambda facts: say("shows the face rather small"),
    "face_cut": lambda facts: say("cuts the face off at the edge"),
    "near_duplicate": _near_duplicate,
    "rotated": lambda facts: say("was turned upright"),
    "grayscale": lambda facts: say("has no colours"),
    "compressed": lambda facts: say("is heavily compressed"),
    "dark": lambda facts: say("is rather dark"),
    "drawn": lambda facts: say("looks drawn"),
    "low_resolution": lambda facts: _with_size(say("has a low resolution"), facts),
}


def verdict(number: int, entry: Facts) -> Verdict:
    """One photo's verdict from the inspection's `{"ok", "codes", "facts"}`."""
    facts = entry.get("facts") or {}
    said = [_VERDICTS[code](facts) for code in entry.get("codes", ()) if code in _VERDICTS]
    if entry["ok"]:
        return Verdict(number, "warning" if said else "good", listing(said) if said else say("is good"))
    return Verdict(number, "trouble", listing(said) if said else say("can't be used"))


def checking(avatar: Avatar, count: int, job: Job) -> Message:
    """The first answer to /train."""
    return Message(
        say("Thank you! I'm looking at the {count} photos of {token}.", count=count, token=avatar.token),
        job=job.id,
        progress=Progress(say("Checking the photos")),
        buttons=(Button(say("Cancel"), f"cancel:{job.id}"),),
    )


def checked(avatar: Avatar | None, avatar_id: str, result: Facts, job_id: str) -> Message:
    """The result of the inspection: which photos are good, which are not and why, what becomes of them, and the buttons
    to continue.

    avatar: None if it is gone, because too few photos are good. result: the job's, with the verdicts and what the base
    model makes of the album.
    """
    entries = result["verdicts"]
    verdicts = tuple(verdict(number, entry) for number, entry in enumerate(entries, start=1))
    bad = [f"#{one.number} {one.text}" for one in verdicts if one.tone == "trouble"]
    good = len(verdicts) - len(bad)
    if good < limits.PHOTOS_FEWEST or avatar is None:
        return _too_few(verdicts, bad, job_id)
    if bad:
        text = say("{photos}: {good} good, {why}.", photos=photos(len(verdicts)), good=good, why=listing(bad))
        train = say("Train with the {good} good ones", good=good)
    else:
        hints = [f"#{one.number} {one.text}" for one in verdicts if one.tone == "warning"]
        text = say("{photos}, all good.", photos=photos(len(verdicts)))
        text += " " + say("Hint: {hints}.", hints=listing(hints)) if hints else ""
        train = say("Train {token}", token=avatar.token)
    parts = [text, *_left_out(result.get("left_out") or {}), *_known_token(avatar, result.get("token") or {})]
    # A correction replaces what was read.
    read = avatar.details.get("looks") or result.get("looks")
    if result.get("unknown_noun"):
        parts.append(say("This bot draws cartoon people. Train anyway?"))
        train = say("Train anyway")
    elif read:
        parts.append(looks.seen(read, avatar.noun))
    buttons = looks.to_continue(avatar_id, train, read)
    return Message(" ".join(parts), tone="good", job=job_id, verdicts=verdicts, buttons=buttons)


def _known_token(avatar: Avatar, token: Facts) -> list[str]:
    """The base model knows words within the avatar's name. token: {"known", "proposal"}, or nothing."""
    if not token.get("known"):
        return []
    said = [
        say(
            "The name {token} holds what I already know ({words}), which mixes into the pictures.",
            token=avatar.token,
            words=listing(list(token["known"])),
        )
    ]
    if token.get("proposal"):
        said.append(
            say("{proposal} works better: /train {proposal} {noun}.", proposal=token["proposal"], noun=avatar.noun)
        )
    return said


def _left_out(counts: Facts) -> list[str]:
    """Photos and drawings do not mix: which of them are not used. counts: by "drawings" or "photos"."""
    said = []
    if counts.get("drawings"):
        said.append(
            several(
                "I leave out the drawing among the photos.",
                "I leave out the {count} drawings among the photos.",
                counts["drawings"],
            )
        )
    if counts.get("photos"):
        said.append(
            several(
                "I learn the drawings and leave out the photo among them.",
                "I learn the drawings and leave out the {count} photos among them.",
                counts["photos"],
            )
        )
    return said


def _too_few(verdicts: Sequence[Verdict], bad: Sequence[str], job_id: str) -> Message:
    good = len(verdicts) - len(bad)
    count, why = photos(len(verdicts)), listing(bad) if bad else ""
    parts = [
        say("{photos}, but only {good} that I can learn from: {why}.", photos=count, good=good, why=why)
        if good
        else say("{photos}, but none that I can learn from: {why}.", photos=count, why=why),
        several(
            "Please replace it or add {missing} more, sharp and with one face, then send /train again.",
            "Please replace them or add {missing} more, sharp and with one face, then send /train again.",
            len(bad),
            missing=limits.PHOTOS_FEWEST - good,
        ),
        say("I have kept nothing."),
    ]
    return Message(" ".join(parts), tone="warning", job=job_id, verdicts=tuple(verdicts))


def discarded(token: str) -> Message:
    """The draft of an avatar was dropped before training."""
    return Message(say("All right, I have erased the photos of {token}. Send /train whenever you like.", token=token))
