"""What only Telegram has to say."""

from bot import limits
from bot.messages import Button, Message
from bot.replies import CONSENT
from bot.replies.words import plural
from bot.table import COMMANDS

START = "Open our private chat, see what I can do"
"""What /start does, for Telegram's list of commands."""


def welcome(name: str) -> Message:
    """The answer to /start."""
    return Message(
        f"Hello {name}! I learn a person from {limits.PHOTOS_FEWEST} to {limits.PHOTOS_MOST} photos and then draw them "
        "in whatever you describe. Send me the photos as an album with a caption such as "
        f"{COMMANDS['train'].example}, or one by one. /help shows everything."
    )


def how_to(command: str) -> Message:
    """The answer to a link that leads to one command."""
    found = COMMANDS[command]
    photos = any(option.name == "photos" for option in found.options)
    album = " Send the photos as one album with that line as its caption, or one by one after it." if photos else ""
    return Message(f"{found.description}. For example: {found.example}{album}")


def in_private(command: str) -> Message:
    """Photos do not belong into a group: this goes with a link to the private chat."""
    return Message(f"Photos stay between you and me: please send /{command} in our private chat.")


def start_first() -> Message:
    """The answer is for one person only, who never opened the private chat; this goes with a link to it."""
    return Message("The answer is for you alone. Open our private chat once, press Start and send this again.")


OPEN = "Open our private chat"

ORIGINALS = "Originals"


def waiting(count: int, tray: str, album: bool) -> Message:
    """Photos that nobody has said anything about yet."""
    if album:
        text = f"{plural(count, 'photo')} here. Who is it? Reply to them with {COMMANDS['train'].example}"
    else:
        text = (
            f"{plural(count, 'photo')} so far. Send {limits.PHOTOS_FEWEST} to {limits.PHOTOS_MOST} of one person, "
            f"then press Done or send {COMMANDS['train'].example}"
        )
    done = () if album else (Button("Done", f"t.done:{tray}", "primary"),)
    return Message(text, buttons=(*done, Button("Forget them", f"t.drop:{tray}")))


def collecting(line: str, count: int, tray: str) -> Message:
    """The line is known, and photos are still to come."""
    got = f"{plural(count, 'photo')} so far" if count else "Now send me the photos"
    need = f"I need {limits.PHOTOS_FEWEST} to {limits.PHOTOS_MOST} of this one person. Press Done when that is all."
    done = (Button("Done", f"t.done:{tray}", "primary"),) if count else ()
    return Message(f"{line}: {got}. {need}", buttons=(*done, Button("Cancel", f"t.drop:{tray}")))


def consent(line: str, count: int, tray: str) -> Message:
    """The question before an album is taken in, since Telegram has no box to tick."""
    extra = count - limits.PHOTOS_MOST
    more = f" {limits.PHOTOS_MOST} are the most, so I leave the last {extra} out." if extra > 0 else ""
    return Message(
        f"{line}: {plural(count, 'photo')}.{more} One question before I look at them. {CONSENT}",
        buttons=(
            Button("They agreed: train", f"t.agree:{tray}", "primary"),
            Button("Cancel", f"t.drop:{tray}"),
        ),
    )


def kept(refused: Message, count: int) -> Message:
    """The line was refused; the photos need not be sent again."""
    kept = f"\nI still have your {plural(count, 'photo')}; send just the line again." if count else ""
    return Message(f"{refused.text}{kept}", tone=refused.tone)


def needs_more(count: int) -> str:
    """Done was pressed too early."""
    return f"{plural(count, 'photo')} so far, and I need {limits.PHOTOS_FEWEST} at least. Send some more first."


def needs_line(count: int) -> str:
    """Done was pressed, and it is still unknown who is on the photos."""
    return f"I have {plural(count, 'photo')}. Who is it? Send {COMMANDS['train'].example}"


def which() -> Message:
    """Several albums wait, and /train named none of them."""
    return Message("You sent me more than one album. Reply with this line to a photo of the one you mean.")


def too_late() -> Message:
    """A photo of an album that is being checked already."""
    return Message(
        "This photo came after its album was closed, so I left it out and kept nothing of it. "
        "To train with it, send the whole album again.",
        tone="warning",
    )


def no_picture() -> Message:
    """A file that is no picture."""
    return Message("I can only learn from pictures. Please send it as a photo or a picture file.", tone="warning")


def not_fetched() -> Message:
    """Telegram did not hand the photo over."""
    return Message("I could not fetch this photo from Telegram. Please send it once more.", tone="trouble")


TAKEN = "These photos are with me already."

GONE = "These photos are gone. Please send them again."


def dropped() -> Message:
    """Gathered photos were thrown away on request."""
    return Message("All right, I have erased these photos. Send new ones whenever you like.")


def expired(count: int) -> Message:
    """Gathered photos lay about too long."""
    return Message(f"I have erased the {plural(count, 'photo')} you sent, since nothing more came for a day.")


def no_command() -> Message:
    """Words without a command."""
    return Message(f"Tell me with a command, for example {COMMANDS['imagine'].example} (or /help for all of them).")


def moment() -> Message:
    """Stands where an answer comes within a moment."""
    return Message("Your answer comes at once.")


PICTURES = "Show the pictures"
"""The button under an answer whose pictures may not have got through."""

FILE_UNSEEN = "The line broke while I sent the file. If it is not there, send the command again."


def unsure() -> Message:
    """The line broke while a command was answered: the reply may be there or not, and it must not come twice."""
    return Message("The line broke while I answered. If there is no answer above, please send that once more.")
