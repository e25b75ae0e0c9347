"""The command as a whole: verbs in groups, one line for wrong usage, any terminal, output and user, and completion."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

import edgeshard
from edgeshard import cli
from edgeshard.cli import hints, main, process, verbs
from edgeshard.errors import ConfigurationError, EdgeshardError
from tests.support.processes import command, sql
from tests.support.users import User, as_root, run_as

GROUPS = ["write:", "merge:", "look:", "keep:", "carry:", "rescue:"]


def ended(words: list[str]) -> int:
    """Return the exit code of a command."""
    try:
        return main(words)
    except SystemExit as end:  # argparse ends so
        return int(str(end.code))


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Return the exit code, stdout and stderr of a command."""
    code = ended(words)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


# -- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["help"], ["--help"]])
def test_the_verbs_are_shown_in_groups(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, shown, err = said(words, capsys)
    assert (0, "") == (code, err)
    lines = shown.splitlines()
    assert GROUPS == [line for line in lines if line in GROUPS]
    assert all(any(line.startswith(f"  {verb} ") for line in lines) for verb in verbs.VERBS)


def test_the_overview_fits_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    overview = said(["help"], capsys)[1].partition("\n\n`edgeshard VERB")[0]
    assert max(map(len, overview.splitlines())) <= 60


# -- wrong usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mrege data", "edgeshard: there is no verb 'mrege', did you mean merge? See `edgeshard --help`"),
        ("zzz", "edgeshard: there is no verb 'zzz'; see `edgeshard --help`"),
        ("--versoin", "edgeshard: there is no option '--versoin', did you mean --version? See `edgeshard --help`"),
        (
            "merge data --dryrun",
            "edgeshard merge: there is no option '--dryrun', did you mean --dry-run? See `edgeshard merge --help`",
        ),
        (
            "merge data --dry",  # no abbreviation
            "edgeshard merge: there is no option '--dry', did you mean --dry-run? See `edgeshard merge --help`",
        ),
        ("merge data --zzz=1", "edgeshard merge: there is no option '--zzz'; see `edgeshard merge --help`"),
        ("merge data more", "edgeshard merge: unexpected argument 'more'; see `edgeshard merge --help`"),
        ("merge", "edgeshard merge: the following arguments are required: ROOT; see `edgeshard merge --help`"),
    ],
)
def test_wrong_usage_is_one_line_with_the_nearest_word(
    words: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (2, "", f"{expected}\n") == said(words.split(), capsys)


def test_python_m_edgeshard_merge_takes_no_abbreviation_either(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main_of_merge(["data", "--dry"])
    line = "there is no option '--dry', did you mean --dry-run? See `python -m edgeshard.merge --help`\n"
    assert f"python -m edgeshard.merge: {line}" == capsys.readouterr().err


@pytest.mark.parametrize("order", ["merge --from A.db --from B.db ROOT", "merge ROOT --from A.db --from=B.db"])
def test_from_takes_one_database_and_can_be_repeated(order: str) -> None:
    options = cli.parse(order.split())
    assert ("ROOT", ["A.db", "B.db"]) == (options.root, options.sources)


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "action", "path", "expected"),
    [
        ("merge", "merge into", "/data/master.db", "/data/master.db: why"),
        ("merge", "merge", "", "why"),
        ("push", "push table", "reading", "table reading: why"),
        ("accept-loss", "accept loss in", "/data/master.db", "/data/master.db: why"),
        ("merge", "open store", "/data", "open store /data: why"),
        ("verify", "merge into", "/data/master.db", "merge into /data/master.db: why"),
    ],
)
def test_an_error_does_not_repeat_its_verb(verb: str, action: str, path: str, expected: str) -> None:
    options = cli.parse(["help"])
    options.verb = verb
    assert expected == hints.explain(EdgeshardError(action, path, "why"), options)


def test_the_verb_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "master.db").touch()
    code, _, err = said(["merge", str(root)], capsys)
    assert (65, True) == (code, err.startswith(f"edgeshard merge: {root}/master.db: it is empty"))


