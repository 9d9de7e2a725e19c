"""Everything the bot says to people, in one place: warm, short, and always with what to do next.

Jobs and avatars are worded here; refusals, the check of the photos, sharing, a person's data, the operators' duties
and what only one platform has to say in the modules beside. It stands here in English, and `say` looks it up in the
reader's language.

Nothing here decides anything or does any I/O. Facts come in, a `Message` or a sentence goes out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bot import limits
from bot.language import listing, marked, say, several
from bot.lines import line_of
from bot.messages import Button, Message, Progress, Shown
from bot.replies import account as account
from bot.replies import operators as operators
from bot.replies import rights as rights
from bot.replies.checks import checked as checked
from bot.replies.checks import checking as checking
from bot.replies.checks import discarded as discarded
from bot.replies.checks import verdict as verdict
from bot.replies.phrases import Facts as Facts
from bot.replies.phrases import duration as duration
from bot.replies.phrases import files, photos
from bot.replies.phrases import place as place
from bot.replies.refusals import CONSENT as CONSENT
from bot.replies.refusals import PICTURE_GONE as PICTURE_GONE
from bot.replies.refusals import REFUSALS as REFUSALS
from bot.replies.refusals import apology as apology
from bot.replies.refusals import refusal as refusal
from bot.replies.refusals import unknown_style as unknown_style
from bot.table import COMMANDS
from storage.errors import UserError
from storage.jobs import Imagine, Inspect, JobKind, State, Train
from storage.records import Avatar, Job, Picture

CONSENT_VERSION = "1"
"""Rises with every change of the sentence CONSENT, so that the records know what somebody agreed to."""

CARTOON = marked(
    "The built-in base model draws cartoons. Set AVATAR_BASE_MODEL to a Stable Diffusion model for photos."
)

NOTICES: Mapping[str, str] = {"cartoon": CARTOON}
"""What people must be told of a base model's pictures, by the code that the engine gives."""


def notice_of(result: Facts) -> str | None:
    """The code of `NOTICES` for a job's result, if there is one."""
    # Results of older engines have a truth value under "cartoon" instead.
    notice = result.get("notice") or ("cartoon" if result.get("cartoon") else None)
    return notice if notice in NOTICES else None


# Jobs on their way


def _doing(job: Job, token: str | None) -> str:
    match job.payload:
        case Inspect():
            return say("Checking the photos")
        case Train():
            return say("Training {token}", token=token) if token else say("Training")
        case Imagine(count=count):
            return several("Drawing the picture", "Drawing {count} pictures", count)


def _prompt(job: Job) -> str | None:
    return job.payload.prompt if isinstance(job.payload, Imagine) else None


def _cancel(job: Job) -> Button:
    return Button(say("Cancel"), f"cancel:{job.id}")


def under_way(job: Job, token: str | None, code: str, facts: Facts, sample: str | None = None) -> Message:
    """The one message that is edited while a job waits and runs; `code` and `facts` are those of the latest event."""
    doing = _doing(job, token)
    progress = Progress(doing)
    if code == "queued":
        number, left = int(facts.get("place", 1)), facts.get("seconds")
        progress = Progress(doing, place=number, seconds_left=left)
        values: dict[str, object] = {"doing": doing, "place": place(number)}
        text = (
            say("{doing}: {place}.", **values)
            if left is None
            else say("{doing}: {place}, ready in about {span}.", span=duration(left), **values)
        )
        if facts.get("paused"):
            text += f" {say(operators.PAUSED)}"
    elif code == "step":
        step, steps, left = int(facts["step"]), max(1, int(facts["steps"])), facts.get("seconds_left")
        progress = Progress(doing, min(1.0, step / steps), step, steps, left)
        values = {"doing": doing, "step": step, "steps": steps}
        text = (
            say("{doing}: step {step} of {steps}.", **values)
            if left is None
            else say("{doing}: step {step} of {steps}, about {span} left.", span=duration(left), **values)
        )
        if facts.get("short"):
            short = say("Memory is short, so fewer photos go through at once: the result is the same, only later.")
            text += f" {short}"
    elif code == "retaken":
        text = say("{doing}: picked up again after a hiccup, going on from where it was.", doing=doing)
    else:
        text = say("{doing}, starting.", doing=doing)
    shown: tuple[Shown, ...] = ()
    if sample and code != "queued":
        who = say("{token} as learned so far", token=token) if token else say("The avatar as learned so far")
        shown = (Shown(sample, who),)
    return Message(
        text, job=job.id, prompt=_prompt(job), pictures=shown, progress=progress, buttons=(_cancel(job),)
    )  # fmt: skip


