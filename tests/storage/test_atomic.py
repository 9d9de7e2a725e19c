from pathlib import Path

import pytest

from storage.atomic import atomic_write


def test_a_file_is_written_whole_or_stays_what_it_was(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file.json"
    with atomic_write(file) as draft:
        draft.write_text("first")
        assert not file.exists()
    with pytest.raises(KeyboardInterrupt), atomic_write(file) as draft:
        draft.write_text("sec")
        raise KeyboardInterrupt
    assert file.read_text() == "first"
    with atomic_write(file) as draft:
        draft.write_text("second")
    assert file.read_text() == "second"
    assert list(file.parent.iterdir()) == [file]
