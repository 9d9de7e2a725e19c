"""Texts about a person's data: what is kept, linking two platforms, and erasing everything."""

from collections.abc import Callable, Mapping, Sequence

from bot.language import listing, marked, number, say
from bot.messages import Button, File, Message
from bot.programs import PROGRAMS
from bot.replies.phrases import Facts, avatars, chat_lines, files, permissions, photos, pictures, requests, times
from storage.records import Avatar, User

REFUSALS: Mapping[str, Callable[[Facts], str]] = {
    "link_code": lambda facts: say(
        "That code is unknown, used or older than ten minutes. Send /link on the other platform for a new one."
    ),
    "link_self": lambda facts: say("That code is your own. Send it on the other platform, where I don't know you yet."),
    "link_same_platform": lambda facts: say(
        "You both have accounts on {platform}. I link one person on two platforms, not two people on one.", **facts
    ),
    "forgotten": lambda facts: say("You have asked me to forget you in the meantime, so I have not kept this either."),
    "banned": lambda facts: say(
        "An operator of this bot has banned you. What I keep about you is still yours: /mydata, /export, "
        "/delete, /forget."
    ),
}

PRIVACY = (
    marked("What I keep about you, and how to get rid of it."),
    marked(
        "Photos: only the ones you send with /train. I learn from them, show them to nobody and keep them "
        "until you erase the avatar."
    ),
    marked(
        "Avatars: name, looks (such as hair and glasses), training, sample pictures and your consent, until /delete or "
        "/forget."
    ),
    marked("Pictures: with the prompt and seed, until the avatar they show is erased or you send /forget."),
    marked("Requests: what you asked me to do, when and in which language, until /forget."),
    marked("You: your name and id on this platform, and who you share with, until /forget."),
    marked(
        "Where: on the machine that runs this bot, in its database and folder. Nothing goes to anybody else, "
        "but my answers pass through the platform you read this on, which may keep copies of its own."
    ),
    marked("Operators see figures and job numbers. The person who runs the machine could open the files."),
    marked(
        "Erasing: /delete mia7 erases an avatar with its photos, training and pictures; /forget erases "
        "everything. Only an anonymous fingerprint of your account stays: for a day if you drew or trained, "
        "so that daily limits hold, and for as long as a ban lasts."
    ),
    marked("Your data: /mydata shows it, /export gives you an avatar's file."),
)


def _forget_me() -> Button:
    return Button(say("Forget me"), "forget", "danger")


def privacy() -> Message:
    """The answer to /privacy."""
    return Message(
        "\n".join(map(say, PRIVACY)), buttons=(Button(say("What you keep about me"), "mydata"), _forget_me())
    )


def mydata(accounts: Sequence[User], counts: Mapping[str, int], document: str) -> Message:
    """The answer to /mydata: the counts, and a file with everything as JSON."""
    known = listing([say("{name} on {platform}", name=one.name, platform=one.platform) for one in accounts])
    kept = [*_counted(counts), *([chat_lines(counts["chat_lines"])] if counts["chat_lines"] else [])]
    parts = [
        say("I know you as {accounts}.", accounts=known),
        say("I keep {what} of yours.", what=listing(kept)),
        say(
            "You have shared {given}, and others have shared with you {received}.",
            given=times(counts["grants_given"]),
            received=times(counts["grants_received"]),
        ),
        say("The file lists all of it."),
    ]
    return Message(
        " ".join(parts),
        files=(File("mydata.json", say("Everything I keep about you"), content=document),),
        buttons=(_forget_me(),),
    )


def _counted(counts: Mapping[str, int]) -> list[str]:
    return [
        avatars(counts["avatars"]),
        photos(counts["photos"]),
        pictures(counts["pictures"]),
        requests(counts["jobs"]),
    ]


def exported(avatar: Avatar, method: str, key: str) -> Message:
    """The answer to /export, with the file."""
    how = (
        say("It is a LoRA that diffusers can load: pipeline.load_lora_weights(folder, weight_name=name).")
        if method == "lora"
        else say("It is the difference from the base model, which this project's engine can load.")
    )
    learned = say("What I learned of {token}", token=avatar.token)
    parts = [
        say("This is what I learned of {token}.", token=avatar.token),
        how,
        say("Prompts need the words “{words}”.", words=f"{avatar.learned_as} {avatar.noun}"),
        say("Anybody who has this file can draw the person, so keep it safe."),
    ]
    return Message(
        " ".join(parts),
        tone="good",
        files=(File(f"{avatar.token}.safetensors", learned, key=key),),
        avatar=avatar.id,
    )


