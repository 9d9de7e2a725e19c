"""Errors that the user can fix: what went wrong and what to do next, by the code of the UserError."""

from collections.abc import Callable, Mapping

from bot.language import listing, marked, number, say
from bot.messages import Message
from bot.replies import account, operators, rights
from bot.replies.phrases import Facts
from bot.table import COMMANDS
from storage.errors import UserError

CONSENT = marked("The person in these photos is an adult and has agreed to having an avatar of them made and drawn.")
CONSENT_VERSION = "2"
"""Raise it with every change of CONSENT: the records keep the version that a person agreed to."""
DISK_FULL = marked("There is no space left on my disk. The operators have to free some; please try again later.")
PICTURE_GONE = marked("That picture was deleted. /imagine draws a new one.")


def _how_about(facts: Facts) -> str:
    return say("How about “{suggestion}”?", suggestion=facts["suggestion"])


def _size_shape(facts: Facts) -> str:
    shape = say("Give the size in pixels as width x height, two numbers with an x between them.")
    if not facts.get("sizes"):
        return shape
    # The last of the usual sizes shows best which number is which.
    return shape + " " + say("The base model draws --size {size}, for example.", size=facts["sizes"][-1])


def unknown_style(facts: Facts) -> str:
    """There is no such style; lists the styles that exist."""
    if not facts["styles"]:
        return say("There are no styles here. Leave out --style.")
    return say(
        "There is no style “{style}”. Available: {styles}.", style=facts["style"], styles=", ".join(facts["styles"])
    )


def _token_shape(facts: Facts) -> str:
    shape = say("An avatar's name has 2 to 16 lower-case letters and digits and starts with a letter.")
    return f"{shape} {_how_about(facts)}"


def _token_word(facts: Facts) -> str:
    taken = say("“{token}” is an English word, so every prompt that uses it would draw this person.", **facts)
    return f"{taken} {_how_about(facts)}"


def _token_noun(facts: Facts) -> str:
    held = say("“{token}” holds the word {noun}, so every {noun} would be drawn as this person.", **facts)
    return f"{held} {_how_about(facts)}"


def _token_taken(facts: Facts) -> str:
    token = facts["token"]
    parts = [
        say("You already have an avatar called {token}.", token=token),
        _how_about(facts) if facts.get("suggestion") else say("Pick another name."),
        say("To make it again, send /delete {token} first.", token=token),
    ]
    return " ".join(parts)


def _photos_few(facts: Facts) -> str:
    if not facts["count"]:
        return say("Add {fewest} to {most} photos of this one person, and send /train again.", **facts)
    return say(
        "I need {fewest} to {most} photos and got {count}. Add some from other days and angles, and send /train again.",
        **facts,
    )


def _unknown_command(facts: Facts) -> str:
    near = facts.get("near")
    unknown = say("I don't know /{name}.", name=facts["name"])
    return f"{unknown} " + (
        say("Did you mean /{near}?", near=near) if near else say("Send /help to see what I can do.")
    )


def _unknown_option(facts: Facts) -> str:
    options = [f"--{option.name}" for option in COMMANDS[facts["command"]].options if option.name != "photos"]
    unknown = say("/{command} has no option --{option}.", **facts)
    known = say("It takes {options}.", options=listing(options)) if options else say("It takes no options.")
    return f"{unknown} {known}"


def _missing_option(facts: Facts) -> str:
    command = COMMANDS[facts["command"]]
    description = next(option.description for option in command.options if option.name == facts["option"])
    return say(
        "/{command} still needs {option}: {description}. For example: {example}",
        command=command.name,
        option=facts["option"],
        description=say(description),
        example=command.example,
    )


def _no_avatar_named(facts: Facts) -> str:
    tokens: list[str] = list(facts["tokens"])
    if facts.get("near"):
        return say(
            "I don't know {word}. Did you mean {near}? Please spell the name exactly like that.",
            word=facts["word"],
            near=facts["near"],
        )
    few = listing(tokens[:8]) if len(tokens) <= 8 else say("{tokens} and more", tokens=", ".join(tokens[:8]))
    return say("Which avatar should I draw? Put its name in the prompt. You can use {tokens} here.", tokens=few)


def _prompt_long(facts: Facts) -> str:
    return say(
        "That is {length} characters, and I can read {most}. A sentence or two works best: who, wearing what, where.",
        length=number(facts["length"]),
        most=number(facts["most"]),
    )


def _lora_in_prompt(facts: Facts) -> str:
    """A tag such as <lora:inks:0.8>: how the same is said here."""
    known = say("I don't read {tag} in prompts. Leave it out.", tag=facts["tag"])
    if "styles" not in facts:  # of an engine, which a newer request was checked before
        return known
    styles, name = list(facts["styles"]), str(facts["name"]).lower()
    if name in styles:
        return f"{known} " + say("That style is drawn with --style {word}", word=f"{name}:{facts['weight']}")
    if styles:
        some = say("The styles here are {styles}, as in --style {first}:0.8", styles=listing(styles), first=styles[0])
        return f"{known} {some}"
    return f"{known} " + say("People are drawn by their names in the prompt, and there are no styles here.")


def _out_of_range(facts: Facts) -> str:
    return say(
        "{option} must be from {least} to {most}.",
        option=facts["option"],
        least=number(facts["least"]),
        most=number(facts["most"]),
    )


def _unknown_avatar(facts: Facts) -> str:
    unknown = say("You have no avatar called {token}.", token=facts["token"])
    tokens = facts.get("tokens")
    yours = say("Yours: {tokens}.", tokens=listing(list(tokens))) if tokens else say("Make one with /train.")
    return f"{unknown} {yours}"


