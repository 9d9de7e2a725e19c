"""The structure in figures: `python -m tests.structure [--root FOLDER]` reads the source of another checkout too.

Counts functions and classes with `ast`. Nothing of the code is imported.
"""

import argparse
import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

ROOT = Path(__file__).parent.parent
PACKAGES = ("bot", "engine", "storage")


@dataclass(frozen=True)
class Function:
    name: str
    lines: int
    parameters: int
    """Without self and cls."""


@dataclass(frozen=True)
class Structure:
    files: dict[str, int]
    """Lines of each module."""
    functions: list[Function]
    methods: dict[str, int]
    """Methods of each class."""


def modules(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        # A migration is a list of statements that is never changed again.
        yield from (path for path in sorted((root / package).rglob("*.py")) if "migrations" not in path.parts)


def read(root: Path = ROOT) -> Structure:
    """The figures of the product's code."""
    found = Structure({}, [], {})
    for path in modules(root):
        text, name = path.read_text("utf-8"), path.relative_to(root).as_posix()
        found.files[name] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                given = node.args
                names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
                count = len([one for one in names if one not in ("self", "cls")])
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                found.functions.append(Function(f"{name}:{node.name}", lines, count))
            elif isinstance(node, ast.ClassDef):
                methods = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
                found.methods[f"{name}:{node.name}"] = len(methods)
    return found


def shelves(structure: Structure) -> dict[str, int]:
    """Modules directly in each folder."""
    found: dict[str, int] = {}
    for name in structure.files:
        folder = name.rpartition("/")[0]
        found[folder] = found.get(folder, 0) + 1
    return found


def report(root: Path) -> str:
    structure = read(root)
    lengths = [one.lines for one in structure.functions]

    def most(items: dict[str, int], count: int = 6) -> list[str]:
        best = sorted(items.items(), key=lambda item: -item[1])[:count]
        return [f"  {number:5} {name}" for name, number in best]

    return "\n".join(
        [
            f"{len(structure.files)} modules, {sum(structure.files.values())} lines, {len(lengths)} functions",
            f"function length: mean {mean(lengths):.1f}, median {median(lengths):.0f},"
            f" over 60 lines {sum(length > 60 for length in lengths)}",
            "longest functions:",
            *most({one.name: one.lines for one in structure.functions}),
            "most parameters:",
            *most({one.name: one.parameters for one in structure.functions}),
            "classes with most methods:",
            *most(structure.methods),
            "longest modules:",
            *most(structure.files),
            "modules in one folder:",
            *most(shelves(structure)),
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.structure", description=__doc__)
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to read")
    print(report(parser.parse_args().root))
