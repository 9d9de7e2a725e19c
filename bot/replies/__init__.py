"""Everything the bot says to people, in one place: English, warm, short, and always with what to do next.

Photos, pictures and jobs are worded here; sharing, a person's data and the operators' duties in the modules beside.

Nothing here decides anything or does any I/O. Facts come in, a `Message` or a sentence goes out.
"""

from collections.abc import Callable, Mapping, Sequence

from bot import limits
from bot.messages import Button, Message, Progress, Shown, Verdict
from bot.replies import account, operators, rights
from bot.replies.words import Facts as Facts
from bot.replies.words import duration as duration
from bot.replies.words import listing as listing
from bot.replies.words import place as place
from bot.replies.words import plural as plural
from bot.table import COMMANDS
from storage.errors import UserError
from storage.jobs import Imagine, Inspect, Kind, State, Train
from storage.records import Avatar, Job

CONSENT = "The person on these photos is an adult and has agreed to an avatar of them being made and drawn."
CONSENT_VERSION = "1"
"""Rises with every change of the sentence, so that the records know what somebody agreed to."""

CARTOON = "The built-in base model draws cartoons. Set AVATAR_BASE_MODEL to a Stable Diffusion model for photos."


# Refusals: what went wrong and what to do next, by the code of the UserError


def _token_shape(facts: Facts) -> str:
    return (
        "An avatar's name is 2 to 16 small letters and digits and starts with a letter. "
        f"How about “{facts['suggestion']}”?"
    )


def _token_word(facts: Facts) -> str:
    return (
        f"“{facts['token']}” already means something in English, so every picture with it would turn into this person. "
        f"How about “{facts['suggestion']}”?"
    )


def _token_taken(facts: Facts) -> str:
    token = facts.get("token", "this name")
    again = f" How about “{facts['suggestion']}”?" if facts.get("suggestion") else " Pick another name."
    return f"You already have an avatar called {token}.{again} To make it anew, send /delete {token} first."


def _unknown_command(facts: Facts) -> str:
    near = facts.get("near")
    return f"I don't know /{facts['name']}. " + (
        f"Did you mean /{near}?" if near else "Send /help to see what I can do."
    )


def _unknown_option(facts: Facts) -> str:
    options = [f"--{option.name}" for option in COMMANDS[facts["command"]].options if option.name != "photos"]
    known = f"It takes {listing(options)}." if options else "It takes no options."
    return f"/{facts['command']} has no option --{facts['option']}. {known}"


def _missing_option(facts: Facts) -> str:
    command = COMMANDS[facts["command"]]
    description = next(option.description for option in command.options if option.name == facts["option"])
    return f"/{command.name} still needs {facts['option']}: {description}. For example: {command.example}"


def _no_avatar_named(facts: Facts) -> str:
    tokens: list[str] = list(facts["tokens"])
    if facts.get("near"):
        return f"I don't know {facts['word']}. Did you mean {facts['near']}? Spell the name just like that."
    few = listing(tokens[:8]) if len(tokens) <= 8 else f"{', '.join(tokens[:8])} and more"
    return f"Which avatar shall I draw? Put its name in the prompt. You can use {few} here."


def _prompt_long(facts: Facts) -> str:
    return (
        f"That is {facts['length']:,} characters, and I can read {facts['most']:,}. "
        "A sentence or two works best: who, wearing what, where."
    )


def _out_of_range(facts: Facts) -> str:
    return f"{facts['option']} goes from {facts['least']:g} to {facts['most']:,.10g}. Try a value in between."


