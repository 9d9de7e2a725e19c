"""A file is replaced as a whole or not at all, and no draft is left behind."""

import ast
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import atomic
from storage.atomic import atomic_write, is_disk_full, put_aside, write_bytes, write_text
from storage.errors import UserError

CRASH = """
import os, sys
from pathlib import Path
from storage.atomic import atomic_write

if sys.argv[2] == "before the rename":
    Path.replace = lambda draft, path: os._exit(9)
with atomic_write(Path(sys.argv[1])) as draft:
    draft.write_text("sec")
    if sys.argv[2] == "while writing":
        os._exit(9)
"""


def test_a_file_is_written_completely_or_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "new" / "file.json"
    with atomic_write(file) as draft:
        draft.write_text("first")
        assert not file.exists()
        assert draft.parent == file.parent and draft.name.startswith(".") and draft.suffix == ".json"
    with pytest.raises(KeyboardInterrupt), atomic_write(file) as draft:
        draft.write_text("sec")
        raise KeyboardInterrupt
    assert file.read_text() == "first"
    with atomic_write(file) as draft:
        draft.write_text("second")
    assert file.read_text() == "second"
    assert list(file.parent.iterdir()) == [file]


def test_text_and_bytes_are_written_in_one_call(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "text", "Grüße\n")
    write_bytes(tmp_path / "bytes", b"\xff")
    assert (tmp_path / "a" / "text").read_bytes() == "Grüße\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\xff"


@pytest.mark.parametrize("moment", ["while writing", "before the rename"])
def test_a_crash_leaves_the_old_file(tmp_path: Path, moment: str) -> None:
    file = tmp_path / "file"
    write_text(file, "first")
    assert subprocess.run([sys.executable, "-c", CRASH, file, moment]).returncode == 9
    assert file.read_text() == "first"
    (draft,) = tmp_path.glob(".*")
    # The crashed process left its draft. A draft that another process may still be writing is not touched.
    write_text(file, "second")
    assert draft.exists()
    old = draft.stat().st_mtime - atomic.STALE_SECONDS - 1
    os.utime(draft, (old, old))
    write_text(file, "third")
    assert list(tmp_path.iterdir()) == [file] and file.read_text() == "third"


def test_no_draft_stays_if_the_rename_fails(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_body_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file"):
        pass
    assert not list(tmp_path.iterdir())


def test_two_writers_of_one_path_do_not_share_a_draft(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with atomic_write(file) as first, atomic_write(file) as second:
        first.write_text("first")
        second.write_text("second")
    assert file.read_text() == "first" and list(tmp_path.iterdir()) == [file]


def test_the_file_is_synced_before_the_rename_and_its_folders_after(tmp_path: Path, monkeypatch) -> None:
    done = list[int | str]()
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def renamed(draft: Path, path: Path) -> Path:
        done.append("renamed")
        return replace(draft, path)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    with atomic_write(tmp_path / "a" / "b" / "file") as draft:
        draft.write_text("text")
    folders = (tmp_path / "a" / "b", tmp_path / "a", tmp_path)
    assert done == [(tmp_path / "a" / "b" / "file").stat().st_ino, "renamed", *(one.stat().st_ino for one in folders)]


ROOT = Path(__file__).parents[2]
OTHERWISE = {
    "bot/frontends/chat/sessions.py": "a key that only the first of several processes may create",
    "bot/frontends/discord/rendering.py": "a JPEG in memory, to be sent",
    "bot/frontends/terminal.py": "the log of a process",
    "engine/adapters/card.py": "a JPEG in memory, for a file's header",
    "engine/commands/draw.py": "Picture.save, which writes atomically",
    "engine/learning/training.py": "Learner.save, which writes atomically",
    "engine/pretraining/loop.py": "a log, to which lines are appended",
    "engine/pretraining/pictures.py": "a log, to which lines are appended",
    "engine/pretraining/looks_pictures.py": "a JPEG in memory, to blur a picture as cameras do",
    "engine/tensor_files.py": "a draft of atomic_write, in pieces",
    "engine/work/gpu_process.py": "Picture.save, which writes atomically, and a pipe",
    "storage/atomic.py": "this is how",
    "storage/blobs.py": "streams of bytes into private drafts, synced and renamed likewise",
}
"""The files with other ways to write, and what these write."""


def test_every_file_of_the_product_is_written_atomically() -> None:
    files = [path for folder in ("bot", "engine", "storage") for path in (ROOT / folder).rglob("*.py")]
    found = {str(path.relative_to(ROOT)): list(plain_writes(path.read_text())) for path in files}
    assert {path: writes for path, writes in found.items() if writes and path not in OTHERWISE} == {}


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        ("path.write_text(a)", True),
        ("(folder / name).write_bytes(a)", True),
        ("picture.save(path, 'PNG')", True),
        ("save_file(tensors, path)", True),
        ("torch.save(tensors, path)", True),
        ("path.open('wb')", True),
        ("open(path, mode='a')", True),
        ("os.fdopen(number, 'xb')", True),
        ("path.open('rb')", False),
        ("open(path)", False),
        ("write_text(path, a)", False),
        ("with atomic_write(path) as draft:\n    draft.write_text(a)", False),
        ("with lock, atomic_write(path) as new:\n    save_file(tensors, new)", False),
        ("with atomic_write(path) as draft:\n    picture.save(path)", True),
    ],
)
def test_plain_writes_are_found(source: str, plain: bool) -> None:
    assert bool(list(plain_writes(source))) == plain


