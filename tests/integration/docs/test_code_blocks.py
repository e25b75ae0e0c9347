"""Run every code block of the front page, the guides and the READMEs, and check what surrounds the blocks.

Conventions in these documents: ``python`` and ``sh`` blocks run, in order, in one folder; the Python blocks of a document
share one namespace. ``text`` blocks do not run; after the comment ``<!-- output -->``, one is what the block above prints.
A block after ``<!-- not run: reason -->`` does not run either. The folder holds a store ``data`` with a few rows, except
for README.md, which begins with nothing.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import apsw.sqlite_extra
import attrs
import pytest

from edgeshard import errors
from edgeshard.cli import exits
from edgeshard.format import constants, tables
from tests.benchmarks import release_figures

PROJECT = Path(__file__).parents[3]
README = PROJECT / "README.md"
GUIDES = sorted((PROJECT / "edgeshard" / "docs").glob("*.md"))
EXAMPLES = PROJECT / "examples"
DOCUMENTS = [README, *GUIDES, PROJECT / "edgeshard" / "bench" / "README.md", EXAMPLES / "README.md"]
NAMES = [str(path.relative_to(PROJECT)) for path in DOCUMENTS]

BLOCK = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
LONGEST_README = 249

#: What every store in these tests begins with, apart from that of README.md.
SETUP = """
import datetime
import attrs
import edgeshard

@edgeshard.table(index=["sensor"])
@attrs.frozen
class Reading:
    sensor: str
    celsius: float
    at: datetime.datetime

store = edgeshard.Store("data")
with store.shard("boiler-room") as shard, store.shard("agent-7") as other:
    shard.write(Reading("inlet", 71.5, datetime.datetime.now(datetime.timezone.utc)))
    other.write({"action": "generated_code"})
    store.merge()
    other.write({"action": "ran_tests"})  # this one is pending
"""

#: Runs blocks in its own namespace, so that classes and functions of a block are found in `__main__`.
RUNNER = """
import contextlib as _contextlib, io as _io, json as _json, multiprocessing as _processes, subprocess as _subprocess
import sys as _sys

_processes.set_start_method("fork")  # a fresh interpreter could not import what the blocks define
_printed = []
for _language, _code in _json.load(_sys.stdin):
    if _language == "python":
        with _contextlib.redirect_stdout(_io.StringIO()) as _captured:
            exec(compile(_code, _code, "exec"), globals())
        _printed.append(_captured.getvalue())
    else:
        _shell = ["bash", "-euo", "pipefail", "-c", _code]
        _done = _subprocess.run(_shell, capture_output=True, text=True, stdin=_subprocess.DEVNULL)
        if (_done.returncode, _done.stderr) != (0, ""):
            _sys.exit(f"{_code}\\nexited {_done.returncode}: {_done.stdout}\\n{_done.stderr}")
        _printed.append(_done.stdout)
print(_json.dumps(_printed))
"""


@attrs.frozen
class Block:
    """A fenced block of a document.

    Attributes:
        language: what follows the fence.
        code: what is inside.
        note: the text of the comment above it, or "".
    """

    language: str
    code: str
    note: str

    @property
    def installs(self) -> bool:
        return self.language == "sh" and "venv" in self.code

    @property
    def runs(self) -> bool:
        return self.language in ("python", "sh") and not self.note.startswith("not run: ") and not self.installs


def blocks_of(path: Path) -> list[Block]:
    found = BLOCK.finditer(path.read_text())
    return [Block(match["language"], match["code"], match["note"] or "") for match in found]


def prose_of(path: Path) -> str:
    """A document without its fenced blocks."""
    return BLOCK.sub("", path.read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `python`, `edgeshard` and `sqlite3` in `bin`, and the examples as in a clone."""
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')  # a link would leave the environment
    (commands / "edgeshard").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgeshard "$@"\n')
    for command in commands.iterdir():
        command.chmod(0o755)
    if shutil.which("sqlite3") is None:
        (commands / "sqlite3").symlink_to(str(apsw.sqlite_extra.path("sqlite3_shell")))
    (tmp_path / "examples").symlink_to(EXAMPLES)
    return tmp_path


def environment_of(folder: Path, added: dict[str, str]) -> dict[str, str]:
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(PROJECT), "TMPDIR": str(folder), **added}


def variables_of_server(request: pytest.FixtureRequest) -> dict[str, str] | None:
    """Return the PG* variables of a fresh database, or None if there is no server."""
    try:
        dsn = request.getfixturevalue("pg")
    except pytest.skip.Exception:
        return None
    from psycopg import conninfo

    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    return {names[name]: str(value) for name, value in conninfo.conninfo_to_dict(dsn).items() if name in names}


