"""Texts for Discord only."""

from textwrap import shorten

from bot.language import marked, say
from bot.messages import Message
from bot.table import COMMANDS

SHOW = marked("Show me")
"""The button under a public notice. It opens the answer for its person alone."""
POST_HERE = marked("Post here")
"""The button that shows private pictures to everybody in the channel."""

EDIT = marked("Edit prompt")
"""The button that opens the form of /imagine, filled in with the job's options."""


LABELS = {
    "token": marked("Token"),
    "noun": marked("Noun"),
    "photos": marked("Photos"),
    "consent": marked("Consent"),
}
"""The labels of a form's fields, by option."""


def label(option: str) -> str:
    """The label of a form's field."""
    return say(LABELS[option]) if option in LABELS else option.replace("_", " ").capitalize()


def job(job_id: str) -> str:
    """A job's name, shown in small print under its messages."""
    return say("job {job}", job=job_id)


def form_title(command: str) -> str:
    """The title of a command's form, within Discord's 45 characters."""
    return shorten(say(COMMANDS[command].description), 45, placeholder="…")


def waiting_for_you(job_id: str) -> Message:
    """The public notice for an answer that only its person may see."""
    return Message(say("Your answer is ready, and only you can open it."), job=job_id)


def followed_below() -> Message:
    """Private reply: the progress is shown in a public message."""
    return Message(say("It is on its way. I'll show the progress in this channel."))


def followed_in_private() -> Message:
    """Private reply: the progress is shown in the private chat, since the bot cannot write here."""
    return Message(say("It is on its way. I can't write here, so I'll show the progress in our private chat."))


def followed_nowhere() -> Message:
    """Private reply: the bot can write neither in the room nor in the private chat."""
    text = say(
        "It is on its way, but I can't write to you here or in a private chat. /status shows the progress; "
        "allow messages from this app to get the result."
    )
    return Message(text, tone="warning")


def files_kept(shown: bool) -> str:
    """Replaces files that Discord found too large for the channel. shown: there is a button that tries again."""
    if shown:
        return say(
            "The files are too large for this channel. I have kept them, and [{show}] tries once more.", show=say(SHOW)
        )
    return say("The files are too large for this channel. I have kept them: send that again in another channel.")


def unanswered() -> Message:
    """Public notice to a person whose answer Discord accepted neither in the channel nor in private."""
    text = say("I could not show you my answer. Please send that again, or allow private messages from this app.")
    return Message(text, tone="warning")


def interrupted() -> Message:
    """The process died before it answered the command, and no job was created."""
    return Message(
        say("I was restarted while I was working on this, and it was lost. Please send it again."), tone="warning"
    )


def went_on() -> Message:
    """The process died before it answered the command, but the job was created."""
    return Message(say("I was restarted in the meantime, but it is on its way."))


def posted() -> Message:
    """Private reply: the message was posted in the channel."""
    return Message(say("Posted for everybody here."))


def posted_before() -> Message:
    """The button was pressed twice."""
    return Message(say("That is already posted here."))


def not_posted() -> Message:
    """Discord refused the post."""
    text = say("I could not post it here. If I may send messages and files in this channel, press the button again.")
    return Message(text, tone="warning")


def pictures_gone() -> Message:
    """The pictures were erased."""
    return Message(say("These pictures have been erased. /imagine draws new ones."), tone="warning")


def no_token() -> str:
    """The error when the bot is started without a token."""
    return say("set AVATAR_DISCORD_TOKEN to the bot's token from Discord's developer portal")


def wrong_token() -> str:
    """The error when Discord refuses the bot's token."""
    return say(
        "Discord does not accept AVATAR_DISCORD_TOKEN; reset the token in the developer portal and set the new one"
    )
