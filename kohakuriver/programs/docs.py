"""`kohakuriver docs`: the pages that travel with the program, readable without a network."""

import pydoc
import sys
from importlib import resources
from importlib.resources.abc import Traversable

from kohakuriver.client.complaints import Parser
from kohakuriver.model.errors import NotFound


def run(arguments: list[str]) -> int:
    """Show a page, through a pager on a terminal; without a name, list them."""
    parser = Parser("kohakuriver docs", description=__doc__, allow_abbrev=False)
    parser.add_argument("name", nargs="?", metavar="NAME", help="a page; without it, the list of pages")
    name = parser.parse_args(arguments[1:]).name
    pages = all_pages()
    if name is None:
        wide = max(map(len, pages))
        print("\n".join(f"kohakuriver docs {page:<{wide}}   {title_of(place)}" for page, place in pages.items()))
        return 0
    if name not in pages:
        raise NotFound(f"there is no page {name[:40]!r}; the pages are {', '.join(pages)}")
    text = pages[name].read_text("utf-8")
    if sys.stdout.isatty():
        pydoc.pager(text)
    else:
        print(text, end="")
    return 0


def all_pages() -> dict[str, Traversable]:
    """The pages by name."""
    folder = resources.files("kohakuriver").joinpath("docs")
    found = {place.name.removesuffix(".md"): place for place in folder.iterdir() if place.name.endswith(".md")}
    return dict(sorted(found.items()))


def title_of(place: Traversable) -> str:
    """The first heading of a page."""
    return place.read_text("utf-8").partition("\n")[0].lstrip("# ")
