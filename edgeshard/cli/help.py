"""``edgeshard help``: the guides that are installed with the package, for devices without a network."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from edgeshard.cli import arguments, exits

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

SUMMARY = "List the guides that are installed with edgeshard, or show one of them."

_EPILOG = """\
The guides are part of the package, so no network is needed. On a terminal a guide opens in your pager ($PAGER).

examples:
  %(prog)s
  %(prog)s operating
  %(prog)s operating > operating.md

exit codes:
  0 done         2 wrong usage, such as a topic without a guide         74 input/output error

For the options of a verb run `edgeshard VERB --help`.
"""

_ENDING = ".md"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    parser.add_argument("topic", metavar="TOPIC", nargs="?", help="the guide to show; without it, list all guides")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """List the guides, or show one."""
    guides = _guides(_folder())
    if options.topic is None:
        print(_listing(guides))
        return exits.DONE
    topic = options.topic.lower().removesuffix(_ENDING)
    if topic not in guides:
        options.usage_error(f"there is no guide {options.topic!r}; {_suggestion(topic, list(guides))}")
    _show(guides[topic].read_text(encoding="utf-8"))
    return exits.DONE


def _folder() -> Traversable:
    import importlib.resources  # no other verb should wait for it

    return importlib.resources.files("edgeshard") / "docs"


def _guides(folder: Traversable) -> dict[str, Traversable]:
    """Map the topics to their guides, sorted by topic."""
    files = folder.iterdir() if folder.is_dir() else ()
    return {file.name.removesuffix(_ENDING): file for file in sorted(files, key=_name) if file.name.endswith(_ENDING)}


def _name(file: Traversable) -> str:
    return file.name


def _listing(guides: dict[str, Traversable]) -> str:
    if not guides:
        return "no guides are installed with this package"
    width = max(map(len, guides))
    lines = [f"  {topic:{width}}  {_summary(guide.read_text(encoding='utf-8'))}" for topic, guide in guides.items()]
    return "\n".join(["guides:", *lines, "", "`edgeshard help TOPIC` shows one of them."])


def _summary(text: str) -> str:
    """Return the first sentence of a guide, which follows its title; lines may break inside it."""
    paragraphs = [part for part in text.split("\n\n") if part.strip() and not part.lstrip().startswith("#")]
    words = " ".join(paragraphs[0].split()) if paragraphs else ""
    sentence, end, _ = words.partition(". ")
    return sentence + "." if end else words


def _suggestion(topic: str, topics: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(topic, topics) or [name for name in topics if topic and topic in name]
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "`edgeshard help` lists the guides, and `edgeshard VERB --help` describes a verb"


def _show(text: str) -> None:
    if sys.stdout.isatty():
        import pydoc  # 40 ms, which no other verb should wait for

        pydoc.pager(text)
    else:
        print(text.rstrip("\n"))