def plain_writes(source: str) -> Iterator[str]:
    """The calls that write a file, except into a draft of `atomic_write`."""
    nodes = list(ast.walk(ast.parse(source)))
    drafts = {
        ast.unparse(item.optional_vars)
        for node in nodes
        if isinstance(node, ast.With | ast.AsyncWith)
        for item in node.items
        if item.optional_vars and ast.unparse(item.context_expr).startswith("atomic_write(")
    }
    for node in nodes:
        if not isinstance(node, ast.Call):
            continue
        owner, _, name = ast.unparse(node.func).rpartition(".")
        arguments = [ast.unparse(argument) for argument in [*node.args, *(keyword.value for keyword in node.keywords)]]
        if name in ("write_text", "write_bytes"):
            plain = owner not in ("", *drafts)
        elif name in ("save", "save_file"):
            plain = bool(arguments) and not drafts.intersection(arguments)
        elif name in ("open", "fdopen"):
            modes = [argument.strip("'") for argument in arguments if argument.startswith("'")]
            plain = any(mode[:1] in ("w", "x", "a") and len(mode) <= 3 for mode in modes)
        else:
            plain = False
        if plain:
            yield ast.unparse(node)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full"), OSError(errno.EDQUOT, "quota"), RuntimeError("I/O error: full (os error 28)")],
)
def test_a_full_disk_is_an_error_that_names_the_folder(tmp_path: Path, error: Exception) -> None:
    write_text(tmp_path / "file", "before")
    with pytest.raises(UserError) as refused, atomic_write(tmp_path / "file"):
        raise error
    assert (refused.value.code, refused.value.facts) == ("disk_full", {"folder": str(tmp_path)})
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    for error in (PermissionError(errno.EACCES, "no"), RuntimeError("os error 2"), RuntimeError("(os error 13)")):
        assert not is_disk_full(error)
        with pytest.raises(type(error)), atomic_write(tmp_path / "file"):
            raise error


def test_a_file_is_put_aside_under_a_name_of_its_own(tmp_path: Path) -> None:
    for content in ("first", "second"):
        write_text(tmp_path / "file.json", content)
        assert put_aside(tmp_path / "file.json", "damaged") == tmp_path / "file.damaged.json"
    assert [path.read_text() for path in tmp_path.iterdir()] == ["second"]
    assert put_aside(tmp_path / "file.json", "damaged") is None
