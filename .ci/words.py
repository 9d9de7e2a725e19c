"""Bring the catalogues in bot/catalog up to date with the sentences in the code; run by `make words`.

New sentences come in empty, to be translated by hand; sentences that are gone are dropped. A test compares the
catalogues with the code, and lists what is not translated.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from babel.messages import Catalog  # noqa: E402
from babel.messages import Message as CatalogMessage  # noqa: E402
from babel.messages.extract import extract_from_dir  # noqa: E402
from babel.messages.frontend import parse_keywords  # noqa: E402
from babel.messages.pofile import read_po, write_po  # noqa: E402

from bot.language import CATALOG, LANGUAGES  # noqa: E402

CALLS = parse_keywords(["say", "marked", "several:1,2"])
"""Which arguments of a call are sentences. Where `say` gets a variable, the sentence is `marked` elsewhere."""


def in_page(
    file: BinaryIO, keywords: Mapping[str, Any], comment_tags: object, options: object
) -> Iterator[tuple[int, str, str, list[str]]]:
    """The sentences between double braces in the chat page, as one of Babel's extractors."""
    for number, line in enumerate(file.read().decode().splitlines(), start=1):
        for found in re.finditer(r"\{\{(.+?)\}\}", line):
            yield number, "say", found[1], []


METHODS = [("**.py", "python"), ("**.js", "javascript"), ("**.html", in_page)]


def template() -> Catalog:
    """Every sentence that the bot can say."""
    catalog = Catalog()
    found = extract_from_dir(ROOT / "bot", METHODS, keywords=CALLS)  # type: ignore[arg-type] # a function is fine too
    for path, _, sentence, *_ in sorted(found, key=lambda one: one[:2]):
        catalog.add(sentence, locations=[(f"bot/{path}", None)])
    return catalog


def main() -> None:
    """Rewrite each catalogue in place."""
    sentences = template()
    for language in LANGUAGES[1:]:
        path = CATALOG / f"{language}.po"
        catalog = read_po(path.open("rb"), locale=language) if path.exists() else Catalog(locale=language)
        catalog.update(sentences, no_fuzzy_matching=True, update_creation_date=False)
        with path.open("wb") as file:
            # The header would change with every run, and the locale says all that is in it.
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
