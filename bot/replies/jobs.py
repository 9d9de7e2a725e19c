"""Texts about jobs: their progress, their end, and the answers to /status and /cancel.

The texts are in English here; `say` translates them. They are warm and short, and say what to do next. Nothing in this
package decides anything or does any I/O.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bot import limits
from bot.language import listing, marked, say, several
from bot.lines import line_of
from bot.messages import Button, Message, Progress, Shown
from bot.replies import avatars, operators, refusals, remarks, rights
from bot.replies.phrases import Facts, duration, queue_position
from storage.jobs import Imagine, Inspect, JobKind, State, Train
from storage.records import Avatar, Job, Picture

CARTOON = marked("This bot draws cartoons.")

NOTICES: Mapping[str, str] = {"cartoon": CARTOON}
"""Remarks about a base model's pictures, by the engine's code, for the owner of an avatar that is ready."""


def notice_of(result: Facts) -> str | None:
    """The key in `NOTICES` for a job's result, or None."""
    # Results of older engines have a boolean "cartoon" instead.
    notice = result.get("notice") or ("cartoon" if result.get("cartoon") else None)
    return notice if notice in NOTICES else None


# Jobs under way


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
    """The progress message of a job that waits or runs; `code` and `facts` are those of its latest event."""
    doing = _doing(job, token)
    progress = Progress(doing)
    if code == "queued":
        position, left = int(facts.get("position", 1)), facts.get("seconds")
        progress = Progress(doing, position=position, seconds_left=left)
        values: dict[str, object] = {"doing": doing, "position": queue_position(position)}
        text = (
            say("{doing}: {position}.", **values)
            if left is None
            else say("{doing}: {position}, ready in about {span}.", span=duration(left), **values)
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
            short = say(
                "Memory is tight, so I take fewer photos at a time. The result is the same, it just takes longer."
            )
            text += f" {short}"
        if facts.get("anew"):
            text += " " + say("I had to begin it anew after a hiccup.")
    elif code == "retaken":
        text = say("{doing}: picked up again after a hiccup.", doing=doing)
    else:
        text = say("{doing}: starting.", doing=doing)
    shown: tuple[Shown, ...] = ()
    if sample and code != "queued":
        who = say("{token} so far", token=token) if token else say("The avatar so far")
        shown = (Shown(sample, who),)
    return Message(text, job=job.id, prompt=_prompt(job), pictures=shown, progress=progress, buttons=(_cancel(job),))


def ended(job: Job, token: str | None) -> Message:
    """The last text of the progress message; the answer is a separate message."""
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


def forgotten() -> Message:
    """The last text of a progress message whose job was erased by /forget."""
    return Message(say("Cancelled and forgotten."))


# Answers, one for each job


def trained(avatar: Avatar, result: Facts, job_id: str) -> Message:
    """The answer to a training that succeeded: its samples, and what to do next."""
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
        pictures=tuple(avatars.first_picture(avatar, key) for key in result.get("samples", ())),
        buttons=(
            Button(say("Imagine"), f"imagine:{avatar.id}", "primary"),
            Button(say("Delete"), f"delete:{avatar.id}", "danger"),
            Button(say("Share here"), f"share:{avatar.id}"),
        ),
        avatar=avatar.id,
    )


def drawn(
    job: Job,
    pictures: Sequence[tuple[str, int]],
    owners: Sequence[tuple[str, str]] = (),
    repeats: Imagine | None = None,
) -> Message:
    """The answer to /imagine: the pictures with their seeds, and what was drawn otherwise than asked.

    owners: (token, name) of each avatar of another person. repeats: the earlier drawing under which this one was asked
    for; what its answer said of the same prompt or size is not said again.
    """
    prompt, result, asked = _prompt(job) or "", job.result or {}, job.payload
    assert isinstance(asked, Imagine)
    same_prompt = repeats is not None and repeats.prompt == asked.prompt
    same_size = repeats is not None and (repeats.width, repeats.height) == (asked.width, asked.height)
    seeds = listing([str(seed) for _, seed in pictures]) if pictures else ""
    parts = [
        several("Here you are (seed {seeds}).", "Here you are (seeds {seeds}).", len(pictures), seeds=seeds),
        *(rights.belongs(token, name) for token, name in owners),
    ]
    if not same_size and (size := remarks.other_size(result)):
        parts.append(size)
    return Message(
        " ".join(parts),
        tone="good",
        job=job.id,
        prompt=prompt,
        remark=None if same_prompt else remarks.on_prompt(result),
        pictures=tuple(Shown(key, prompt, seed) for key, seed in pictures),
        buttons=(
            Button(say("Again"), f"again:{job.id}"),
            *(Button(f"V{number}", f"vary:{number}:{job.id}") for number in range(1, len(pictures) + 1)),
            Button(say("Seed"), f"seed:{job.id}"),
            Button(say("Delete"), f"remove:{job.id}", "danger"),
        ),
    )