REFUSALS: Mapping[str, Callable[[Facts], str]] = {
    "token_shape": _token_shape,
    "token_word": _token_word,
    "token_noun": _token_noun,
    "token_taken": _token_taken,
    "noun_shape": lambda facts: say("Say in one word what they are, letters only: /train mia7 woman, for example."),
    "minor": lambda facts: say(
        "I only make avatars of adults, so I can't train this one. Please choose somebody grown-up."
    ),
    "consent": lambda facts: say("Before I start, please tick the box that says: “{consent}”", consent=say(CONSENT)),
    "photos_few": _photos_few,
    "photos_many": lambda facts: say(
        "{most} photos are enough. Keep the {most} sharpest and most varied, and send /train again.", **facts
    ),
    "disk_full": lambda facts: say(DISK_FULL),
    "photo_empty": lambda facts: say(
        "Photo #{number} is an empty file. Please send it again or leave it out.", **facts
    ),
    "photo_large": lambda facts: say(
        "Photo #{number} is larger than {megabytes} MB. Please send a smaller copy; {pixels} pixels across are plenty.",
        pixels=number(2000),
        **facts,
    ),
    "prompt_empty": lambda facts: say(
        "What should I draw? For example: {example}", example=COMMANDS["imagine"].example
    ),
    "prompt_long": _prompt_long,
    "lora_in_prompt": _lora_in_prompt,
    "prompt_unreadable": lambda facts: say(
        "There is a character in the {option} that I can't read. Please type the text by hand.", **facts
    ),
    "out_of_range": _out_of_range,
    "style_shape": lambda facts: say(
        "A style's weight is a number from 0 to {most}, as in --style inks:0.6.", most=number(facts["most"])
    ),
    "not_a_number": lambda facts: say("--{option} needs a number, as in --{option} 2.", **facts),
    "unknown_command": _unknown_command,
    "unknown_option": _unknown_option,
    "missing_option": _missing_option,
    "too_many_words": lambda facts: say(
        "I don't know what to do with “{word}” there. The command looks like this: {example}", **facts
    ),
    "no_avatars": lambda facts: say(
        "You have no avatar yet. Add 5 to 10 photos of one person and send /train mia7 woman to make the first."
    ),
    "no_avatar_named": _no_avatar_named,
    "avatar_training": lambda facts: say(
        "{token} is still training. I'll tell you when it is ready; /status shows how far it is.", **facts
    ),
    "avatar_draft": lambda facts: say(
        "{token} is waiting for you: press Train under its photo check, and then I can draw it.", **facts
    ),
    "avatar_failed": lambda facts: say(
        "The training of {token} did not finish. Send /delete {token} and train it again.", **facts
    ),
    "unknown_look": lambda facts: say("This button is from an older version. Please send the command again."),
    "already_training": lambda facts: say("{token} is already training. /status shows how far it is.", **facts),
    "already_trained": lambda facts: say("{token} is already trained. Try /imagine {token} {noun}", **facts),
    "draft_unchecked": lambda facts: say("I'm still looking at the photos of {token}. One moment, please.", **facts),
    "unknown_avatar": _unknown_avatar,
    "avatar_gone": lambda facts: say("That avatar is gone. Start again with /train and new photos."),
    "unknown_style": unknown_style,
    "picture_gone": lambda facts: say(PICTURE_GONE),
    "missing_avatar": lambda facts: say("That avatar is gone. /avatars shows the ones you have."),
    "avatars_which": lambda facts: say("Name the avatar first, as in /avatars mia7 --rename mia8."),
    "size_shape": _size_shape,
    "missing_job": lambda facts: say("You have no such job. /status lists the ones under way."),
    "not_yours": lambda facts: say("Only the person who started this can do that."),
    "unknown_job": lambda facts: say("You have no such job. /status lists the ones under way."),
    "no_jobs": lambda facts: say("You have no jobs under way, so there is nothing to stop."),
    "job_over": lambda facts: say("That job is already over."),
    "too_many_jobs": lambda facts: say(
        "You have {active} jobs under way. Let some finish or /cancel one, then send this again.", **facts
    ),
    "unknown_action": lambda facts: say("This button is from an older version. Please send the command again."),
    "name_shape": lambda facts: say("Please pick a name of 1 to {most} letters.", **facts),
    "room_shape": lambda facts: say("A room's name has 1 to {most} letters, digits or hyphens.", **facts),
    "message_long": lambda facts: say(
        "That is too long. A message can have {most} characters.", most=number(facts["most"])
    ),
    "message_empty": lambda facts: say("Type a message first, or a command such as /imagine. /help shows them all."),
    "photos_loose": lambda facts: say("What should I do with these photos? To make an avatar: /train mia7 woman"),
    "upload_cut": lambda facts: say("The upload broke off. I have kept none of it; please send it again."),
    **rights.REFUSALS,
    **account.REFUSALS,
    **operators.REFUSALS,
}


def refusal(error: UserError) -> Message:
    """The answer to wrong input."""
    wording = REFUSALS.get(error.code)
    text = wording(error.facts) if wording else say("I can't do that. /help shows what I can do.")
    return Message(text, tone="warning")


def apology(error_id: str) -> Message:
    """The answer to a bug of ours. error_id: its id in the log."""
    text = say("Sorry, something broke on my side. Please try again; if it keeps happening, mention {id}.", id=error_id)
    return Message(text, tone="trouble")
