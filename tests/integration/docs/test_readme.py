"""Every code block of the README runs, in order, in one folder; and the first command in a fresh copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import apsw.sqlite_extra
import pytest

from tests.support.project import PROJECT

README = (PROJECT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
INSTALLING = [code for language, code in BLOCKS if language == "sh" and "venv" in code]


@pytest.fixture
def postgresql(request: pytest.FixtureRequest) -> dict[str, str] | None:
    """The variables that say where a database of PostgreSQL is; None where there is no server."""
    try:
        dsn = request.getfixturevalue("pg")
    except pytest.skip.Exception:
        return None
    from psycopg import conninfo

    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    return {names[name]: str(value) for name, value in conninfo.conninfo_to_dict(dsn).items() if name in names}


def test_the_blocks_of_the_readme_run_one_after_the_other(tmp_path: Path, postgresql: dict[str, str] | None) -> None:
    shims = tmp_path / "bin"
    shims.mkdir()
    (shims / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')  # a link would leave the environment
    (shims / "edgeshard").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgeshard "$@"\n')
    for shim in shims.iterdir():
        shim.chmod(0o755)
    if shutil.which("sqlite3") is None:
        (shims / "sqlite3").symlink_to(str(apsw.sqlite_extra.path("sqlite3_shell")))
    environment = {**os.environ, "PATH": f"{shims}:{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}
    environment.update(postgresql or {})
    ran = 0
    for language, code in BLOCKS:
        if "postgresql://" in code and postgresql is None:
            continue
        if language in ("python", "sh") and code not in INSTALLING:
            command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euo", "pipefail", "-c", code]
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), code
            ran += 1
    assert ran >= 5
    assert {"python", "sh", "text"} == {language for language, _ in BLOCKS}


def test_there_is_one_command_to_run_and_one_to_test() -> None:
    assert len(INSTALLING) == 2
    assert "examples/" in INSTALLING[0]
    assert INSTALLING[1].strip().endswith("-m pytest")


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
        ["bash", "-euo", "pipefail", "-c", INSTALLING[0]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "rows acknowledged" in done.stdout


def test_the_exit_codes_of_the_readme_are_those_of_the_code() -> None:
    from edgeshard import exits

    codes = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    signals = {exits.INTERRUPTED, exits.BROKEN_PIPE}  # as of every command
    assert codes - signals == {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