def seeds(asked: Imagine, pictures: Sequence[Picture]) -> Message:
    """The answer to the Seed button: the command that draws each picture again."""
    lines = [line_of(replace(asked, count=1, seed=picture.seed)) for picture in pictures]
    if asked.original is not None:
        head = say("These are variations of a picture, so their seeds alone draw something else:")
    else:
        head = several(
            "This command draws the picture again:",
            "Each of these commands draws one of the pictures again:",
            len(pictures),
        )
    return Message("\n".join([head, *lines]))


def weaker() -> str:
    """The hint beside the completion of a style with a smaller weight."""
    return say("weaker")


def removed() -> Message:
    """The pictures of a drawing are erased."""
    return Message(say("Deleted here. Copies already posted in chats stay until you delete them there."))


def _no_good_photos(facts: Facts) -> str:
    return say(
        "I could learn from only {good} of the photos and need {needed}. Send /train again with sharper "
        "photos that show one face.",
        good=facts.get("good", 0),
        needed=facts.get("needed", limits.PHOTOS_FEWEST),
    )


def _bad_size(facts: Facts) -> str:
    refused = say("The base model can't draw that size.")
    if not {"low", "high", "multiple"} <= facts.keys():
        return f"{refused} " + say("Leave out --size to use its own.")
    return f"{refused} " + say("Width and height must be from {low} to {high}, in steps of {multiple}.", **facts)


# Reasons of failures by the engine's error code. Any other code is a bug of ours.
FAILURES: Mapping[str, Callable[[Facts], str]] = {
    "crashed": lambda facts: say(
        "It crashed several times, so I gave up. Please try once more; nothing of yours is lost."
    ),
    "timeout": lambda facts: say("It took far too long, so I stopped it. Please try fewer steps or pictures."),
    "no_good_photos": _no_good_photos,
    "prompt_too_long": lambda facts: say(
        "The prompt is longer than the base model can read. Please shorten it to a sentence or two."
    ),
    "lora_in_prompt": refusals.REFUSALS["lora_in_prompt"],
    "picture_gone": lambda facts: say(refusals.PICTURE_GONE),
    "unknown_style": refusals.unknown_style,
    "missing_avatar": lambda facts: say(
        "The avatar has been erased in the meantime. /avatars shows the ones you have."
    ),
    "out_of_memory": lambda facts: say("It did not fit into memory. Ask for fewer or smaller pictures."),
    "bad_size": _bad_size,
    "out_of_range": lambda facts: refusals.REFUSALS["out_of_range"](
        {"option": facts["what"], "least": facts["low"], "most": facts["high"]}
    ),
    "empty_prompt": refusals.REFUSALS["prompt_empty"],
    "bad_original": lambda facts: say("That picture can no longer be read. /imagine draws a new one."),
    "wrong_base": lambda facts: say(
        "The base model has changed since this was trained. Train the avatar again with /train, or leave out --style."
    ),
    "bad_adapter": lambda facts: say(
        "The trained file can't be read. Train the avatar again with /train, or leave out --style."
    ),
    "looks_unseen": lambda facts: say(
        "I can't see what the person looks like. Send /train again with photos that show the face from the front."
    ),
    "disk_full": lambda facts: say(refusals.DISK_FULL),
    "loss_not_finite": lambda facts: say(
        "The training broke down at step {step}. Please try again; if it happens again, ask the operators.", **facts
    ),
    "quantised_base": lambda facts: say("There is not enough memory here to train that way. Please ask the operators."),
}


def failed(job: Job) -> Message:
    """The answer to a job that failed."""
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
        why = say("Something broke on my side. Please try again; if it keeps happening, mention job {job}.", job=job.id)
    else:
        why = wording(error.get("facts") or {})
        why += " " + say("This does not count towards your quota (job {job}).", job=job.id)
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
    """The answer to a job that was cancelled."""
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


# /status and /cancel


def status(jobs: Sequence[tuple[Job, Facts, str | None]]) -> Message:
    """The answer to /status. jobs: each with the facts of `Desk.waiting` and its avatar's token."""
    if not jobs:
        return Message(say("You have no jobs under way. /imagine draws, /train makes an avatar."))
    lines = [
        " · ".join([_doing(job, token), *_standing(facts), say("job {job}", job=job.id)]) for job, facts, token in jobs
    ]
    buttons = tuple(
        Button(say("Cancel: {doing}", doing=_doing(job, token)), f"cancel:{job.id}") for job, _, token in jobs[:4]
    )
    return Message("\n".join([say("Your jobs:"), *lines]), buttons=buttons)


def _standing(facts: Facts) -> list[str]:
    said = [queue_position(facts["position"]) if facts["position"] else say("running")]
    if facts["seconds"] is not None:
        said.append(say("ready in about {span}", span=duration(facts["seconds"])))
    return said


def cancelling(job: Job, token: str | None) -> Message:
    """The answer to /cancel."""
    doing = _doing(job, token)
    if job.state == State.CANCELLED:
        return Message(say("Stopped: {doing}.", doing=doing))
    return Message(say("Stopping: {doing}.", doing=doing))
