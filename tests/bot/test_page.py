"""How the chat page's modules depend on each other."""

import re
from graphlib import TopologicalSorter
from pathlib import Path

from bot.frontends.chat import pages

PAGE = Path(pages.__file__).parent / "page"


def test_the_pages_modules_form_no_circle_and_are_all_served() -> None:
    imports = {
        path.name: set(re.findall(r'^import .* from "\./(.+?)";$', path.read_text("utf-8"), re.MULTILINE))
        for path in PAGE.glob("*.js")
    }
    assert {f"/{name}" for name in imports} == {path for path, kind in pages.FILES.items() if "javascript" in kind}
    assert imports["chat.js"] > {"base.js"}
    order = list(TopologicalSorter(imports).static_order())  # raises CycleError
    assert (order[0], order[-1]) == ("base.js", "chat.js")
