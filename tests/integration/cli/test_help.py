"""``edgeshard help``: the installed guides are listed, shown, paged on a terminal, and suggested for a mistyped topic."""

from __future__ import annotations

import importlib.resources
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from edgeshard import cli
from edgeshard.cli import exits, help

HUBS = "# Hubs and bundles\n\nHow rows travel between stores\nwithout a network. Each step can be repeated.\n\n## More\n\nText.\n"
OPERATING = "# Operating\n\nRun, watch and back up a store.\n"


@pytest.fixture
def guides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two guides, in place of those of the package."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "operating.md").write_text(OPERATING)
    (folder / "hubs.md").write_text(HUBS)
    (folder / "notes.txt").write_text("not a guide")
    monkeypatch.setattr(help, "_folder", lambda: folder)
    return folder


def run(*arguments: str) -> int:
    """The exit code of ``edgeshard help`` in this process."""
    try:
        return cli.main(["help", *arguments])
    except SystemExit as end:  # argparse ends so after an error of usage
        return int(str(end.code))


def test_the_guides_are_listed_with_their_first_sentence(guides: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exits.DONE == run()
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("guides:")
    assert [
        "  hubs       How rows travel between stores without a network.",
        "  operating  Run, watch and back up a store.",
    ] == lines[at + 1 : at + 3]


@pytest.mark.parametrize("topic", ["hubs", "Hubs", "hubs.md"])
def test_a_guide_is_printed_as_it_is_where_stdout_is_no_terminal(
    guides: Path, capsys: pytest.CaptureFixture[str], topic: str
) -> None:
    assert exits.DONE == run(topic)
    assert HUBS == capsys.readouterr().out


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("operatin", "did you mean operating?"),
        ("hub", "did you mean hubs?"),
        ("mrege", "did you mean merge?"),
        ("zzz", "`edgeshard help` lists them"),
        ("../errors", "`edgeshard help` lists them"),
        ("", "`edgeshard help` lists them"),
        ("notes", "`edgeshard help` lists them"),
    ],
)
def test_an_unknown_topic_is_wrong_usage_and_the_nearest_are_named(
    guides: Path, capsys: pytest.CaptureFixture[str], topic: str, said: str
) -> None:
    assert exits.USAGE == run(topic)
    shown = capsys.readouterr()
    assert ("", True, True) == (shown.out, f"there is no guide {topic!r}" in shown.err, said in shown.err)


def test_a_verb_is_a_topic_too_and_a_guide_comes_before_it(guides: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exits.DONE == run("merge")
    help_of_merge = capsys.readouterr().out
    assert help_of_merge.startswith("usage: edgeshard merge ")
    (guides / "merge.md").write_text(OPERATING)
    assert exits.DONE == run("merge")
    shown = capsys.readouterr().out
    assert shown.startswith(OPERATING)
    assert "`edgeshard merge --help` describes the verb" in shown


def test_without_guides_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(help, "_folder", lambda: tmp_path / "none")
    assert exits.DONE == run()
    assert "no guides are installed" in capsys.readouterr().out


def on_terminal(folder: Path, **environment: str) -> tuple[int, str]:
    """Show a guide on a terminal of its own; the exit code, and what was shown."""
    code = (
        "import pathlib, sys\n"
        "from edgeshard import cli\n"
        "from edgeshard.cli import help\n"
        "help._folder = lambda: pathlib.Path(sys.argv[1])\n"
        "sys.exit(cli.main(['help', 'operating']))\n"
    )
    ours, theirs = pty.openpty()
    settings = {name: value for name, value in os.environ.items() if name not in ("MANPAGER", "PAGER")}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**settings, "TERM": "xterm", **environment},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 10_000):
            shown += part
    except OSError:  # EIO: the process has left the terminal
        pass
    finally:
        os.close(ours)
    return process.wait(60), shown.decode()


def test_on_a_terminal_the_pager_of_the_user_shows_it(guides: Path) -> None:
    code, shown = on_terminal(guides, PAGER="sed s/^/paged:/")
    assert (exits.DONE, True) == (code, "paged:# Operating" in shown)


def test_a_pager_that_is_left_early_is_no_failure(guides: Path) -> None:
    (guides / "operating.md").write_text(OPERATING + "a line\n" * 100_000)
    code, shown = on_terminal(guides, PAGER="head -n 1")
    assert (exits.DONE, True, False) == (code, "# Operating" in shown, "Error" in shown)


def test_the_guides_are_those_of_the_package() -> None:
    assert str(importlib.resources.files("edgeshard") / "docs") == str(help._folder())


def test_the_guides_are_shipped_with_the_package() -> None:
    import tomllib

    project = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
    settings = tomllib.loads((project / "pyproject.toml").read_text())
    assert "docs/*.md" in settings["tool"]["setuptools"]["package-data"]["edgeshard"]