def ended(job: Job, token: str | None) -> Message:
    """What the progress message says once its job is over; the answer itself is a message of its own."""
    seconds = (job.finished - job.started).total_seconds() if job.finished and job.started else 0
    match job.kind:
        case JobKind.INSPECT:
            what = say("Photo check")
        case JobKind.TRAIN:
            what = say("Training of {token}", token=token) if token else say("Training")
        case _:
            what = say("Drawing")
    match job.state:
        case State.SUCCEEDED if seconds >= 1:
            text = say("{what}: done in {span}.", what=what, span=duration(seconds))
        case State.SUCCEEDED:
            text = say("{what}: done.", what=what)
        case State.CANCELLED:
            text = say("{what}: cancelled.", what=what)
        case _:
            text = say("{what}: did not work out.", what=what)
    return Message(text, job=job.id, prompt=_prompt(job))


def let_go() -> Message:
    """What a progress message says once its job was forgotten with its person."""
    return Message(say("Cancelled, and forgotten."))


# The answers, one for each job


def trained(avatar: Avatar, result: Facts, job_id: str) -> Message:
    """The training is over: samples and what to do with them."""
    if {"steps", "seconds"} <= result.keys():
        took = duration(result["seconds"])
        ready = say("{token} is ready: {steps} steps in {span}.", token=avatar.token, steps=result["steps"], span=took)
    else:
        ready = say("{token} is ready.", token=avatar.token)
    parts = [ready, say("Try /imagine {token} {noun} in a suit.", token=avatar.token, noun=avatar.noun)]
    parts += [say(NOTICES[notice])] if (notice := notice_of(result)) else []
    return Message(
        " ".join(parts),
        tone="good",
        job=job_id,
        pictures=tuple(_first_picture(avatar, key) for key in result.get("samples", ())),
        buttons=(
            Button(say("Imagine"), f"imagine:{avatar.id}", "primary"),
            Button(say("Delete"), f"delete:{avatar.id}", "danger"),
            Button(say("Share here"), f"share:{avatar.id}"),
        ),
        avatar=avatar.id,
    )


def _first_picture(avatar: Avatar, key: str) -> Shown:
    return Shown(key, say("A first picture of {token}", token=avatar.token))


def how_to_imagine(avatar: Avatar) -> Message:
    """The answer to the Imagine button where a frontend cannot put words into the person's mouth."""
    return Message(
        say("Tell me what to draw, for example: {example}",
            example=f"/imagine {avatar.token} {avatar.noun} in a suit"),
        prompt=f"/imagine {avatar.token} {avatar.noun} ",
    )  # fmt: skip


def drawn(
    job: Job, pictures: Sequence[tuple[str, int]], notice: str | None, owners: Sequence[tuple[str, str]] = ()
) -> Message:
    """The pictures, each with its seed. owners: (token, name) of each avatar that is somebody else's."""
    prompt = _prompt(job) or ""
    seeds = listing([str(seed) for _, seed in pictures]) if pictures else ""
    parts = [
        several("Here you are (seed {seeds}).", "Here you are (seeds {seeds}).", len(pictures), seeds=seeds),
        *(rights.belongs(token, name) for token, name in owners),
        *([say(NOTICES[notice])] if notice else []),
    ]
    return Message(
        " ".join(parts),
        tone="good",
        job=job.id,
        prompt=prompt,
        pictures=tuple(Shown(key, prompt, seed) for key, seed in pictures),
        buttons=(
            Button(say("Again"), f"again:{job.id}"),
            *(Button(f"V{number}", f"vary:{number}:{job.id}") for number in range(1, len(pictures) + 1)),
            Button(say("Seed"), f"seed:{job.id}"),
            Button(say("Delete"), f"remove:{job.id}", "danger"),
        ),
    )


