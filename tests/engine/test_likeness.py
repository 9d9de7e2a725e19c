"""How alike pictures are to the person of an album."""

from random import Random

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
