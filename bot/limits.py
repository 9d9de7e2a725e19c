"""The rules for what people may send: pure functions that return the cleaned value or raise `UserError`.

What an avatar may be called stands in `storage.naming`, since the engine's command line asks there too.
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
    """What to draw: 1 to 1,000 readable characters without the space around them."""
    return _readable(text, "prompt", fewest=1)


def negative_prompt(text: str) -> str:
    """What not to draw: as `prompt`, but it may be empty."""
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
    """How many pictures one /imagine draws."""
    return int(_between("count", number, 1, COUNT_MOST))


def steps(number: int | None) -> int | None:
    """How many sampling steps a picture gets; None leaves it to the base model."""
    return None if number is None else int(_between("steps", number, 1, STEPS_MOST))


def guidance(number: float | None) -> float | None:
    """How strictly the picture follows the prompt; None leaves it to the base model."""
    return None if number is None else float(_between("guidance", number, 0.0, GUIDANCE_MOST))


def seed(number: int | None) -> int | None:
    """Where the noise starts; None draws one."""
    return None if number is None else int(_between("seed", number, 0, SEED_MOST))


def size(text: str) -> tuple[int, int] | None:
    """Width and height in pixels from `512x768` or `512`; nothing leaves it to the base model."""
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
    """A style's name and how much it counts, 0 to 2, from `inks` (which is 1) or `inks:0.6`; nothing is no style."""
    name, colon, weight = (part.strip() for part in text.lower().partition(":"))
    if colon and not (re.fullmatch(r"\d(?:[.,]\d{1,3})?", weight, re.ASCII) and name):
        raise UserError("style_shape", most=STYLE_WEIGHT_MOST)
    counts = float(weight.replace(",", ".")) if weight else 1.0
    if counts > STYLE_WEIGHT_MOST:
        raise UserError("style_shape", most=STYLE_WEIGHT_MOST)
    return name or None, counts


def style_word(name: str, weight: float) -> str:
    """What `style` reads as this."""
    return name if weight == 1 else f"{name}:{weight:g}"


def lifetime(text: str) -> timedelta | None:
    """How long a grant lasts, from `45m`, `2h`, `7d` or `2w`: a minute to a year. Nothing is until it is taken back."""
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
    """How many trainings or pictures a day, 0 to 100,000; None for `none`, as many as they like."""
    if text.lower() == "none":
        return None
    if not re.fullmatch(r"\d{1,6}", text, re.ASCII):
        raise UserError("quota_shape")
    return int(_between("quota", int(text), 0, QUOTA_MOST))


def notice(text: str) -> str:
    """What an operator tells every room: 1 to 1,000 readable characters."""
    if not text.strip():
        raise UserError("notice_empty")
    if len(text) > NOTICE_MOST:
        raise UserError("message_long", most=NOTICE_MOST)
    return _readable(text, "message", fewest=1)


def person_name(text: str) -> str:
    """The name somebody goes by in the local chat: 1 to 32 visible characters, inner space squeezed."""
    name = " ".join(text.split())
    if not 1 <= len(name) <= NAME_MOST or any(unicodedata.category(character)[0] == "C" for character in name):
        raise UserError("name_shape", most=NAME_MOST)
    return name


def room_name(text: str) -> str:
    """A room's name as its link spells it: letters and digits joined by hyphens, at most 32."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text[:200]).lower())
    name = "-".join(words)
    if not 1 <= len(name) <= NAME_MOST:
        raise UserError("room_shape", most=NAME_MOST)
    return name


def _between(option: str, number: float, least: float, most: float) -> float:
    # A comparison with NaN is always false, so this refuses it too.
    if not least <= number <= most:
        raise UserError("out_of_range", option=option, least=least, most=most)
    return number
