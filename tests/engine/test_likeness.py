"""How alike pictures are to the person of an album."""

from pathlib import Path
from random import Random

import pytest
from PIL import Image

from engine.measuring.likeness import FaceLikeness, JudgedLikeness
from engine.toon.world import album, render, sample_person


def test_a_person_is_more_like_their_own_album_than_others_are() -> None:
    random = Random(3)
    people = [sample_person(random, held_out=True) for _ in range(4)]
    albums = [[render(scene) for scene in album(person, 6, seed)] for seed, person in enumerate(people)]
    likeness = JudgedLikeness(albums[0][:4])
    assert likeness.known
    own, *others = [likeness(pictures[4:]) for pictures in albums]
    assert own > 0.8 > max(others)


def test_where_no_face_is_seen_nothing_is_known() -> None:
    likeness = FaceLikeness([Image.new("RGB", (64, 64), "red")])
    assert not likeness.known
    assert likeness([Image.new("RGB", (64, 64), "red")]) == 0


LONDON = Path(__file__).parents[3] / "shared" / "data" / "portraits"


@pytest.mark.skipif(not LONDON.is_dir(), reason="the shared test photos are not here")
def test_faces_are_ranked_by_distance_and_never_above_the_persons_own_photos() -> None:
    names = sorted({path.name.split("_")[1] for path in LONDON.glob("london_*.jpg")})[:4]
    photos = [
        [Image.open(path).convert("RGB") for path in sorted(LONDON.glob(f"london_{name}_*.jpg"))] for name in names
    ]
    likeness = FaceLikeness(photos[0][:1])
    own, *others = [likeness(pictures[1:]) for pictures in photos]
    assert own > 0.6 and max(others) < 0.5
    assert len({own, *others}) > 2, "a share of photos under a limit could only be 0 or 1"
    assert likeness(photos[0][:1]) == 1.0
