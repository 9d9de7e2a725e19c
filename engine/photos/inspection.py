"""Photo inspection: a verdict on each photo's file, faces and quality, and on duplicates.

A verdict's facts hold the measured figures. The thresholds are in `Rules` or next to the function that measures, with
the photos that they were derived from. Importing this module is cheap.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.photos.decoding import BadPhoto, decode
from engine.photos.faces import Face, find_faces, is_drawing, rotated
from engine.photos.rules import Rules

SENTENCES = {
    "empty": "the file is empty",
    "too_heavy": "the file has {megabytes} MB, more than {limit} MB",
    "not_image": "this is not a picture in a format that can be read (JPEG, PNG, WebP, AVIF, HEIC, TIFF, GIF, BMP)",
    "broken": "the file is damaged or was not transferred completely",
    "too_many_pixels": "it has {megapixels} megapixels, more than {limit}",
    "float_tiff": "it is a TIFF with floating point numbers, which cannot be read",
    "odd_tiff": "it is a TIFF of a kind that cannot be read",
    "unknown_colours": "its colours are coded in a way that cannot be read ({colours}); save it as JPEG or PNG",
    "animated": "it is an animation, not a photo",
    "too_small": "it has {width} x {height} pixels; at least {limit} on the shorter side are needed",
    "aspect": "it is too long and narrow ({width} x {height})",
    "no_face": "no face was found",
    "several_faces": "it shows {faces} faces; only the person to be learned should be in it",
    "blurred": "it is blurred",
    "too_dark": "it is too dark",
    "duplicate": "it is the same photo as number {of}",
    "soft": "it is a little out of focus",
    "face_small": "the face is small in it",
    "face_cut": "the face is cut off by the edge",
    "near_duplicate": "it is almost the same as number {of}",
    "rotated": "it was on its side and has been turned upright",
    "grayscale": "it is black and white",
    "compressed": "it is heavily compressed",
    "dark": "it is rather dark",
    "drawn": "it looks drawn, so no face was looked for",
    "low_resolution": "it has only {width} x {height} pixels",
}
"""One clause for each code, for the command line. The chats' texts for these codes are in `bot/replies`."""