REFUSALS: Mapping[str, Callable[[Facts], str]] = {
    "token_shape": _token_shape,
    "token_word": _token_word,
    "token_taken": _token_taken,
    "noun_shape": lambda facts: "Say in one word what they are, letters only: /train mia7 woman, for example.",
    "minor": lambda facts: "I only make avatars of adults, so I can't train this one. Please choose somebody grown-up.",
    "consent": lambda facts: f"Before I start, please tick the box that says: “{CONSENT}”",
    "photos_few": lambda facts: (
        f"I need {facts['fewest']} to {facts['most']} photos and got {facts['count'] or 'none'}. "
        "Add some from other days and angles, and send /train again."
        if facts["count"]
        else f"Add {facts['fewest']} to {facts['most']} photos of this one person, and send /train again."
    ),
    "photos_many": lambda facts: (
        f"{facts['most']} photos are enough. Keep the {facts['most']} sharpest that differ most, and send /train again."
    ),
    "photo_empty": lambda facts: f"Photo #{facts['number']} is an empty file. Please send it again or leave it out.",
    "photo_large": lambda facts: (
        f"Photo #{facts['number']} is larger than {facts['megabytes']} MB. Please send a smaller copy; "
        "2,000 pixels across are plenty."
    ),
    "prompt_empty": lambda facts: "What shall I draw? For example: /imagine mia7 woman in a red hoodie, smiling",
    "prompt_long": _prompt_long,
    "prompt_unreadable": lambda facts: (
        f"There is a character in the {facts['option']} that I can't read. Please type the text by hand."
    ),
    "out_of_range": _out_of_range,
    "not_a_number": lambda facts: f"--{facts['option']} wants a number, as in --{facts['option']} 2.",
    "unknown_command": _unknown_command,
    "unknown_option": _unknown_option,
    "missing_option": _missing_option,
    "too_many_words": lambda facts: (
        f"I don't know what to do with “{facts['word']}” there. The command looks like this: {facts['example']}"
    ),
    "no_avatars": lambda facts: (
        "You have no avatar yet. Add 5 to 10 photos of one person and send /train mia7 woman to make the first."
    ),
    "no_avatar_named": _no_avatar_named,
    "avatar_training": lambda facts: (
        f"{facts['token']} is still training. I'll say when it is ready, and /status tells how far it is."
    ),
    "avatar_draft": lambda facts: (
        f"{facts['token']} is waiting for you: press Train under its photo check, and then I can draw it."
    ),
    "avatar_failed": lambda facts: (
        f"The training of {facts['token']} did not finish. Send /delete {facts['token']} and train it anew."
    ),
    "already_training": lambda facts: f"{facts['token']} is training already. /status tells how far it is.",
    "already_trained": lambda facts: (
        f"{facts['token']} is trained already. Try /imagine {facts['token']} {facts['noun']}"
    ),
    "draft_unchecked": lambda facts: f"I'm still looking at the photos of {facts['token']}. One moment, please.",
    "unknown_avatar": lambda facts: (
        f"You have no avatar called {facts['token']}. "
        + (f"Yours: {listing(list(facts['tokens']))}." if facts.get("tokens") else "Make one with /train.")
    ),
    "avatar_gone": lambda facts: "That avatar is gone. Start anew with /train and fresh photos.",
    "missing_avatar": lambda facts: "That avatar is gone. /avatars shows those you have.",
    "avatars_which": lambda facts: "Name the avatar first, as in /avatars mia7 --rename mia8.",
    "size_shape": lambda facts: "Give the size in pixels as width x height, such as --size 512x768.",
    "missing_job": lambda facts: "I know no such job of yours. /status lists those that are under way.",
    "not_yours": lambda facts: "Only the person who started this can do that.",
    "unknown_job": lambda facts: "I know no such job of yours. /status lists those that are under way.",
    "no_jobs": lambda facts: "Nothing of yours is under way, so there is nothing to stop.",
    "job_over": lambda facts: "That job is over already.",
    "too_many_jobs": lambda facts: (
        f"You have {facts['active']} jobs under way. Let some finish or /cancel one, then send this again."
    ),
    "unknown_action": lambda facts: "This button is from an older version. Please send the command again.",
    "name_shape": lambda facts: f"Please pick a name of 1 to {facts['most']} letters.",
    "room_shape": lambda facts: f"A room's name has 1 to {facts['most']} letters, digits or hyphens.",
    "message_long": lambda facts: f"That is a long one: {facts['most']:,} characters fit into a message.",
    "message_empty": lambda facts: "Type a message first, or a command such as /imagine. /help shows them all.",
    "photos_loose": lambda facts: "What shall I do with these photos? To make an avatar: /train mia7 woman",
    "upload_cut": lambda facts: "The upload broke off. I have kept nothing of it; please send it again.",
    **rights.REFUSALS,
    **account.REFUSALS,
    **operators.REFUSALS,
}


def refusal(error: UserError) -> Message:
    """The kind answer to wrong input."""
    wording = REFUSALS.get(error.code)
    text = wording(error.facts) if wording else "I can't do that as it stands. /help shows what works."
    return Message(text, tone="warning")


def apology(error_id: str) -> Message:
    """The answer to a bug of ours; the id finds it in the log."""
    return Message(
        f"Sorry, something broke on my side. Please try again; if it stays, mention {error_id}.", tone="trouble"
    )


# /train: the check of the photos

