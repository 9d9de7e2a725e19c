"""The keys of blobs: which photo, adapter, picture, sample or checkpoint is stored under which key.

    photos/<album>/<number>                               a photo of an album
    incoming/<platform>/<id there>/...                    photos of an account that are in no album yet
    adapters/<avatar>/<job>-<attempt>/<file>              what an attempt learned
    samples/<avatar>/<job>-<attempt>/<number>.png         the sample pictures of that training
    checkpoints/<job>/<file>                              where a training resumes
    pictures/<job>/<attempt>-<number>.png                 what an attempt drew

A key that ends in a slash is a prefix: `Blobs.delete` erases everything below it. Every attempt writes its own keys, so
that an engine that lost its job overwrites nothing.
"""

PHOTOS = "photos/"
INCOMING = "incoming/"
ADAPTERS = "adapters/"
SAMPLES = "samples/"
CHECKPOINTS = "checkpoints/"
PICTURES = "pictures/"


def owner_of(key: str) -> str:
    """The second part of a key: the id of the album, avatar or job that it belongs to."""
    return key.split("/")[1]


def album(album_id: str) -> str:
    """The prefix of an album's photos."""
    return f"{PHOTOS}{album_id}/"


def photo(album_id: str, number: int) -> str:
    """One photo of an album, counted from 1."""
    return f"{album(album_id)}{number}"


def incoming(platform: str, platform_id: str) -> str:
    """The prefix of an account's photos that are in no album yet."""
    return f"{INCOMING}{platform}/{platform_id}/"


def adapters(avatar_id: str) -> str:
    """The prefix of everything that was learned of an avatar."""
    return f"{ADAPTERS}{avatar_id}/"


def adapter(avatar_id: str, job_id: str, attempt: int, file: str) -> str:
    """The adapter that one attempt of a training learned."""
    return f"{adapters(avatar_id)}{job_id}-{attempt}/{file}"


def samples(avatar_id: str) -> str:
    """The prefix of an avatar's sample pictures."""
    return f"{SAMPLES}{avatar_id}/"


def sample(avatar_id: str, job_id: str, attempt: int, number: int) -> str:
    """One sample picture of one attempt of a training, counted from 0."""
    return f"{samples(avatar_id)}{job_id}-{attempt}/{number}.png"


def learned(avatar_id: str, job_id: str, attempt: int) -> tuple[str, str]:
    """The prefixes of the adapter and the sample pictures of one attempt of a training."""
    return f"{adapters(avatar_id)}{job_id}-{attempt}/", f"{samples(avatar_id)}{job_id}-{attempt}/"


def checkpoints(job_id: str) -> str:
    """The prefix of a training's checkpoints."""
    return f"{CHECKPOINTS}{job_id}/"


def checkpoint(job_id: str, file: str) -> str:
    """A training's checkpoint; later attempts resume from it and replace it."""
    return f"{checkpoints(job_id)}{file}"


def pictures(job_id: str) -> str:
    """The prefix of everything that a job drew."""
    return f"{PICTURES}{job_id}/"


def picture(job_id: str, attempt: int, number: int) -> str:
    """One picture of one attempt of a drawing, counted from 0."""
    return f"{pictures(job_id)}{attempt}-{number}.png"


def drawn(job_id: str, attempt: int) -> str:
    """What the keys of all pictures of one attempt of a drawing start with, for `Blobs.list`."""
    return f"{pictures(job_id)}{attempt}-"
