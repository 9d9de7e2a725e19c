"""Texts for Telegram only."""

from bot import limits
from bot.language import marked, say, several
from bot.messages import Button, Message
from bot.replies.phrases import photos
from bot.replies.refusals import CONSENT
from bot.table import COMMANDS

START = marked("Open our private chat and see what I can do")
"""The description of /start in Telegram's list of commands."""
OPEN = marked("Open our private chat")
ORIGINALS = marked("Originals")
TAKEN = marked("I already have these photos.")
GONE = marked("These photos are gone. Please send them again.")


def welcome(name: str) -> Message:
    """The answer to /start."""
    return Message(
        say(
            "Hello {name}! Show me {fewest} to {most} photos of a person, and I'll draw them in whatever you "
            "describe. Send the photos as an album with a caption such as {example}, or one by one. /help shows "
            "everything.",
            name=name,
            fewest=limits.PHOTOS_FEWEST,
            most=limits.PHOTOS_MOST,
            example=COMMANDS["train"].example,
        )
    )


def how_to(command: str) -> Message:
    """The answer to a deep link to one command."""
    found = COMMANDS[command]
    parts = [say("{description}. For example: {example}", description=say(found.description), example=found.example)]
    if any(option.name == "photos" for option in found.options):
        parts.append(say("Send the photos as one album with that line as its caption, or one by one after it."))
    return Message(" ".join(parts))


def in_private(command: str) -> Message:
    """Photos are not taken in groups. Sent with a link to the private chat."""
    return Message(say("Photos stay between you and me: please send /{command} in our private chat.", command=command))


def start_first() -> Message:
    """The answer is private, and the person has not opened the private chat yet. Sent with a link to it."""
    return Message(say("The answer is for you alone. Open our private chat once, press Start and send this again."))


def _done(tray: str) -> Button:
    return Button(say("Done"), f"t.done:{tray}", "primary")


def waiting(count: int, tray: str, album: bool) -> Message:
    """Photos have come without a command. album: they are one album."""
    example = COMMANDS["train"].example
    if album:
        text = say("{photos}. Who is it? Reply to them with {example}", photos=photos(count), example=example)
    else:
        text = say(
            "{photos} so far. Send {fewest} to {most} of one person, then press Done or send {example}",
            photos=photos(count),
            fewest=limits.PHOTOS_FEWEST,
            most=limits.PHOTOS_MOST,
            example=example,
        )
    return Message(text, buttons=(*(() if album else (_done(tray),)), Button(say("Forget them"), f"t.drop:{tray}")))


def collecting(line: str, count: int, tray: str) -> Message:
    """The command has come, and more photos are needed."""
    got = say("{photos} so far.", photos=photos(count)) if count else say("Now send me the photos.")
    need = say(
        "I need {fewest} to {most} of this one person. Press Done when that is all.",
        fewest=limits.PHOTOS_FEWEST,
        most=limits.PHOTOS_MOST,
    )
    done = (_done(tray),) if count else ()
    return Message(f"{line}: {got} {need}", buttons=(*done, Button(say("Cancel"), f"t.drop:{tray}")))


def consent(line: str, count: int, tray: str) -> Message:
    """The question for consent, which Telegram has no checkbox for."""
    extra = count - limits.PHOTOS_MOST
    parts = [f"{line}: {photos(count)}."]
    if extra > 0:
        parts.append(
            say("{most} is the most I can use, so I leave out the last {extra}.", most=limits.PHOTOS_MOST, extra=extra)
        )
    parts += [say("One question before I look at them."), say(CONSENT)]
    return Message(
        " ".join(parts),
        buttons=(
            Button(say("They agreed: train"), f"t.agree:{tray}", "primary"),
            Button(say("Cancel"), f"t.drop:{tray}"),
        ),
    )


def kept(refused: Message, count: int) -> Message:
    """The command was refused; the photos need not be sent again."""
    if not count:
        return Message(refused.text, tone=refused.tone)
    still = several(
        "I still have your {count} photo; just send the line again.",
        "I still have your {count} photos; just send the line again.",
        count,
    )
    return Message(f"{refused.text}\n{still}", tone=refused.tone)


def needs_more(count: int) -> str:
    """Done was pressed with too few photos."""
    return say(
        "{photos} so far, and I need at least {fewest}. Send some more first.",
        photos=photos(count),
        fewest=limits.PHOTOS_FEWEST,
    )


def needs_line(count: int) -> str:
    """Done was pressed before a command came."""
    return say("I have {photos}. Who is it? Send {example}", photos=photos(count), example=COMMANDS["train"].example)


def which() -> Message:
    """Several albums are waiting, and /train is a reply to none of them."""
    return Message(say("You sent me more than one album. Reply with this line to a photo of the one you mean."))


def too_late() -> Message:
    """A photo arrived after its album was closed."""
    text = say(
        "This photo came after its album was closed, so I left it out and did not keep it. To train with it, "
        "send the whole album again."
    )
    return Message(text, tone="warning")


def no_picture() -> Message:
    """A file that is no picture."""
    return Message(say("I can only learn from pictures. Please send it as a photo or a picture file."), tone="warning")


def not_fetched() -> Message:
    """The photo could not be downloaded from Telegram."""
    return Message(say("I could not fetch this photo from Telegram. Please send it once more."), tone="trouble")


def dropped() -> Message:
    """Photos without a command were erased at the person's request."""
    return Message(say("All right, I have erased these photos. Send new ones whenever you like."))


def expired(count: int) -> Message:
    """Photos without a command were erased after a day."""
    return Message(
        several(
            "I have erased the {count} photo you sent, because nothing more came for a day.",
            "I have erased the {count} photos you sent, because nothing more came for a day.",
            count,
        )
    )


def no_command() -> Message:
    """A text without a command."""
    return Message(
        say(
            "Please use a command, for example {example} (or /help for all of them).",
            example=COMMANDS["imagine"].example,
        )
    )


def nobody() -> Message:
    """A command was sent as a group or channel."""
    return Message(
        say(
            "You are writing as the group or a channel, but a command needs a person. Please send it again from "
            "your own account."
        )
    )


def moment() -> Message:
    """The placeholder that the answer replaces within a moment."""
    return Message(say("Your answer is coming."))


PICTURES = marked("Show the pictures")
"""The button under an answer whose pictures may not have arrived."""

FILE_UNSEEN = marked("The connection broke while I was sending the file. If it is not there, send the command again.")


def unsure() -> Message:
    """The connection broke while a command was answered: the reply may have arrived, and must not be sent twice."""
    return Message(
        say("The connection broke while I was answering. If there is no answer above, please send that once more.")
    )