_VERDICTS: Mapping[str, Callable[[Facts], str]] = {
    "empty": lambda facts: "is an empty file",
    "too_heavy": lambda facts: "is too big a file",
    "not_image": lambda facts: "is not a picture",
    "broken": lambda facts: "is damaged and can't be opened",
    "too_many_pixels": lambda facts: "has far too many pixels",
    "animated": lambda facts: "is an animation",
    "too_small": lambda facts: "is too small" + _size(facts),
    "aspect": lambda facts: "is too long and narrow",
    "no_face": lambda facts: "shows no face that I can see",
    "several_faces": lambda facts: {2: "shows two faces", 3: "shows three faces"}.get(
        facts.get("faces", 0), "shows several faces"
    ),
    "blurred": lambda facts: "is blurred",
    "too_dark": lambda facts: "is too dark",
    "duplicate": lambda facts: f"is the same as #{facts['of']}" if facts.get("of") else "is there twice",
    "soft": lambda facts: "is a little soft",
    "face_small": lambda facts: "shows the face rather small",
    "face_cut": lambda facts: "cuts the face off at the edge",
    "near_duplicate": lambda facts: f"is almost the same as #{facts['of']}" if facts.get("of") else "has a near double",
    "rotated": lambda facts: "was turned upright",
    "grayscale": lambda facts: "has no colours",
    "compressed": lambda facts: "is strongly compressed",
    "dark": lambda facts: "is rather dark",
    "drawn": lambda facts: "looks drawn",
    "low_resolution": lambda facts: "has few pixels" + _size(facts),
}


def _size(facts: Facts) -> str:
    return f" ({facts['width']} x {facts['height']})" if "width" in facts and "height" in facts else ""


def verdict(number: int, entry: Facts) -> Verdict:
    """One photo's verdict from the inspection's `{"ok", "codes", "facts"}`."""
    facts = entry.get("facts") or {}
    said = [_VERDICTS[code](facts) for code in entry.get("codes", ()) if code in _VERDICTS]
    if entry["ok"]:
        return Verdict(number, "warning" if said else "good", listing(said) if said else "is good")
    return Verdict(number, "trouble", listing(said) if said else "can't be used")


def checking(avatar: Avatar, count: int, job: Job) -> Message:
    """The first answer to /train."""
    return Message(
        f"Thank you! I'm looking at the {count} photos of {avatar.token}.",
        job=job.id,
        progress=Progress("Checking the photos"),
        buttons=(Button("Cancel", f"cancel:{job.id}"),),
    )


def checked(avatar_id: str, token: str, entries: Sequence[Facts], job_id: str) -> Message:
    """The result of the inspection: what is good, what is not, and the buttons to go on."""
    verdicts = tuple(verdict(number, entry) for number, entry in enumerate(entries, start=1))
    bad = [f"#{one.number} {one.text}" for one in verdicts if one.tone == "trouble"]
    good = len(verdicts) - len(bad)
    count = plural(len(verdicts), "photo")
    if good < limits.PHOTOS_FEWEST:
        missing = limits.PHOTOS_FEWEST - good
        return Message(
            f"{count}, but only {good or 'none'} that I can learn from: {listing(bad)}. "
            f"Please replace {'that one' if len(bad) == 1 else 'those'} or add {missing} more, sharp and with one "
            "face, and send /train again. I have kept nothing.",
            tone="warning",
            job=job_id,
            verdicts=verdicts,
        )
    if bad:
        text = f"{count}: {good} good, {listing(bad)}."
        train = f"Train with the {good} good ones"
    else:
        hints = [f"#{one.number} {one.text}" for one in verdicts if one.tone == "warning"]
        text = f"{count}, all good." + (f" A hint: {listing(hints)}." if hints else "")
        train = f"Train {token}"
    return Message(
        text,
        tone="good",
        job=job_id,
        verdicts=verdicts,
        buttons=(Button(train, f"train:{avatar_id}", "primary"), Button("Cancel", f"discard:{avatar_id}")),
    )


def discarded(token: str) -> Message:
    """The draft of an avatar was dropped before training."""
    return Message(f"All right, I have erased the photos of {token}. Send /train whenever you like.")


# Jobs on their way


def _doing(job: Job, token: str | None) -> str:
    match job.payload:
        case Inspect():
            return "Checking the photos"
        case Train():
            return f"Training {token}" if token else "Training"
        case Imagine(count=1):
            return "Drawing the picture"
        case Imagine(count=count):
            return f"Drawing {count} pictures"