def seeds(asked: Imagine, pictures: Sequence[Picture]) -> Message:
    """The answer to the Seed button: how to draw each picture again."""
    lines = [line_of(replace(asked, count=1, seed=picture.seed)) for picture in pictures]
    if asked.original is not None:
        head = say("These are variations of a picture. Their seeds alone draw something else:")
    else:
        head = several("This draws the picture again:", "These draw the pictures again, one each:", len(pictures))
    return Message("\n".join([head, *lines]))


def less_of_it() -> str:
    """What a style with a smaller weight is, beside its completion."""
    return say("less of it")


def removed() -> Message:
    """The pictures of a drawing are erased."""
    return Message(say("The pictures are deleted here. What was sent into a chat, delete there too."))


def _no_good_photos(facts: Facts) -> str:
    return say(
        "I could only learn from {good} of the photos and need {needed}. "
        "Send /train again with sharper ones that show one face.",
        good=facts.get("good", 0),
        needed=facts.get("needed", limits.PHOTOS_FEWEST),
    )


def _bad_size(facts: Facts) -> str:
    refused = say("The base model can't draw that size.")
    if not {"low", "high", "multiple"} <= facts.keys():
        return f"{refused} " + say("Leave --size out and it takes its own.")
    return f"{refused} " + say("Width and height go from {low} to {high} in steps of {multiple}.", **facts)


# What ends a job, by the engine's code; any other is a fault of ours.
FAILURES: Mapping[str, Callable[[Facts], str]] = {
    "crashed": lambda facts: say(
        "It stopped several times, so I gave up on it. Please try once more; nothing of yours is lost."
    ),
    "timeout": lambda facts: say("It took far too long, so I stopped it. Fewer steps or pictures will get through."),
    "no_good_photos": _no_good_photos,
    "prompt_too_long": lambda facts: say(
        "The prompt is longer than the base model can read. Please shorten it to a sentence or two."
    ),
    "picture_gone": lambda facts: say(PICTURE_GONE),
    "unknown_style": unknown_style,
    "missing_avatar": lambda facts: say("The avatar was erased in the meantime. /avatars shows those you have."),
    "out_of_memory": lambda facts: say("It did not fit into the memory. Ask for fewer or smaller pictures."),
    "bad_size": _bad_size,
    "out_of_range": lambda facts: REFUSALS["out_of_range"](
        {"option": facts["what"], "least": facts["low"], "most": facts["high"]}
    ),
    "empty_prompt": REFUSALS["prompt_empty"],
    "bad_original": lambda facts: say("That picture can no longer be read. /imagine draws a new one."),
    "wrong_base": lambda facts: say(
        "The base model is another one since this was learned. Train the avatar anew with /train, or leave --style out."
    ),
    "bad_adapter": lambda facts: say(
        "The file of what was learned can't be read. Train the avatar anew with /train, or leave --style out."
    ),
    "quantised_base": lambda facts: say("The memory here is too small to learn that way. Please ask the operators."),
}


def failed(job: Job) -> Message:
    """The job did not work out."""
    error = job.error or {}
    wording = FAILURES.get(error.get("code", ""))
    match job.kind:
        case JobKind.INSPECT:
            what = say("I could not check the photos.")
        case JobKind.TRAIN:
            what = say("The training did not work out.")
        case _:
            what = say("I could not draw this.")
    if wording is None:
        why = say("Something broke on my side; please try again, and if it stays, mention job {job}.", job=job.id)
    else:
        why = wording(error.get("facts") or {})
        why += " " + say("Nothing was counted for this; it was job {job}.", job=job.id)
    return Message(f"{what} {why}", tone="trouble", job=job.id, buttons=_retry(job))


