"""The rules for what people may send: pure functions that return the cleaned value or raise `UserError`.

The rules for avatar names are in `storage.naming`, because the engine's command line uses them too.
"""

import re
import unicodedata
from datetime import timedelta

from storage.errors import UserError
from storage.jobs import PHOTOS_FEWEST as PHOTOS_FEWEST

PHOTOS_MOST = 10
PHOTO_BYTES = 20 * 1024 * 1024
PROMPT_MOST = 1000
COUNT_MOST = 4
STEPS_MOST = 150
GUIDANCE_MOST = 30.0
SEED_MOST = 2**32 - 1
ACTIVE_JOBS_MOST = 20
NAME_MOST = 32
SIDE_LEAST = 64
SIDE_MOST = 1536
STYLE_WEIGHT_MOST = 2.0
SHARED_MOST = timedelta(days=365)
QUOTA_MOST = 100_000
NOTICE_MOST = 1000


def photo_count(count: int) -> int:
    """How many photos an album may have."""
    if count < PHOTOS_FEWEST:
        raise UserError("photos_few", count=count, fewest=PHOTOS_FEWEST, most=PHOTOS_MOST)
    if count > PHOTOS_MOST:
        raise UserError("photos_many", fewest=PHOTOS_FEWEST, most=PHOTOS_MOST)
    return count


def photo_size(size: int, number: int) -> int:
    """How many bytes photo `number` (from 1) may have."""
    if size < 1:
        raise UserError("photo_empty", number=number)
    if size > PHOTO_BYTES:
        raise UserError("photo_large", number=number, megabytes=PHOTO_BYTES // 1024 // 1024)
    return size


def prompt(text: str) -> str:
    """What to draw: 1 to 1,000 readable characters, stripped of surrounding white space."""
    return _readable(text, "prompt", fewest=1)


def negative_prompt(text: str) -> str:
    """What not to draw: like `prompt`, but it may be empty."""
    return _readable(text, "negative", fewest=0)


def _readable(text: str, option: str, fewest: int) -> str:
    text = text.strip()
    if len(text) < fewest:
        raise UserError("prompt_empty")
    if len(text) > PROMPT_MOST:
        raise UserError("prompt_long", option=option, length=len(text), most=PROMPT_MOST)
    if any(unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t" for character in text):
        raise UserError("prompt_unreadable", option=option)
    return text


def count(number: int) -> int:
    """The number of pictures of one /imagine, 1 to 4."""
    return int(_between("count", number, 1, COUNT_MOST))


def steps(number: int | None) -> int | None:
    """The number of sampling steps; None uses the base model's default."""
    return None if number is None else int(_between("steps", number, 1, STEPS_MOST))


def guidance(number: float | None) -> float | None:
    """The guidance scale: how strictly the picture follows the prompt; None uses the base model's default."""
    return None if number is None else float(_between("guidance", number, 0.0, GUIDANCE_MOST))


def seed(number: int | None) -> int | None:
    """The seed of the noise; None means a random one."""
    return None if number is None else int(_between("seed", number, 0, SEED_MOST))


def size(text: str) -> tuple[int, int] | None:
    """Width and height in pixels from `384x256` or `256`; None for an empty text: the base model's own size."""
    if not text.strip():
        return None
    found = re.fullmatch(r"(\d{1,5})(?:\s*[x×*]\s*(\d{1,5}))?", text.strip().lower(), re.ASCII)
    if found is None:
        raise UserError("size_shape")
    width = int(found[1])
    height = int(found[2] or width)
    for side in (width, height):
        _between("size", side, SIDE_LEAST, SIDE_MOST)
    return width, height


def style(text: str) -> tuple[str | None, float]:
    """A style's name and weight, 0 to 2, from `inks` (weight 1) or `inks:0.6`; (None, 1.0) for an empty text."""
    name, colon, weight = (part.strip() for part in text.lower().partition(":"))
    if colon and not (re.fullmatch(r"\d(?:[.,]\d{1,3})?", weight, re.ASCII) and name):
        raise UserError("style_shape", most=STYLE_WEIGHT_MOST)
    number = float(weight.replace(",", ".")) if weight else 1.0
    if number > STYLE_WEIGHT_MOST:
        raise UserError("style_shape", most=STYLE_WEIGHT_MOST)
    return name or None, number


def style_word(name: str, weight: float) -> str:
    """The text that `style` reads as this name and weight."""
    return name if weight == 1 else f"{name}:{weight:g}"


def lifetime(text: str) -> timedelta | None:
    """How long a grant lasts, from `45m`, `2h`, `7d` or `2w`: a minute to a year. None for an empty text: no end."""
    if not text.strip():
        return None
    found = re.fullmatch(r"(\d{1,6})\s*([mhdw])[a-z]*", text.strip().lower(), re.ASCII)
    unit = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    if (
        found is None
        or not timedelta(minutes=1) <= (span := timedelta(**{unit[found[2]]: int(found[1])})) <= SHARED_MOST
    ):
        raise UserError("lifetime_shape")
    return span


def quota(text: str) -> int | None:
    """How many trainings or pictures a day, 0 to 100,000; None for `none`: no limit."""
    if text.lower() == "none":
        return None
    if not re.fullmatch(r"\d{1,6}", text, re.ASCII):
        raise UserError("quota_shape")
    return int(_between("quota", int(text), 0, QUOTA_MOST))


def notice(text: str) -> str:
    """An operator's notice to every room: 1 to 1,000 readable characters."""
    if not text.strip():
        raise UserError("notice_empty")
    if len(text) > NOTICE_MOST:
        raise UserError("message_long", most=NOTICE_MOST)
    return _readable(text, "message", fewest=1)


def person_name(text: str) -> str:
    """A person's name in the local chat: 1 to 32 visible characters, each run of white space made one space."""
    name = " ".join(text.split())
    if not 1 <= len(name) <= NAME_MOST or any(unicodedata.category(character)[0] == "C" for character in name):
        raise UserError("name_shape", most=NAME_MOST)
    return name


def room_name(text: str) -> str:
    """A room's name as in its link: letters and digits joined by hyphens, at most 32 characters."""
    name = "-".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text[:200]).lower()))
    if not 1 <= len(name) <= NAME_MOST:
        raise UserError("room_shape", most=NAME_MOST)
    return name


def _between(option: str, number: float, least: float, most: float) -> float:
    # A comparison with NaN is always false, so this refuses it too.
    if not least <= number <= most:
        raise UserError("out_of_range", option=option, least=least, most=most)
    return number