def _prompt(job: Job) -> str | None:
    return job.payload.prompt if isinstance(job.payload, Imagine) else None


def under_way(job: Job, token: str | None, code: str, facts: Facts, sample: str | None = None) -> Message:
    """The one message that is edited while a job waits and runs; `code` and `facts` are those of the latest event."""
    doing = _doing(job, token)
    shown = (Shown(sample, f"{token or 'The avatar'} as learned so far"),) if sample else ()
    buttons = (Button("Cancel", f"cancel:{job.id}"),)
    prompt = _prompt(job)
    if code == "queued":
        number = int(facts.get("place", 1))
        progress = Progress(doing, place=number)
        text = f"{doing}: {place(number)}." + (f" {operators.PAUSED}" if facts.get("paused") else "")
        return Message(text, job=job.id, prompt=prompt, progress=progress, buttons=buttons)
    if code == "step":
        step, steps = int(facts["step"]), max(1, int(facts["steps"]))
        left = facts.get("seconds_left")
        text = f"{doing}: step {step} of {steps}" + (f", about {duration(left)} left." if left is not None else ".")
        if facts.get("short"):
            text += " Memory is short, so fewer photos go through at once: the result is the same, only later."
        progress = Progress(doing, min(1.0, step / steps), step, steps, left)
        return Message(
            text, job=job.id, prompt=prompt, pictures=shown, progress=progress, buttons=buttons
        )  # fmt: skip
    if code == "retaken":
        text = f"{doing}: picked up again after a hiccup, going on from where it was."
        return Message(text, job=job.id, prompt=prompt, pictures=shown, progress=Progress(doing), buttons=buttons)
    return Message(
        f"{doing}, starting.", job=job.id, prompt=prompt, pictures=shown, progress=Progress(doing), buttons=buttons
    )


def ended(job: Job, token: str | None) -> Message:
    """What the progress message says once its job is over; the answer itself is a message of its own."""
    seconds = (job.finished - job.started).total_seconds() if job.finished and job.started else 0
    took = f" in {duration(seconds)}" if seconds >= 1 else ""
    prompt = _prompt(job)
    what = {Kind.INSPECT: "Photo check", Kind.TRAIN: f"Training of {token}" if token else "Training"}.get(
        job.kind, "Drawing"
    )
    how = {State.SUCCEEDED: f"done{took}", State.CANCELLED: "cancelled"}.get(job.state, "did not work out")
    return Message(f"{what}: {how}.", job=job.id, prompt=prompt)


def let_go() -> Message:
    """What a progress message says once its job was forgotten with its person."""
    return Message("Cancelled, and forgotten.")


# The answers, one for each job


def trained(avatar: Avatar, result: Facts, job_id: str) -> Message:
    """The training is over: samples and what to do with them."""
    samples = tuple(Shown(key, f"A first picture of {avatar.token}") for key in result.get("samples", ()))
    took = f" in {duration(result['seconds'])}" if "seconds" in result else ""
    note = f" {CARTOON}" if result.get("cartoon") else ""
    return Message(
        f"{avatar.token} is ready: {result.get('steps', 'all')} steps{took}. "
        f"Try /imagine {avatar.token} {avatar.noun} in a suit{'' if note else '.'}" + (f".{note}" if note else ""),
        tone="good",
        job=job_id,
        pictures=samples,
        buttons=(
            Button("Imagine", f"imagine:{avatar.id}", "primary"),
            Button("Delete", f"delete:{avatar.id}", "danger"),
            Button("Share here", f"share:{avatar.id}"),
        ),
        avatar=avatar.id,
    )


def how_to_imagine(avatar: Avatar) -> Message:
    """The answer to the Imagine button where a frontend cannot put words into the person's mouth."""
    example = f"/imagine {avatar.token} {avatar.noun} in a suit"
    return Message(f"Tell me what to draw, for example: {example}", prompt=f"/imagine {avatar.token} {avatar.noun} ")


def drawing(job: Job, number: int, paused: bool = False) -> Message:
    """The first answer to /imagine."""
    return under_way(job, None, "queued", {"place": number, "paused": paused})


