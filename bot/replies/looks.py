"""Texts about what a person in photos looks like: what was read, and the questions that correct it."""

from collections.abc import Mapping, Sequence

from bot.language import listing, marked, say, several
from bot.messages import Button, Message
from bot.replies.phrases import Facts
from storage import naming
from storage.looks import CHOICES, choice, hidden, is_sure, unsure
from storage.records import Avatar

CARTOON = marked("I'll draw you as a cartoon.")

_LABELS: Mapping[str, str] = {
    "hair_length": marked("Hair length"),
    "hair_colour": marked("Hair colour"),
    "hair_kind": marked("Hair type"),
    "facial_hair": marked("Beard"),
    "skin": marked("Skin"),
    "glasses": marked("Glasses"),
}

_CHOICES: Mapping[str, Mapping[str, str]] = {
    "hair_length": {
        "bald": marked("Bald"),
        "short": marked("Short"),
        "medium": marked("To the shoulders"),
        "long": marked("Long"),
    },
    "hair_colour": {
        "black": marked("Black"),
        "dark-brown": marked("Dark brown"),
        "brown": marked("Brown"),
        "blonde": marked("Blonde"),
        "red": marked("Red"),
        "grey": marked("Grey"),
    },
    "hair_kind": {
        "straight": marked("Straight"),
        "wavy": marked("Wavy"),
        "curly": marked("Curly"),
        "coily": marked("Tightly curled"),
    },
    "facial_hair": {
        "none": marked("No beard"),
        "moustache": marked("Moustache"),
        "light-beard": marked("Short beard"),
        "full-beard": marked("Full beard"),
    },
    "skin": {
        "1": marked("Very light"),
        "2": marked("Light"),
        "3": marked("Medium"),
        "4": marked("Tan"),
        "5": marked("Brown"),
        "6": marked("Dark"),
    },
    "glasses": {"no": marked("No glasses"), "yes": marked("With glasses")},
}
"""Labels of the buttons, by attribute and choice."""

_HAIR: Mapping[str, str] = {
    "short": marked("short"),
    "medium": marked("shoulder-length"),
    "long": marked("long"),
    "wavy": marked("wavy"),
    "curly": marked("curly"),
    "coily": marked("tightly curled"),
    "black": marked("black"),
    "dark-brown": marked("dark brown"),
    "brown": marked("brown"),
    "blonde": marked("blonde"),
    "red": marked("red"),
    "grey": marked("grey"),
}
"""Adjectives before "hair"."""

_FACIAL_HAIR: Mapping[str, str] = {
    "none": marked("no beard"),
    "moustache": marked("a moustache"),
    "light-beard": marked("a short beard"),
    "full-beard": marked("a full beard"),
}

_SKIN: Mapping[str, str] = {
    "1": marked("very light skin"),
    "2": marked("light skin"),
    "3": marked("medium skin"),
    "4": marked("tan skin"),
    "5": marked("brown skin"),
    "6": marked("dark skin"),
}

_GLASSES: Mapping[str, str] = {"no": marked("no glasses"), "yes": marked("glasses")}


def seen(looks: Facts, noun: str) -> str:
    """What was read and is certain, and what is asked: "I see short dark brown hair, a full beard, light skin, no
    glasses. I'll draw you as a cartoon."."""
    known = _known(looks, noun)
    return " ".join([*([say("I see {looks}.", looks=", ".join(known))] if known else []), say(CARTOON), *_asked(looks)])


def _known(looks: Facts, noun: str) -> list[str]:
    """What may be claimed, one phrase each."""
    said = []
    if choice(looks, "hair_length") == "bald":
        said += [say("a bald head")] if is_sure(looks, "hair_length") else []
    else:
        sure = [name for name in ("hair_length", "hair_kind", "hair_colour") if is_sure(looks, name)]
        adjectives = [say(_HAIR[word]) for name in sure if (word := choice(looks, name)) in _HAIR]
        said += [say("{adjectives} hair", adjectives=" ".join(adjectives))] if adjectives else []
    beard = choice(looks, "facial_hair")
    # Nobody expects a beard of a woman, so that there is none needs no word.
    if is_sure(looks, "facial_hair") and not (beard == "none" and noun in naming.WOMEN):
        said.append(say(_FACIAL_HAIR[beard]))
    said += [say(words[choice(looks, name)]) for name, words in _LAST if is_sure(looks, name)]
    return said


_LAST = (("skin", _SKIN), ("glasses", _GLASSES))


def _asked(looks: Facts) -> list[str]:
    names = unsure(looks)
    if not names:
        return []
    what = listing([say(_LABELS[name]) for name in names])
    return [
        several(
            "I'm not sure about one thing, please choose: {what}.",
            "I'm not sure about {count} things, please choose: {what}.",
            len(names),
            what=what,
        )
    ]


def buttons(avatar_id: str, looks: Facts) -> Sequence[Button]:
    """A button to correct each attribute; a question mark is behind those that are asked."""
    asked = unsure(looks)
    shown = [name for name in CHOICES if name not in hidden(looks)]
    return [
        Button(say(_LABELS[name]) + ("?" if name in asked else ""), f"look:{avatar_id}:{name}")
        for name in sorted(shown, key=lambda name: name not in asked)
    ]


def question(avatar: Avatar, looks: Facts, attribute: str) -> Message:
    """The choices for one attribute, in place of the message with the buttons."""
    now = choice(looks, attribute)
    known = is_sure(looks, attribute)
    choices = [
        Button(
            say(label),
            f"look:{avatar.id}:{attribute}={value}",
            "primary" if known and value == now else "plain",
        )
        for value, label in _CHOICES[attribute].items()
    ]
    text = say("{token}: {attribute}. Which is right?", token=avatar.token, attribute=say(_LABELS[attribute]))
    return Message(text, buttons=(*choices, Button(say("Back"), f"look:{avatar.id}:")), avatar=avatar.id)


def card(avatar: Avatar, looks: Facts) -> Message:
    """What will be drawn after a correction, with the buttons to continue."""
    known = ", ".join(_known(looks, avatar.noun))
    parts = [say("{token} gets {looks}.", token=avatar.token, looks=known)] if known else []
    text = " ".join([*parts, say(CARTOON), *_asked(looks)])
    train = say("Train {token}", token=avatar.token)
    return Message(text, tone="good", buttons=to_continue(avatar.id, train, looks), avatar=avatar.id)


def to_continue(avatar_id: str, train: str, looks: Facts | None) -> tuple[Button, ...]:
    """The buttons under a photo check. train: the label of the first. looks: what was read; None for nothing."""
    return (
        Button(train, f"train:{avatar_id}", "primary"),
        *(buttons(avatar_id, looks) if looks else ()),
        Button(say("Cancel"), f"discard:{avatar_id}"),
    )