def _retry(job: Job) -> tuple[Button, ...]:
    match job.payload:
        case Imagine():
            return (Button(say("Try again"), f"again:{job.id}"),)
        case Train(avatar_id=avatar_id):
            return (
                Button(say("Try again"), f"train:{avatar_id}", "primary"),
                Button(say("Delete"), f"delete:{avatar_id}", "danger"),
            )
        case Inspect():
            return ()


def cancelled(job: Job, token: str | None) -> Message:
    """The one answer to a cancelled job."""
    match job.kind:
        case JobKind.INSPECT:
            what = say("The photo check is cancelled and the photos are erased.")
        case JobKind.TRAIN if token:
            what = say("The training of {token} is cancelled.", token=token)
        case JobKind.TRAIN:
            what = say("The training is cancelled.")
        case _:
            what = say("The drawing is cancelled.")
    return Message(what, job=job.id, buttons=_retry(job) if job.kind == JobKind.TRAIN and token else ())


# The other commands


_STATES = {
    "draft": marked("waiting for you to press Train"),
    "training": marked("in training"),
    "ready": marked("ready"),
    "failed": marked("not trained"),
}


def _line(avatar: Avatar, *more: str) -> str:
    return " · ".join([avatar.token, avatar.noun, *more])


def avatars(own: Sequence[Avatar], shared: Sequence[tuple[Avatar, str]], default: str | None = None) -> Message:
    """The answer to /avatars.

    shared: each with its owner's name. default: the id of the one that is drawn where a prompt names nobody.
    """
    if not own and not shared:
        return refusal(UserError("no_avatars"))
    lines = []
    for avatar in own:
        preferred = [say("default")] if avatar.id == default else []
        lines.append(_line(avatar, say(_STATES[avatar.state]), *_likeness(avatar), *preferred))
    lines += [_line(avatar, say("shared with you by {name}", name=name)) for avatar, name in shared]
    ready = [avatar for avatar in (*own, *(avatar for avatar, _ in shared)) if avatar.state == "ready"]
    buttons = [Button(say("Imagine {token}", token=avatar.token), f"imagine:{avatar.id}") for avatar in ready[:4]]
    buttons += [Button(say("Change {token}", token=avatar.token), f"avatar:{avatar.id}") for avatar in own[:4]]
    pictures = tuple(picture for avatar in ready[:4] for picture in _sample(avatar))
    return Message("\n".join([say("Avatars you can use here:"), *lines]), pictures=pictures, buttons=tuple(buttons))


def _likeness(avatar: Avatar) -> list[str]:
    """How alike its samples were, if that was measured."""
    likeness = avatar.details.get("likeness")
    return [] if likeness is None else [say("{percent} % alike", percent=round(100 * likeness))]


def _sample(avatar: Avatar) -> list[Shown]:
    return [_first_picture(avatar, key) for key in avatar.details.get("samples", ())[:1]]


def avatar_card(avatar: Avatar, count: int, shares: Sequence[rights.Share], default: bool) -> Message:
    """One of the person's own avatars, with all that can be done to it. count: its photos."""
    lines = [_line(avatar, say(_STATES[avatar.state]), photos(count), *_likeness(avatar))]
    if default:
        lines.append(say("It is your default: I draw it where a prompt names nobody."))
    if avatar.learned_as != avatar.token:
        lines.append(say("It was learned as {word}; an exported file answers to that word.", word=avatar.learned_as))
    lines += [rights.line_of(share) for share in shares] or [say("Nobody but you can draw it.")]
    buttons = []
    if avatar.state == "ready":
        buttons += [
            Button(say("Imagine"), f"imagine:{avatar.id}", "primary"),
            Button(say("Share here"), f"share:{avatar.id}"),
            *([] if default else [Button(say("Make it the default"), f"default:{avatar.id}")]),
            Button(say("Export"), f"export:{avatar.id}"),
        ]
    buttons += [Button(say("Rename"), f"rename:{avatar.id}"), Button(say("Delete"), f"delete:{avatar.id}", "danger")]
    buttons += [rights.take_back(share) for share in shares[:4]]
    return Message("\n".join(lines), pictures=tuple(_sample(avatar)), buttons=tuple(buttons), avatar=avatar.id)