def export_for_what(avatar: Avatar, programs: Sequence[str]) -> Message:
    """The answer to /export without a program: the programs whose files there are."""
    return Message(
        say("Which program should draw {token}?", token=avatar.token),
        buttons=tuple(Button(PROGRAMS[program][0], f"export-{program}:{avatar.id}") for program in programs),
        avatar=avatar.id,
    )


def exported_for(avatar: Avatar, program: str, key: str) -> Message:
    """The answer to /export for a program, with the file."""
    prompt, file = f"{avatar.learned_as} {avatar.noun}", f"{avatar.token}-{program}.safetensors"
    how = {
        "webui": lambda: say(
            "Put the file into models/Lora and write <lora:{name}:1> {words} into the prompt.",
            name=f"{avatar.token}-{program}",
            words=prompt,
        ),
        "comfyui": lambda: say(
            "Put the file into models/loras, choose it in a “Load LoRA” node and write {words} into the prompt.",
            words=prompt,
        ),
        "diffusers": lambda: say(
            "Load it with pipeline.load_lora_weights(folder, weight_name={name}) and write {words} into the prompt.",
            name=f'"{file}"',
            words=prompt,
        ),
    }[program]()
    parts = [
        say("This is what I learned of {token}, for {program}.", token=avatar.token, program=PROGRAMS[program][0]),
        how,
        say("It needs the base model that it was learned on."),
        say("Anybody who has this file can draw the person, so keep it safe."),
    ]
    learned = say("What I learned of {token}", token=avatar.token)
    return Message(" ".join(parts), tone="good", files=(File(file, learned, key=key),), avatar=avatar.id)


def file_large(file: File, most: int) -> str:
    """Replaces a file that has more than `most` bytes."""
    return say(
        "{file} is larger than the {megabytes} MB that this chat accepts. The person who runs me can give it to you.",
        file=file.name,
        megabytes=number(most // 1_000_000),
    )


def file_gone(file: File) -> str:
    """Replaces a file that was erased."""
    return say("{file} has been erased.", file=file.name)


def confirm_forget(user_id: str, counts: Mapping[str, int], platforms: Sequence[str]) -> Message:
    """The question before everything is erased."""
    buttons = [Button(say("Erase everything"), f"forget-all:{user_id}", "danger")]
    if "chat" in platforms:
        buttons += [Button(say("Erase everything and my chat lines"), f"forget-lines:{user_id}", "danger")]
    parts = [
        say("Forget you for good?"),
        say("This erases {what}, everything I learned, all sharing and your name.", what=listing(_counted(counts))),
        *([say("This covers you on {platforms}.", platforms=listing(platforms))] if len(platforms) > 1 else []),
        say("This can't be undone."),
    ]
    return Message(
        " ".join(parts), tone="warning", buttons=(*buttons, Button(say("Keep it all"), f"forget-not:{user_id}"))
    )


def forgotten(counts: Mapping[str, int], erased: int, receipt: str) -> Message:
    """The receipt of /forget. erased: the number of files."""
    what = [
        *_counted(counts),
        permissions(counts["grants"]),
        *([chat_lines(counts["lines"])] if "lines" in counts else []),
    ]
    text = say(
        "You are forgotten. Erased: {what}; {files} in all. Receipt {receipt}. "
        "If you write to me again, we meet for the first time.",
        what=listing(what),
        files=files(erased),
        receipt=receipt,
    )
    return Message(text, tone="good")


def not_forgotten() -> Message:
    """The person decided against /forget."""
    return Message(say("All right, everything stays as it is."))


def link_code(code: str) -> Message:
    """The answer to /link."""
    parts = [
        say("Send this to me on the other platform within ten minutes: /link {code}", code=code),
        say(
            "It works once. Keep it to yourself: you become one person with anybody who sends it, and share all "
            "your avatars."
        ),
    ]
    return Message("\n".join(parts))


def linked(user: User, here: User, renamed: Sequence[tuple[str, str]]) -> Message:
    """The answer to /link with a code."""
    parts = [
        say(
            "Done: {here} here and {there} on {platform} are one person to me now, with the avatars of both.",
            here=here.name,
            there=user.name,
            platform=user.platform,
        )
    ]
    if renamed:
        names = listing([say("{old} is called {new} now", old=old, new=new) for old, new in renamed])
        parts.append(say("You had two avatars with the same name, so {names}.", names=names))
    return Message(" ".join(parts), tone="good")
