"""What is said about a person's own data: what is kept, joining two platforms, and erasing everything."""

from collections.abc import Callable, Mapping, Sequence

from bot.messages import Button, File, Message
from bot.replies.words import Facts, listing, plural
from storage.records import Avatar, User

REFUSALS: Mapping[str, Callable[[Facts], str]] = {
    "link_code": lambda facts: (
        "That code is unknown, used or older than ten minutes. Send /link on the other platform for a new one."
    ),
    "link_self": lambda facts: "That code is your own. Send it on the other platform, where I don't know you yet.",
    "link_same_platform": lambda facts: (
        f"Both of you are on {facts['platform']} already. I join one person on two platforms, not two people on one."
    ),
    "forgotten": lambda facts: "You asked me to forget you in the meantime, so I have kept nothing of this either.",
    "banned": lambda facts: (
        "An operator of this bot has banned you. What I keep of you is still yours: /mydata, /export, /delete, /forget."
    ),
}

PRIVACY = (
    "What I keep about you, and how to be rid of it.\n"
    "Photos: only those you send with /train. I learn from them and show them to nobody, and they stay until you erase "
    "the avatar.\n"
    "Avatars: the name, what was learned, the sample pictures and your consent stay until /delete or /forget.\n"
    "Pictures: with the prompt and seed, until the avatar they show is erased or you send /forget.\n"
    "Requests: what you asked me to do, and when, until /forget.\n"
    "You: your name and id on this platform, and whom you share with, until /forget.\n"
    "Where: on the machine of whoever runs this bot, in its database and folder. Nothing goes to anybody else, except "
    "that answers pass through the platform you read this on, which keeps what it keeps.\n"
    "Operators see figures and job numbers; whoever runs the machine could open the files.\n"
    "Gone: /delete mia7 erases an avatar with photos, training and pictures; /forget erases everything. What stays "
    "then is a fingerprint of your account that names nobody: for a day if you drew or trained, so that daily limits "
    "hold, and for as long as a ban lasts.\n"
    "Yours: /mydata shows it, /export hands out an avatar's file."
)


def privacy() -> Message:
    """The answer to /privacy."""
    return Message(PRIVACY, buttons=(Button("What you keep of me", "mydata"), Button("Forget me", "forget", "danger")))


def mydata(accounts: Sequence[User], counts: Mapping[str, int], document: str) -> Message:
    """The answer to /mydata: the counts in words, and everything as JSON."""
    places = listing([f"{one.name} on {one.platform}" for one in accounts])
    what = [
        plural(counts["avatars"], "avatar"),
        plural(counts["photos"], "photo"),
        plural(counts["pictures"], "picture"),
        plural(counts["jobs"], "request"),
    ]
    text = f"I know you as {places}. I keep {listing(what)} of yours"
    if counts["chat_lines"]:
        text += f", and {plural(counts['chat_lines'], 'line')} you wrote in the chat"
    text += (
        f". You share {plural(counts['grants_given'], 'time')} and others share with you "
        f"{plural(counts['grants_received'], 'time')}. The file lists all of it."
    )
    return Message(
        text,
        files=(File("mydata.json", "Everything I keep about you", content=document),),
        buttons=(Button("Forget me", "forget", "danger"),),
    )


def exported(avatar: Avatar, method: str, key: str) -> Message:
    """The answer to /export, with the file."""
    how = (
        "It is a LoRA that plain diffusers reads: pipeline.load_lora_weights(folder, weight_name=name). "
        if method == "lora"
        else "It is the difference to the base model, which this project's engine reads. "
    )
    return Message(
        f"This is what I learned of {avatar.token}. {how}Prompts need the words “{avatar.learned_as} {avatar.noun}”. "
        "Whoever has this file can draw the person, so keep it well.",
        tone="good",
        files=(File(f"{avatar.token}.safetensors", f"What I learned of {avatar.token}", key=key),),
        avatar=avatar.id,
    )


def file_large(file: File, most: int) -> str:
    """In place of a file with more than `most` bytes."""
    return (
        f"{file.name} has more than the {most // 1_000_000} MB that this chat takes. Whoever runs me can hand it out."
    )


def file_gone(file: File) -> str:
    """In place of a file that was erased since."""
    return f"{file.name} is erased."


def confirm_forget(user_id: str, counts: Mapping[str, int], platforms: Sequence[str]) -> Message:
    """The one question before everything goes."""
    where = f" This is about you on {listing(platforms)}." if len(platforms) > 1 else ""
    buttons = [Button("Erase everything", f"forget-all:{user_id}", "danger")]
    if "chat" in platforms:
        buttons += [Button("Erase everything and my chat lines", f"forget-lines:{user_id}", "danger")]
    return Message(
        f"Forget you for good? {plural(counts['avatars'], 'avatar')}, {plural(counts['photos'], 'photo')}, "
        f"{plural(counts['pictures'], 'picture')} and {plural(counts['jobs'], 'request')} go, with all that I learned, "
        f"all sharing and your name.{where} This can't be undone.",
        tone="warning",
        buttons=(*buttons, Button("Keep it all", f"forget-not:{user_id}")),
    )


def forgotten(counts: Mapping[str, int], files: int, receipt: str) -> Message:
    """The receipt."""
    what = [
        plural(counts["avatars"], "avatar"),
        plural(counts["photos"], "photo"),
        plural(counts["pictures"], "picture"),
        plural(counts["jobs"], "request"),
        plural(counts["grants"], "permission"),
        *([plural(counts["lines"], "chat line")] if "lines" in counts else []),
    ]
    return Message(
        f"You are forgotten. Erased: {listing(what)}; {plural(files, 'file')} in all. Receipt {receipt}. "
        "If you write to me again, we meet for the first time.",
        tone="good",
    )


def not_forgotten() -> Message:
    """The person thought better of it."""
    return Message("All right, everything stays as it is.")


def link_code(code: str) -> Message:
    """The answer to /link."""
    return Message(
        f"Send this to me on the other platform within ten minutes: /link {code}\n"
        "It works once. Give it to nobody: whoever sends it shares all your avatars with you, and you theirs."
    )


def linked(user: User, here: User, renamed: Sequence[tuple[str, str]]) -> Message:
    """The answer to /link with a code."""
    names = listing([f"{old} is called {new} now" for old, new in renamed]) if renamed else ""
    text = f"Done: {here.name} here and {user.name} on {user.platform} are one person to me, with all avatars of both."
    return Message(text + (f" You had two of the same name, so {names}." if names else ""), tone="good")