def how_to_rename(avatar: Avatar) -> Message:
    """The answer to the Rename button where a frontend cannot put words into the person's mouth."""
    command = f"/avatars {avatar.token} --rename "
    return Message(
        say("What shall it be called? For example: {example}", example=f"{command}{avatar.token[:14]}b"), prompt=command
    )


def renamed(avatar: Avatar, former: str) -> Message:
    """The avatar has another name."""
    text = say("{former} is called {token} from now on.", former=former, token=avatar.token)
    return Message(text, tone="good", avatar=avatar.id)


def preferred(avatar: Avatar) -> Message:
    """The avatar is the default."""
    text = say(
        "{token} is your default. Where a prompt names nobody, I draw it: /imagine in a suit", token=avatar.token
    )
    return Message(text, tone="good", avatar=avatar.id)


def status(jobs: Sequence[tuple[Job, Facts, str | None]]) -> Message:
    """The answer to /status: each job with where it stands (`Desk.waiting`) and its avatar's token."""
    if not jobs:
        return Message(say("Nothing of yours is under way. /imagine draws, /train makes an avatar."))
    lines = [
        " · ".join([_doing(job, token), *_standing(facts), say("job {job}", job=job.id)]) for job, facts, token in jobs
    ]
    buttons = tuple(
        Button(say("Cancel: {doing}", doing=_doing(job, token)), f"cancel:{job.id}") for job, _, token in jobs[:4]
    )
    return Message("\n".join([say("Under way for you:"), *lines]), buttons=buttons)


def _standing(facts: Facts) -> list[str]:
    said = [place(facts["place"]) if facts["place"] else say("running")]
    if facts["seconds"] is not None:
        said.append(say("ready in about {span}", span=duration(facts["seconds"])))
    return said


def cancelling(job: Job, token: str | None) -> Message:
    """The answer to /cancel."""
    doing = _doing(job, token)
    if job.state == State.CANCELLED:
        return Message(say("Stopped: {doing}.", doing=doing))
    return Message(say("I'm stopping this: {doing}.", doing=doing))


def confirm_delete(avatar: Avatar, count: int) -> Message:
    """The question before anything is erased. count: its photos."""
    text = say(
        "Erase {token} for good? With {photos}, what I learned and all its pictures. This can't be undone.",
        token=avatar.token,
        photos=photos(count),
    )
    buttons = (
        Button(say("Erase {token}", token=avatar.token), f"erase:{avatar.id}", "danger"),
        Button(say("Keep it"), f"keep:{avatar.id}"),
    )
    return Message(text, tone="warning", buttons=buttons)


def erased(avatar: Avatar, count: int) -> Message:
    """The receipt of an erasure. count: files."""
    text = say(
        "{token} is erased: {files} with photos, pictures and training are gone.",
        token=avatar.token,
        files=files(count),
    )
    return Message(text)


def kept(avatar: Avatar) -> Message:
    """The person thought better of it."""
    return Message(say("{token} stays.", token=avatar.token))


def help_text(operator: bool = False) -> Message:
    """The answer to /help: each topic's commands, those of the operators for them alone."""
    topics: dict[str, list[str]] = {}
    for command in COMMANDS.values():
        if operator or not command.operators:
            topics.setdefault(command.topic, []).append(f"{command.example}\n    {say(command.description)}")
    head = say("I learn a person from 5 to 10 photos and then draw them in whatever you describe.")
    return Message("\n".join([head, *("\n".join([say(topic), *lines]) for topic, lines in topics.items())]))
