"""``edgeshard help``: the verbs, and the guides that are installed with the package, for devices without a network."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from edgeshard.cli import arguments, exits, output

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

SUMMARY = "List the verbs and the guides, or show a guide or the help of a verb."

_EPILOG = """\
The guides are part of the package, so no network is needed. On a terminal a guide opens in your pager ($PAGER).

examples:
  %(prog)s
  %(prog)s operating
  %(prog)s operating > operating.md
  %(prog)s merge                 the same as `edgeshard merge --help`

exit codes:
  0 done         2 wrong usage, such as a topic without a guide         74 input/output error
"""

_MORE = "`edgeshard VERB --help` describes a verb, and `edgeshard help TOPIC` shows a guide."

_ENDING = ".md"


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    parser.add_argument("topic", metavar="TOPIC", nargs="?", help="the guide, or the verb; without it, list them all")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(options: argparse.Namespace) -> int:
    """List the verbs and the guides, or show one."""
    from edgeshard.cli import verbs  # which imports this module

    guides = _guides(_folder())
    if options.topic is None:
        print("\n\n".join(["usage: edgeshard VERB ...", verbs.overview(), _listing(guides), _MORE]))
        return exits.DONE
    topic = options.topic.lower().removesuffix(_ENDING)
    if topic in guides:
        note = f"\n(`edgeshard {topic} --help` describes the verb {topic}.)\n" if topic in verbs.VERBS else ""
        _show(guides[topic].read_text(encoding="utf-8") + note)
    elif topic in verbs.VERBS:
        _show(verbs.parser_of(topic).format_help())
    else:
        near = arguments.nearest(topic, [*guides, *verbs.VERBS])
        options.usage_error(f"there is no guide {options.topic!r}{near or '; `edgeshard help` lists them'}")
    return exits.DONE


def topics() -> list[str]:
    """Return the topics of the guides, sorted."""
    return list(_guides(_folder()))


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
    summaries = {topic: _summary(guide.read_text(encoding="utf-8")) for topic, guide in guides.items()}
    return "\n".join(["guides:", *output.definitions(summaries)])


def _summary(text: str) -> str:
    """Return the first sentence of a guide, which follows its title; lines may break inside it."""
    paragraphs = [part for part in text.split("\n\n") if part.strip() and not part.lstrip().startswith("#")]
    words = " ".join(paragraphs[0].split()) if paragraphs else ""
    sentence, end, _ = words.partition(". ")
    return sentence + "." if end else words


def _show(text: str) -> None:
    if sys.stdout.isatty():
        import pydoc  # 40 ms, which no other verb should wait for

        pydoc.pager(text)
    else:
        print(text.rstrip("\n"))
