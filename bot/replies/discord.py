"""What only Discord has to say."""

from textwrap import shorten

from bot.language import marked, say
from bot.messages import Message
from bot.table import COMMANDS

SHOW = marked("Show me")
"""The button under a notice that only its person can open."""
POST_HERE = marked("Post here")
"""The button that shows private pictures to everybody in the channel."""

EDIT = marked("Edit prompt")
"""The button that opens the form of /imagine with what was asked for."""


LABELS = {
    "token": marked("Token"),
    "noun": marked("Noun"),
    "photos": marked("Photos"),
    "consent": marked("Consent"),
}
"""What stands over the fields of a form, by the option they fill."""


def label(option: str) -> str:
    """What stands over a field of a form."""
    return say(LABELS[option]) if option in LABELS else option.replace("_", " ").capitalize()


def job(job_id: str) -> str:
    """The name of a job, in small letters under its messages."""
    return say("job {job}", job=job_id)


def form_title(command: str) -> str:
    """The heading of the form that a command opens; Discord cuts off after 45 characters."""
    return shorten(say(COMMANDS[command].description), 45, placeholder="…")


def waiting_for_you(job_id: str) -> Message:
    """Said in front of everybody, in place of an answer that only its person may see."""
    return Message(say("Your answer is ready, and only you can open it."), job=job_id)


def followed_below() -> Message:
    """Said to the one person; how far it is stands in a message for all."""
    return Message(say("It is on its way. I'll show the progress in this channel."))


def followed_in_private() -> Message:
    """How far it is stands in the private chat, since the bot cannot write here."""
    return Message(say("It is on its way. I can't write here, so I'll show the progress in our private chat."))


def followed_nowhere() -> Message:
    """Neither the room nor the private chat is open to the bot."""
    text = say(
        "It is on its way, but I can't write to you here or in a private chat. /status shows the progress; "
        "allow messages from this app to get the result."
    )
    return Message(text, tone="warning")


def files_kept(shown: bool) -> str:
    """In place of files that Discord found too large for the channel. shown: there is a button that tries again."""
    if shown:
        return say(
            "The files are too large for this channel. I have kept them, and [{show}] tries once more.", show=say(SHOW)
        )
    return say("The files are too large for this channel. I have kept them: send that again in another channel.")


def unanswered() -> Message:
    """Said in front of everybody to the one person whose answer Discord took neither there nor in private."""
    text = say("I could not show you my answer. Please send that again, or allow private messages from this app.")
    return Message(text, tone="warning")


def interrupted() -> Message:
    """The process ended between a command and its answer."""
    return Message(
        say("I was restarted while I was working on this, and it was lost. Please send it again."), tone="warning"
    )


def went_on() -> Message:
    """The process ended between a command and its answer, but not before the job was written down."""
    return Message(say("I was restarted in the meantime, but it is on its way."))


def posted() -> Message:
    """Something was put into the channel, so that everybody sees it."""
    return Message(say("Posted for everybody here."))


def posted_before() -> Message:
    """The button was pressed twice."""
    return Message(say("That is already posted here."))


def not_posted() -> Message:
    """Discord did not take what was to be posted."""
    text = say("I could not post it here. If I may send messages and files in this channel, press the button again.")
    return Message(text, tone="warning")


def pictures_gone() -> Message:
    """The pictures were erased since."""
    return Message(say("These pictures have been erased. /imagine draws new ones."), tone="warning")


def no_token() -> str:
    """Said to whoever starts the bot without its token."""
    return say("set AVATAR_DISCORD_TOKEN to the bot's token from Discord's developer portal")


def wrong_token() -> str:
    """Said to whoever starts the bot with a token that Discord does not know."""
    return say(
        "Discord does not accept AVATAR_DISCORD_TOKEN; reset the token in the developer portal and set the new one"
    )
