"""Bring the catalogues in bot/catalog up to date with the sentences in the code; run by `make words`.

New sentences come in empty, to be translated by hand; those that are gone go. A test compares, and lists what is empty.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from babel.messages import Catalog  # noqa: E402
from babel.messages import Message as CatalogMessage  # noqa: E402
from babel.messages.extract import extract  # noqa: E402
from babel.messages.pofile import read_po, write_po  # noqa: E402

from bot.language import LANGUAGES, WORDS  # noqa: E402

CALLS = {"say": (0,), "marked": (0,), "several": (0, 1), "Command": (1,), "Option": (2,)}
"""Which arguments of a call are sentences. Where `say` gets a variable, the sentence is `marked` elsewhere."""
PAGE_WORDS = re.compile(r"\{\{(.+?)\}\}")

Message = str | tuple[str, ...]


def in_python(source: str) -> Iterator[tuple[int, Message]]:
    """Each sentence with its line. Raises ValueError for an f-string, which no catalogue can know."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in CALLS:
            continue
        given = [node.args[at] for at in CALLS[node.func.id] if at < len(node.args)]
        if any(isinstance(one, ast.JoinedStr) for one in given):
            raise ValueError(f"line {node.lineno}: {node.func.id} takes a sentence with {{placeholders}}, no f-string")
        said = tuple(one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str))
        if said:
            yield node.lineno, said if len(said) > 1 else said[0]


def in_script(path: Path) -> Iterator[tuple[int, Message]]:
    """As `in_python`, in the chat page's JavaScript."""
    keywords = {"say": None, "marked": None, "several": (1, 2)}
    with path.open("rb") as file:
        for line, said, _, _ in extract("javascript", file, keywords):
            yield line, said


def in_page(source: str) -> Iterator[tuple[int, Message]]:
    """The words between double braces in the chat page."""
    for number, line in enumerate(source.splitlines(), start=1):
        for found in PAGE_WORDS.finditer(line):
            yield number, found[1]


def template() -> Catalog:
    """Every sentence that the bot can say."""
    catalog = Catalog()
    for path in sorted((ROOT / "bot").rglob("*")):
        match path.suffix:
            case ".py":
                found = list(in_python(path.read_text("utf-8")))
            case ".js":
                found = list(in_script(path))
            case ".html":
                found = list(in_page(path.read_text("utf-8")))
            case _:
                continue
        for _, said in sorted(found, key=lambda pair: pair[0]):
            catalog.add(said, locations=[(path.relative_to(ROOT).as_posix(), None)])
    return catalog


def main() -> None:
    """Rewrite each catalogue in place."""
    sentences = template()
    for language in LANGUAGES[1:]:
        path = WORDS / f"{language}.po"
        catalog = read_po(path.open("rb"), locale=language) if path.exists() else Catalog(locale=language)
        catalog.update(sentences, no_fuzzy_matching=True, update_creation_date=False)
        with path.open("wb") as file:
            # Its header would change with every run, and nobody needs it: the locale says what it would say.
            write_po(file, catalog, width=120, omit_header=True, include_lineno=False, ignore_obsolete=True)
        empty = sum(
            1 for message in read_po(path.open("rb"), locale=language) if message.id and not translated(message)
        )
        print(f"{path.relative_to(ROOT)}: {len(catalog)} sentences, {empty} to translate")


def translated(entry: CatalogMessage) -> bool:
    """Whether every form of the entry has words."""
    forms = (entry.string,) if isinstance(entry.string, str) else entry.string or ("",)
    return all(forms)


if __name__ == "__main__":
    main()