def run(folder: Path, script: str, standard_input: str, added: dict[str, str]) -> str:
    """Run a Python script in the folder; it must succeed and print nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=standard_input, cwd=folder, env=environment_of(folder, added),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=name, marks=() if path == README else pytest.mark.slow)
        for path, name in zip(DOCUMENTS, NAMES, strict=True)
    ],
)
def test_the_blocks_of_a_document_run_one_after_the_other(
    path: Path, folder: Path, request: pytest.FixtureRequest
) -> None:
    blocks = blocks_of(path)
    running = [block for block in blocks if block.runs]
    added: dict[str, str] = {}
    if any("postgresql://" in block.code for block in running):
        server = variables_of_server(request)
        if server is None:
            running = [block for block in running if "postgresql://" not in block.code]
        added = server or {}
    if path != README:
        run(folder, SETUP, "", added)
    work = json.dumps([(block.language, block.code) for block in running])
    printed = dict(zip(map(id, running), json.loads(run(folder, RUNNER, work, added)), strict=True))
    above = None
    for block in blocks:
        if block.note == "output":
            assert above is not None
            assert above.runs, block.code
            assert printed[id(above)] == block.code
        above = block


def test_the_readme_has_blocks_of_all_three_kinds() -> None:
    blocks = blocks_of(README)
    assert {"python", "sh", "text"} == {block.language for block in blocks}
    assert sum(block.runs for block in blocks) >= 5


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_block_is_of_a_known_kind_and_every_fence_is_closed(path: Path) -> None:
    blocks = blocks_of(path)
    assert {block.language for block in blocks} <= {"python", "sh", "text"}
    assert len(re.findall(r"^```", path.read_text(), re.MULTILINE)) == 2 * len(blocks)
    assert {block.note.partition(":")[0] for block in blocks if block.note} <= {"output", "not run"}


# -- the two commands -------------------------------------------------------------------------------------------------


def installing() -> list[str]:
    return [block.code for block in blocks_of(README) if block.installs]


def test_there_is_one_command_to_run_and_one_to_test() -> None:
    first, second = installing()
    assert "examples/" in first
    assert second.strip().endswith("-m pytest")
    assert second.count("\n") == 1  # the continuous integration finds it by its end of line


@pytest.mark.slow
def test_the_first_command_runs_in_a_fresh_copy_of_the_project(tmp_path: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode != 0:
        pytest.skip(f"this is no git checkout, so its files are not known: {listed.stderr}")
    for name in listed.stdout.split("\n"):
        if name and (PROJECT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, tmp_path / name)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", installing()[0]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "rows acknowledged" in done.stdout


# -- what surrounds the blocks ----------------------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    lines = README.read_text().splitlines()
    assert len(lines) <= LONGEST_README
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("path", GUIDES, ids=[path.stem for path in GUIDES])
def test_a_guide_begins_with_a_title_and_a_sentence_that_says_what_it_covers(path: Path) -> None:
    title, empty, sentence, after, *_ = path.read_text().splitlines()
    assert re.fullmatch(r"# [A-Z][^#]+", title)
    assert re.fullmatch(r"[A-Z][^.]+\.", sentence)
    assert (empty, after) == ("", "")


def test_the_readme_names_every_guide() -> None:
    named = {target.partition("#")[0] for target in LINK.findall(README.read_text())}
    assert {str(path.relative_to(PROJECT)) for path in GUIDES} <= named


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for target in LINK.findall(prose_of(path)):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        found = path.parent / name if name else path
        assert found.exists(), target
        assert not anchor or anchor in anchors_of(found), target


def anchors_of(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- what the documents say of the code -------------------------------------------------------------------------------

CODES = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
SIGNALS = {exits.INTERRUPTED, exits.BROKEN_PIPE}  # as of every command


def test_the_guides_explain_the_exit_codes_of_the_code() -> None:
    listed = {
        path.stem: {int(code) for code in re.findall(r"^\| (\d+) \|", path.read_text(), re.MULTILINE)}
        for path in GUIDES
    }
    assert listed["operating"] == CODES - SIGNALS
    assert listed["troubleshooting"] == CODES


def test_the_readme_names_the_exit_codes_of_the_code_in_five_lines() -> None:
    lines = re.findall(r"^- \*\*([\d, ]+)\*\* ", README.read_text(), re.MULTILINE)
    assert len(lines) == 5
    assert {int(code) for line in lines for code in line.split(",")} == CODES - SIGNALS


def test_the_guide_to_troubleshooting_explains_every_error_class() -> None:
    classes = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    text = (PROJECT / "edgeshard" / "docs" / "troubleshooting.md").read_text()
    assert sorted(re.findall(r"^### (\w+Error)$", text, re.MULTILINE)) == sorted(cls.__name__ for cls in classes)


def test_the_guide_to_the_format_lists_every_table_and_where_it_is() -> None:
    text = (PROJECT / "edgeshard" / "docs" / "format.md").read_text()
    rows = re.findall(r"^\| ((?:`_edgeshard_\w+`(?:, )?)+) \| ([SMBN ]+) \|", text, re.MULTILINE)
    listed = {name: set(roles.split()) for names, roles in rows for name in re.findall(r"\w+", names)}
    assert set(listed) == set(tables.DDL)
    letters = {constants.SHARD: "S", constants.MASTER: "M", constants.BUNDLE: "B", constants.NOTES: "N"}
    for role, names in tables.REQUIRED_TABLES.items():
        optional = tables.OPTIONAL_SHARD_TABLES if role == constants.SHARD else ()
        used = {name for name, roles in listed.items() if letters[role] in roles}
        assert used <= {*names, *optional}, role


@pytest.mark.parametrize("path", [release_figures.README, release_figures.BENCH_README, release_figures.PLOT])
def test_the_figures_that_users_read_are_those_that_were_measured_for_the_release(path: Path) -> None:
    assert release_figures.expected()[path] == path.read_text()


def test_the_list_of_examples_names_all_of_them_shortest_first() -> None:
    listed = re.findall(r"^\| \[[^\]]*\]\(([^)]+)\) \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    linked = {target.rstrip("/") for target in LINK.findall((EXAMPLES / "README.md").read_text())}
    assert {path.name for path in EXAMPLES.iterdir()} - {"README.md", "__pycache__"} <= linked
    programs = [name for name in listed if (EXAMPLES / name).is_file()]
    lengths = [len((EXAMPLES / name).read_text().splitlines()) for name in programs]
    assert lengths == sorted(lengths)


def test_twenty_workers_stays_a_small_example() -> None:
    assert len((EXAMPLES / "twenty_workers.py").read_text().splitlines()) <= 30