@pytest.mark.parametrize(
    "verb", ["status", "verify", "merge", "query ROOT select", "ranges", "prune ROOT --keep-rows 1"]
)
@pytest.mark.parametrize("kind", ["database", "text"])
def test_a_master_of_another_program_exits_78(
    tmp_path: Path, verb: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    if kind == "text":
        (root / "master.db").write_text("Grüße\n" * 5_000, encoding="utf-8")
    else:
        sql(root / "master.db", "create table t(a)")
    before = (root / "master.db").read_bytes()
    name, *more = verb.split()
    words = [name, *(more or ["ROOT"])]
    code, out, err = said([str(root) if word == "ROOT" else word for word in words], capsys)
    assert (78, "", 1) == (code, out, err.count("\n")), err
    assert "check the path" in err
    assert before == (root / "master.db").read_bytes()


# -- any terminal, output and user ------------------------------------------------------------------------------------

#: One call of each verb that writes to stdout, with ROOT for a store, FILE for a new file and SEEN for its ranges.
CALLS = [
    *(
        "status ROOT",
        "tables ROOT",
        "tables ROOT --schema",
        "verify ROOT",
        "query ROOT SELECT",
        "query ROOT SELECT --json",
        "query ROOT SELECT --csv",
    ),
    *("shell ROOT SELECT", "snapshot ROOT FILE", "export ROOT FILE", "ranges ROOT", "clock ROOT", "merge ROOT"),
    *("merge ROOT --dry-run", "prune ROOT --older-than 9d --dry-run", "write ROOT door {}", "init ROOT", "help"),
    *("help merge", "completion bash", "receipt ROOT SEEN", "--help", "--version"),
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a store of two rows, and the ranges of another store."""
    folder = tmp_path_factory.mktemp("usage")
    for name in ("data", "other"):
        store = edgeshard.Store(folder / name)
        with store.shard("boiler-raum-\u00e4") as shard:
            shard.write_many({"n": n, "text": "gr\u00fc\u00df dich"} for n in range(2))
        store.merge()
    (folder / "seen.json").write_text(store.ranges().to_json())
    return folder


def words_of(call: str, folder: Path) -> list[str]:
    values = {"ROOT": "data", "FILE": "new.db", "SEEN": "seen.json"}
    (folder / "new.db").unlink(missing_ok=True)
    words = [str(folder / values[word]) if word in values else word for word in call.split()]
    return ["select * from agent_data" if word == "SELECT" else word for word in words]


@pytest.mark.parametrize("call", CALLS)
def test_every_verb_works_on_a_narrow_terminal_that_has_only_ascii(
    filled: Path, call: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"COLUMNS": "60", "LINES": "20", "NO_COLOR": "1", "LANG": "C", "LC_ALL": "C"}.items():
        monkeypatch.setenv(name, value)
    # as Python opens it for a process with these settings, but for its UTF-8 mode
    with open(os.dup(1), "w", encoding="ascii") as out:
        monkeypatch.setattr(sys, "stdout", out)
        code = ended(words_of(call, filled))
    shown = capfd.readouterr()
    assert code in (0, 3), shown.err
    assert shown.out
    assert shown.out.isascii()
    assert "\x1b" not in shown.out


@pytest.mark.parametrize("call", CALLS)
def test_every_verb_ends_quietly_if_nobody_reads_its_output(
    filled: Path, call: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert 141 == ended(words_of(call, filled))
    assert "" == capfd.readouterr().err


@pytest.mark.parametrize("call", CALLS)
def test_every_verb_says_that_its_output_cannot_be_written(
    filled: Path, call: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert 74 == ended(words_of(call, filled))
    err = capfd.readouterr().err
    assert ("the output: No space left on device\n", 1) == (err.partition(": ")[2], err.count("\n"))


@pytest.mark.parametrize("call", CALLS)
def test_every_verb_works_without_an_output(
    filled: Path, call: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it if the caller closed descriptor 1
    with contextlib.ExitStack() as opened:
        code = ended(words_of(call, filled))
        opened.enter_context(sys.stdout)
    assert code in (0, 3)
    assert "" == capfd.readouterr().err


@as_root
def test_every_verb_says_to_another_user_that_the_store_is_not_theirs() -> None:
    with tempfile.TemporaryDirectory() as outer:  # pytest's folders are root's alone
        os.chmod(outer, 0o711)
        store = edgeshard.Store(Path(outer) / "data")
        with store.shard("door") as shard:
            shard.write({"n": 1})
        store.merge()
        of_stores = [call for call in CALLS if "ROOT" in call and "SEEN" not in call]

        def codes() -> dict[str, int]:
            found = {}
            for call in of_stores:
                with open(os.devnull, "w") as nowhere:
                    sys.stdout = sys.stderr = nowhere
                    words = shlex.split(call.replace("ROOT", f"{outer}/data").replace("FILE", f"{outer}/new.db"))
                    found[call] = main(["select 1" if word == "SELECT" else word for word in words])
            return found

        codes()  # imports what another user may not be able to read
        shutil.rmtree(store.root)
        with edgeshard.Store(store.root).shard("door") as shard:
            shard.write({"n": 1})
        store.merge()
        assert dict.fromkeys(of_stores, 77) == run_as(User(4711, 4711), codes)


@pytest.mark.slow
def test_head_ends_a_long_output_quietly(filled: Path) -> None:
    endless = "with recursive r(n) as (select 1 union all select n + 1 from r) select n from r"
    line = f"{sys.executable} -m edgeshard query {filled / 'data'} {shlex.quote(endless)} --csv | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=60)
    assert (0, "n\n", "") == (done.returncode, done.stdout.replace("\r", ""), done.stderr)


# -- completion -------------------------------------------------------------------------------------------------------

_COMPLETE = """
source <("$0" -m edgeshard completion bash)
complete -p edgeshard
while IFS= read -r line; do
    read -ra COMP_WORDS <<< "$line"
    [[ $line == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _edgeshard
    echo "${COMPREPLY[*]}"
done
"""


@pytest.mark.slow
def test_bash_completes_verbs_options_and_values() -> None:
    expected = {
        "edgeshard me": "merge",
        "edgeshard --v": "--version",
        "edgeshard merge --dr": "--dry-run",
        "edgeshard merge data --on-full ": "error drop-oldest",
        "edgeshard merge data --on-full dr": "drop-oldest",
        "edgeshard merge --from ": "",  # a file, which bash completes itself
        "edgeshard merge da": "",
        "edgeshard query --dr": "",
        "edgeshard completion z": "zsh",
        "edgeshard help oper": "operating",
        "edgeshard help me": "merge",
    }
    done = subprocess.run(
        ["bash", "-c", _COMPLETE, sys.executable],
        input="".join(f"{line}\n" for line in expected), capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (0, "") == (done.returncode, done.stderr)
    first, *lines = done.stdout.splitlines()
    assert "complete -o bashdefault -o default -F _edgeshard edgeshard" == first
    assert expected == dict(zip(expected, lines, strict=True))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_each_verb_and_option(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, script, err = said(["completion", shell], capsys)
    assert (0, "") == (code, err)
    for name in verbs.VERBS:
        assert name in script
        for option in verbs.parser_of(name).option_names():
            word = option if shell != "fish" else option.replace("--", "-l ") if option[1] == "-" else f"-s {option[1]}"
            assert word in script, (name, option)


def test_texts_are_quoted_for_each_shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = "it's $HOME, `ls` and a \\ too"
    monkeypatch.setattr(verbs.module_of("merge"), "SUMMARY", text)
    _, script, _ = said(["completion", "zsh"], capsys)
    assert shlex.quote(f"merge:{text}") in script
    _, script, _ = said(["completion", "fish"], capsys)
    assert "'it\\'s $HOME, `ls` and a \\\\ too'" in script


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_texts_have_the_defaults_that_the_help_has(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, script, _ = said(["completion", shell], capsys)
    assert "rows per commit (default: " in script
    assert "%(" not in script
    assert "%%" not in script


def test_the_commands_of_the_help_make_the_folders_that_they_write_to(capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = said(["completion", "--help"], capsys)
    for folder in re.findall(r"> (~/\S+)/", text):
        assert f"mkdir -p {folder} " in text.replace("\n", " ")


def test_an_interrupt_before_the_verb_runs_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(_: str) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(verbs, "import_module", interrupt)
    monkeypatch.setattr(gc, "freeze", lambda: None)  # this process goes on
    with pytest.raises(SystemExit) as end:
        process.run(lambda: cli.main(["merge", "data"]))
    assert (130, ("", "edgeshard: interrupted\n")) == (end.value.code, tuple(capsys.readouterr()))


def test_an_unknown_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(["completion", "tcsh"], capsys)
    assert (2, "", 1) == (code, out, err.count("\n"))


def test_only_its_own_parser_is_made_for_a_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs.module_of("push"), "configure", lambda _: pytest.fail("it is not needed"))
    assert "merge" == cli.parse(["merge", "data"]).verb


def test_a_hint_is_for_the_option_that_was_not_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "copy.db"
    target.touch()
    options = cli.parse(["snapshot", "data", str(target)])
    error = ConfigurationError("snapshot to", str(target), "it exists")
    assert f"{target}: it exists (--force)" == hints.explain(error, options)


def test_as_a_process() -> None:
    done = command()
    assert (0, "", True) == (done.returncode, done.stderr, "rescue:" in done.stdout)
    done = command("merge", "data", "--dryrun")
    assert (2, "", True) == (done.returncode, done.stdout, "did you mean --dry-run?" in done.stderr)