REJECTIONS = frozenset(
    "empty too_heavy not_image broken too_many_pixels float_tiff odd_tiff unknown_colours animated too_small aspect "
    "no_face several_faces blurred too_dark duplicate".split()
)
"""Codes that reject a photo. All other codes are remarks."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one photo."""

    codes: tuple[str, ...]
    """Rejections and remarks; empty for a photo without faults."""
    facts: Mapping[str, Any]
    """Figures by name, such as `width`."""

    @property
    def ok(self) -> bool:
        """Whether the photo can be learned from."""
        return REJECTIONS.isdisjoint(self.codes)

    def to_json(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        return {"ok": self.ok, "codes": list(self.codes), "facts": dict(self.facts)}


@dataclass(frozen=True, slots=True, eq=False)
class Inspected:
    """One photo with its verdict. `image` is upright RGB without metadata, or None if the file could not be decoded."""

    verdict: Verdict
    image: Image.Image | None
    digest: str
    """SHA-256 of the file."""
    thumbnail: NDArray[np.float32] | None
    """(16, 16, 3), 0 to 255. Near duplicates have similar thumbnails."""
    face: Face | None = None
    """The largest face, in pixels of `image`; None if there is none or none was looked for."""


def learnable(data: bytes, rules: Rules | None = None) -> Image.Image:
    """The photo as it is learned: as `load_photo` gives it, and turned upright as its verdict says. Raises BadPhoto."""
    rules = rules or Rules()
    image, _ = decode(data, rules)
    if rules.faces == "ignored" or _unjudged(image, rules) or is_drawing(image):
        return image
    return _turned_upright(image, find_faces(image))


def sentence(verdict: Verdict) -> str:
    """The verdict in one sentence."""
    if not verdict.codes:
        return "Good."
    clauses = [clause(code, verdict.facts) for code in verdict.codes]
    return f"{'Accepted, but' if verdict.ok else 'Rejected:'} {'; '.join(clauses)}."


def clause(code: str, facts: Mapping[str, Any]) -> str:
    """One code's clause."""
    return SENTENCES[code].format_map(_Facts(facts))


class _Facts(dict[str, Any]):
    """Facts for a sentence, with a question mark for one that is missing."""

    def __missing__(self, key: str) -> str:
        return "?"


# Quality


def _sharpness(gray: NDArray[np.float64]) -> float:
    """The variance of the second differences of a picture (H, W) at unit contrast. It is the smaller one of the two
    directions, since motion blur affects only one."""
    if min(gray.shape) < 8:
        return 0.0
    even = (gray - gray.mean()) / (gray.std() + 4)
    across = even[:, 2:] + even[:, :-2] - 2 * even[:, 1:-1]
    along = even[2:] + even[:-2] - 2 * even[1:-1]
    return float(min(across.var(), along.var()))


def _gray(image: Image.Image, side: int) -> NDArray[np.float64]:
    """Gray values, (H, W), 0 to 255, with the longer side at most at `side` pixels."""
    image = image.convert("L")
    image.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(image).astype(np.float64)


def _colourless(image: Image.Image) -> bool:
    """Whether nearly all pixels are gray."""
    small = image.copy()
    small.thumbnail((128, 128), Image.Resampling.BOX)
    pixels = np.asarray(small).astype(np.int16)
    return float((pixels.max(axis=2) - pixels.min(axis=2) <= 4).mean()) > 0.995


# Verdicts


def inspect_photo(data: bytes, rules: Rules | None = None) -> Inspected:
    """The verdict on one photo. It never raises, whatever the file contains."""
    rules = rules or Rules()
    digest = hashlib.sha256(data).hexdigest()
    try:
        image, facts = decode(data, rules)
    except BadPhoto as bad:
        return Inspected(Verdict((bad.code,), bad.facts), None, digest, None)
    image, face, codes = _judged(image, facts, rules)
    verdict = Verdict(tuple(codes), {name: value for name, value in facts.items() if value is not None})
    thumbnail = np.asarray(image.resize((16, 16), Image.Resampling.BOX)).astype(np.float32)
    return Inspected(verdict, image, digest, thumbnail, face)


def _judged(image: Image.Image, facts: dict[str, Any], rules: Rules) -> tuple[Image.Image, Face | None, list[str]]:
    """The photo, turned upright if its face is on its side, its face, and its codes. Figures are added to `facts`."""
    codes: list[str] = []
    facts |= {"width": image.width, "height": image.height}
    shorter, longer = sorted(image.size)
    drawn = is_drawing(image)
    least = rules.min_side_drawn if drawn else rules.min_side
    if shorter < least:
        codes.append("too_small")
        facts["limit"] = least
    elif shorter < rules.good_side and not drawn:
        codes.append("low_resolution")
    if longer > rules.max_aspect * shorter:
        codes.append("aspect")
    if _unjudged(image, rules):
        return image, None, codes
    face = None
    if drawn:
        codes.append("drawn")
    elif rules.faces == "required":
        face, image = _judge_faces(image, facts, codes)
    if not drawn:
        _judge_light(image, face, facts, codes)
    if _colourless(image):
        codes.append("grayscale")
    if (facts.get("quality") or 100) < 25:
        codes.append("compressed")
    return image, face, codes


def _unjudged(image: Image.Image, rules: Rules) -> bool:
    """Whether a photo is too small or too narrow to be looked at."""
    shorter, longer = sorted(image.size)
    return shorter < 64 or longer > rules.max_aspect * shorter


def _turned_upright(image: Image.Image, faces: Sequence[Face]) -> Image.Image:
    """The photo, turned as its largest face needs."""
    return rotated(image, faces[0].turn) if faces else image


def _judge_faces(image: Image.Image, facts: dict[str, Any], codes: list[str]) -> tuple[Face | None, Image.Image]:
    faces = find_faces(image)
    faces = [face for face in faces if face.width > 0.4 * faces[0].width]  # people in the background are no problem
    facts["faces"] = len(faces)
    if not faces:
        codes.append("no_face")
        return None, image
    face = faces[0]
    if face.turn:
        codes.append("rotated")
        facts["turn"] = face.turn
        image = _turned_upright(image, faces)
    if len(faces) > 1:
        codes.append("several_faces")
    facts["face"] = round(face.width / min(image.size), 3)
    if facts["face"] < 0.12:
        codes.append("face_small")
    inside = max(0, min(face.right, image.width) - max(face.left, 0)) * max(
        0, min(face.bottom, image.height) - max(face.top, 0)
    )
    if inside < 0.97 * face.width * face.height:
        codes.append("face_cut")
    return face, image


_BLURRED, _SOFT = 0.008, 0.002
"""Least sharpness at 48 and at 128 px.

On a face of 124 px, gaussian blur of 9 px and motion blur of 25 px give 0.003 and 0.006 at 48 px, and blur of 3 px
gives 0.0013 at 128 px. The dimmest good photo gives 0.012 and 0.0028, the usual one 0.1 and 0.03."""


def _judge_light(image: Image.Image, face: Face | None, facts: dict[str, Any], codes: list[str]) -> None:
    """Judge blur and darkness, of the face if there is one, or else of the picture."""
    part = image.crop((face.left, face.top, face.right, face.bottom)) if face else image
    fine, coarse = _sharpness(_gray(part, 128)), _sharpness(_gray(part, 48))
    gray = _gray(part, 128)
    bright = float(np.percentile(gray, 90))
    facts |= {"sharpness": [round(fine, 5), round(coarse, 5)], "brightness": round(float(gray.mean()))}
    if gray.std() >= 4:  # an even area is neither sharp nor blurred
        if coarse < _BLURRED:
            codes.append("blurred")
        elif fine < _SOFT:
            codes.append("soft")
    if bright < 40:
        codes.append("too_dark")
    elif gray.mean() < 45:
        codes.append("dark")


def inspect_album(
    photos: Sequence[bytes], rules: Rules | None = None, seen: Callable[[int, Inspected], None] | None = None
) -> list[Verdict]:
    """The verdicts on an album's photos, in their order, duplicates included. `seen` is called after each photo."""
    inspected: list[Inspected] = []
    verdicts: list[Verdict] = []
    for number, data in enumerate(photos, start=1):
        one = inspect_photo(data, rules)
        verdicts.append(_with_duplicates(one, inspected))
        inspected.append(one)
        if seen:
            seen(number, one)
    return verdicts


def _with_duplicates(one: Inspected, earlier: Sequence[Inspected]) -> Verdict:
    """The verdict. A duplicate or near duplicate gets that code, and the number of the first earlier photo like it."""
    if one.image is None:
        return one.verdict
    for code, alike in (("duplicate", _same), ("near_duplicate", _near)):
        for number, other in enumerate(earlier, start=1):
            if other.image is not None and alike(one, other):
                return Verdict((*one.verdict.codes, code), {**one.verdict.facts, "of": number})
    return one.verdict


def _same(one: Inspected, other: Inspected) -> bool:
    if one.digest == other.digest:
        return True
    a, b = one.image, other.image
    return a is not None and b is not None and a.size == b.size and a.tobytes() == b.tobytes()


def _near(one: Inspected, other: Inspected) -> bool:
    """Whether the 16 x 16 thumbnails are similar everywhere. A photo that was resized and saved again differs by less
    than 1 on average."""
    if one.thumbnail is None or other.thumbnail is None:
        return False
    difference = np.abs(one.thumbnail - other.thumbnail)
    return float(difference.mean()) < 3 and float(difference.max()) < 30
