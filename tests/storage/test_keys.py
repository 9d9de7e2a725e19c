"""Every blob key is valid, and lies below the prefix that erases it."""

import pytest

from storage import keys
from storage.blobs import checked


@pytest.mark.parametrize(
    ("key", "prefix", "kind", "owner"),
    [
        (keys.photo("album1", 1), keys.album("album1"), keys.PHOTOS, "album1"),
        (keys.incoming("telegram", "11") + "tray/0", keys.incoming("telegram", "11"), keys.INCOMING, "telegram"),
        (keys.adapter("avatar1", "job1", 2, "a.safetensors"), keys.adapters("avatar1"), keys.ADAPTERS, "avatar1"),
        (keys.sample("avatar1", "job1", 2, 0), keys.samples("avatar1"), keys.SAMPLES, "avatar1"),
        (keys.checkpoint("job1", "c.safetensors"), keys.checkpoints("job1"), keys.CHECKPOINTS, "job1"),
        (keys.picture("job1", 2, 0), keys.pictures("job1"), keys.PICTURES, "job1"),
    ],
)
def test_a_key_lies_below_its_prefixes(key: str, prefix: str, kind: str, owner: str) -> None:
    assert checked(key) == key
    assert key.startswith(prefix) and prefix.startswith(kind) and prefix.endswith("/")
    assert keys.owner_of(key) == owner


def test_keys_are_those_of_blobs_that_are_stored_already() -> None:
    """Renaming one would lose the files that users have."""
    assert keys.photo("a", 1) == "photos/a/1"
    assert keys.incoming("telegram", "11") == "incoming/telegram/11/"
    assert keys.adapter("a", "j", 2, "x") == "adapters/a/j-2/x"
    assert keys.sample("a", "j", 2, 0) == "samples/a/j-2/0.png"
    assert keys.checkpoint("j", "x") == "checkpoints/j/x"
    assert keys.picture("j", 2, 0) == "pictures/j/2-0.png"


def test_what_one_attempt_stored_has_a_prefix_of_its_own() -> None:
    of_adapters, of_samples = keys.learned("a", "j", 1)
    assert keys.adapter("a", "j", 1, "x").startswith(of_adapters) and of_adapters.endswith("/")
    assert keys.sample("a", "j", 1, 0).startswith(of_samples) and of_samples.endswith("/")
    assert keys.picture("j", 1, 0).startswith(checked(keys.drawn("j", 1)))
    for other in (2, 11):
        assert not keys.adapter("a", "j", other, "x").startswith(of_adapters)
        assert not keys.sample("a", "j", other, 0).startswith(of_samples)
        assert not keys.picture("j", other, 0).startswith(keys.drawn("j", 1))


def test_two_attempts_write_different_keys() -> None:
    assert keys.adapter("a", "j", 1, "x") != keys.adapter("a", "j", 2, "x")
    assert keys.sample("a", "j", 1, 0) != keys.sample("a", "j", 2, 0)
    assert keys.picture("j", 1, 0) != keys.picture("j", 2, 0)