def drawn(
    job: Job, pictures: Sequence[tuple[str, int]], cartoon: bool, owners: Sequence[tuple[str, str]] = ()
) -> Message:
    """The pictures, each with its seed. owners: (token, name) of each avatar that is somebody else's."""
    prompt = _prompt(job) or ""
    seeds = listing([str(seed) for _, seed in pictures]) if pictures else ""
    word = "seed" if len(pictures) == 1 else "seeds"
    return Message(
        " ".join(
            [
                f"Here you are ({word} {seeds}).",
                *(rights.belongs(token, name) for token, name in owners),
                *([CARTOON] if cartoon else []),
            ]
        ),
        tone="good",
        job=job.id,
        prompt=prompt,
        pictures=tuple(Shown(key, prompt, seed) for key, seed in pictures),
        buttons=(Button("Again", f"again:{job.id}"),),
    )


_FAILURES: Mapping[str, Callable[[Facts], str]] = {
    "crashed": lambda facts: (
        "It stopped several times, so I gave up on it. Please try once more; nothing of yours is lost."
    ),
    "timeout": lambda facts: "It took far too long, so I stopped it. Fewer steps or pictures will get through.",
    "no_good_photos": lambda facts: (
        f"I could only learn from {facts.get('good', 0)} of the photos and need "
        f"{facts.get('needed', limits.PHOTOS_FEWEST)}. Send /train again with sharper ones that show one face."
    ),
    "prompt_too_long": lambda facts: (
        "The prompt is longer than the base model can read. Please shorten it to a sentence or two."
    ),
    "missing_avatar": lambda facts: "The avatar was erased in the meantime. /avatars shows those you have.",
    "out_of_memory": lambda facts: "It did not fit into the memory. Ask for fewer or smaller pictures.",
    "bad_size": lambda facts: (
        "The base model can't draw that size."
        + (
            f" Width and height go from {facts['low']} to {facts['high']} in steps of {facts['multiple']}."
            if {"low", "high", "multiple"} <= facts.keys()
            else " Leave --size out and it takes its own."
        )
    ),
}


def failed(job: Job) -> Message:
    """The job did not work out."""
    error = job.error or {}
    wording = _FAILURES.get(error.get("code", ""))
    what = {Kind.INSPECT: "I could not check the photos.", Kind.TRAIN: "The training did not work out."}.get(
        job.kind, "I could not draw this."
    )
    if wording is None:
        return Message(f"{what} Something broke on my side; please try again, and if it stays, mention job {job.id}.",
                       tone="trouble", job=job.id, buttons=_retry(job))  # fmt: skip
    return Message(f"{what} {wording(error.get('facts') or {})}", tone="trouble", job=job.id, buttons=_retry(job))


def _retry(job: Job) -> tuple[Button, ...]:
    match job.payload:
        case Imagine():
            return (Button("Try again", f"again:{job.id}"),)
        case Train(avatar_id=avatar_id):
            return (
                Button("Try again", f"train:{avatar_id}", "primary"),
                Button("Delete", f"delete:{avatar_id}", "danger"),
            )
        case Inspect():
            return ()


def cancelled(job: Job, token: str | None) -> Message:
    """The one answer to a cancelled job."""
    what = {
        Kind.INSPECT: "The photo check is cancelled and the photos are erased.",
        Kind.TRAIN: f"The training of {token} is cancelled." if token else "The training is cancelled.",
    }.get(job.kind, "The drawing is cancelled.")
    return Message(what, job=job.id, buttons=_retry(job) if job.kind == Kind.TRAIN and token else ())


# The other commands


_STATES = {"draft": "waiting for you to press Train", "failed": "not trained"}


def avatars(own: Sequence[Avatar], shared: Sequence[tuple[Avatar, str]], default: str | None = None) -> Message:
    """The answer to /avatars.

    shared: each with its owner's name. default: the id of the one that is drawn where a prompt names nobody.
    """
    if not own and not shared:
        return refusal(UserError("no_avatars"))
    lines = [
        f"{avatar.token} · {avatar.noun} · {_STATES.get(avatar.state, avatar.state)}"
        + (" · default" if avatar.id == default else "")
        for avatar in own
    ]
    lines += [f"{avatar.token} · {avatar.noun} · shared with you by {name}" for avatar, name in shared]
    ready = [avatar for avatar in (*own, *(avatar for avatar, _ in shared)) if avatar.state == "ready"]
    buttons = [Button(f"Imagine {avatar.token}", f"imagine:{avatar.id}") for avatar in ready[:4]]
    buttons += [Button(f"Change {avatar.token}", f"avatar:{avatar.id}") for avatar in own[:4]]
    return Message("Avatars you can use here:\n" + "\n".join(lines), buttons=tuple(buttons))


def avatar_card(avatar: Avatar, photos: int, shares: Sequence[rights.Share], default: bool) -> Message:
    """One of the person's own avatars, with all that can be done to it."""
    state = _STATES.get(avatar.state, avatar.state)
    lines = [f"{avatar.token} · {avatar.noun} · {state} · {plural(photos, 'photo')}"]
    if default:
        lines.append("It is your default: I draw it where a prompt names nobody.")
    if avatar.learned_as != avatar.token:
        lines.append(f"It was learned as {avatar.learned_as}; an exported file answers to that word.")
    lines += [rights.line_of(share) for share in shares] or ["Nobody but you can draw it."]
    buttons = []
    if avatar.state == "ready":
        buttons = [Button("Imagine", f"imagine:{avatar.id}", "primary"), Button("Share here", f"share:{avatar.id}")]
        buttons += [] if default else [Button("Make it the default", f"default:{avatar.id}")]
        buttons += [Button("Export", f"export:{avatar.id}")]
    buttons += [Button("Rename", f"rename:{avatar.id}"), Button("Delete", f"delete:{avatar.id}", "danger")]
    buttons += [rights.take_back(share) for share in shares[:4]]
    samples = (avatar.details or {}).get("samples", ())[:1]
    pictures = tuple(Shown(key, f"A first picture of {avatar.token}") for key in samples)
    return Message("\n".join(lines), pictures=pictures, buttons=tuple(buttons), avatar=avatar.id)


def how_to_rename(avatar: Avatar) -> Message:
    """The answer to the Rename button where a frontend cannot put words into the person's mouth."""
    return Message(
        f"What shall it be called? For example: /avatars {avatar.token} --rename {avatar.token[:14]}b",
        prompt=f"/avatars {avatar.token} --rename ",
    )


def renamed(avatar: Avatar, former: str) -> Message:
    """The avatar has another name."""
    return Message(f"{former} is called {avatar.token} from now on.", tone="good", avatar=avatar.id)


def preferred(avatar: Avatar) -> Message:
    """The avatar is the default."""
    return Message(
        f"{avatar.token} is your default. Where a prompt names nobody, I draw it: /imagine in a suit",
        tone="good",
        avatar=avatar.id,
    )


def status(jobs: Sequence[tuple[Job, int | None, str | None]]) -> Message:
    """The answer to /status: each job with its place in the queue (None while it runs) and its avatar's token."""
    if not jobs:
        return Message("Nothing of yours is under way. /imagine draws, /train makes an avatar.")
    lines = [
        f"{_doing(job, token)} · {place(number) if number is not None else 'running'} · job {job.id}"
        for job, number, token in jobs
    ]
    buttons = tuple(Button(f"Cancel {_doing(job, token).lower()}", f"cancel:{job.id}") for job, _, token in jobs[:4])
    return Message("Under way for you:\n" + "\n".join(lines), buttons=buttons)


def cancelling(job: Job, token: str | None) -> Message:
    """The answer to /cancel."""
    doing = _doing(job, token).lower()
    return Message(f"Stopped: {doing}." if job.state in (State.CANCELLED,) else f"I'm stopping this: {doing}.")


def confirm_delete(avatar: Avatar, photos: int) -> Message:
    """The question before anything is erased."""
    return Message(
        f"Erase {avatar.token} for good? Its {plural(photos, 'photo')}, what I learned and all its pictures go. "
        "This can't be undone.",
        tone="warning",
        buttons=(
            Button(f"Erase {avatar.token}", f"erase:{avatar.id}", "danger"),
            Button("Keep it", f"keep:{avatar.id}"),
        ),
    )


def erased(avatar: Avatar, files: int) -> Message:
    """The receipt of an erasure."""
    return Message(f"{avatar.token} is erased: {plural(files, 'file')} with photos, pictures and training are gone.")


def kept(avatar: Avatar) -> Message:
    """The person thought better of it."""
    return Message(f"{avatar.token} stays.")


def help_text(operator: bool = False) -> Message:
    """The answer to /help: each topic's commands, those of the operators for them alone."""
    topics: dict[str, list[str]] = {}
    for command in COMMANDS.values():
        if operator or not command.operators:
            topics.setdefault(command.topic, []).append(f"{command.example}\n    {command.description}")
    parts = [f"{topic}\n" + "\n".join(lines) for topic, lines in topics.items()]
    return Message(
        "I learn a person from 5 to 10 photos and then draw them in whatever you describe.\n" + "\n".join(parts)
    )
