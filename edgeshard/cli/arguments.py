"""Arguments that several verbs have in common, and the store that they name."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, BinaryIO, Final, NoReturn, TextIO, TypeVar, cast

from edgeshard.cli import exits, output
from edgeshard.errors import ConfigurationError, printable, quoted
from edgeshard.store import BUSY_TIMEOUT_S, MAX_INTERVAL_S, PruneRule, Store, age_s, row_count, size_bytes

_T = TypeVar("_T")

#: How many digits a whole number may have: so many fit into 64 bits, and Python converts only a text of up to 4300.
_DIGITS_MAX: Final = 18

# int and float also take digits of other scripts, and 1_000, which may well be a mistyped 1.000
_WHOLE: Final = re.compile(f"[0-9]{{1,{_DIGITS_MAX}}}")

_SECONDS: Final = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")


class Parser(argparse.ArgumentParser):
    """argparse's, with errors of one printable line, no abbreviated options, and help texts as they are written.

    An argument can be a file's name, which can be anything. An abbreviation would change its meaning, or stop working,
    as options are added.
    """

    def __init__(self, **settings: Any) -> None:
        # argparse makes a formatter for each argument, to check it: that would load shutil, for the terminal's width
        unused = partial(argparse.RawDescriptionHelpFormatter, width=80)
        super().__init__(formatter_class=unused, allow_abbrev=False, **settings)

    def format_help(self) -> str:
        """Return the help text, in lines that fit the terminal."""
        self.formatter_class = argparse.RawDescriptionHelpFormatter
        return super().format_help()

    def format_usage(self) -> str:
        """Return the usage, in lines that fit the terminal."""
        self.formatter_class = argparse.RawDescriptionHelpFormatter
        return super().format_usage()

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where to find more, and exit with 2."""
        more = f"{' See' if message.endswith('?') else '; see'} `{self.prog} --help`"
        self.exit(exits.USAGE, f"{printable(f'{self.prog}: {message}{more}')}\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """End the process after a help text or an error, also if the help text cannot be written."""
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            output.drop()
            status = exits.BROKEN_PIPE
        except OSError as error:
            output.drop()
            status, message = exits.IO_ERROR, f"{self.prog}: the output: {error.strerror}\n"
        super().exit(status, message)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and say which option was probably meant if there is no such option."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            option = unknown[0].partition("=")[0]
            if not option.startswith("-"):
                self.error(f"unexpected argument {option!r}")
            self.error(f"there is no option {option!r}{nearest(option, self.option_names())}")
        return options

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Take ``--option=--`` for the text "--".

        argparse takes that for the end of the options, also within an option, until Python 3.12, and makes [] of it.
        """
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            return self._get_value(action, "--")
        return super()._get_values(action, arg_strings)

    def option_names(self) -> list[str]:
        """Return all options, under all of their names."""
        return [name for action in self._actions for name in action.option_strings]

    def _match_arguments_partial(self, actions: Sequence[argparse.Action], arg_strings_pattern: str) -> list[int]:
        """Leave an argument that may be left out for later, if more arguments follow behind an option.

        argparse does so itself from Python 3.12.7 on. Before, it takes ``write data door --table t '{}'`` for a command
        without a row.
        """
        counts = super()._match_arguments_partial(actions, arg_strings_pattern)
        while counts and not counts[-1] and "A" in arg_strings_pattern[sum(counts) :]:
            counts.pop()
        return counts


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a question for the error about an unknown word: ", did you mean ...?"; "" if no known word is near."""
    import difflib  # for errors only

    names = list(known)
    near = difflib.get_close_matches(word, names, n=1) or [name for name in names if word and word in name]
    return f", did you mean {' or '.join(near)}?" if near else ""


def describe(parser: argparse.ArgumentParser, summary: str, epilog: str) -> None:
    """Give a verb's parser its help, and defaults for what `main` needs to know of every verb."""
    parser.description, parser.epilog = summary, epilog
    parser.set_defaults(quiet=False, verbose=False, watch=False, log_format="text", interrupted="interrupted")


def add_root(parser: argparse.ArgumentParser) -> None:
    """Add the store's folder."""
    parser.add_argument("root", metavar="ROOT", type=name, help="the store's folder")


def add_json(parser: argparse.ArgumentParser, more: str = "") -> None:
    """Add ``--json``; `more` follows its usual help."""
    parser.add_argument("--json", action="store_true", help=f"print the report as one JSON object{more}")


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet`` alone, for verbs that log nothing."""
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing if all is well")


def add_verbosity(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet`` and ``--verbose``, which exclude each other."""
    verbosity = parser.add_mutually_exclusive_group()
    verbosity.add_argument("-q", "--quiet", action="store_true", help="print nothing if all is well, only errors")
    verbosity.add_argument("-v", "--verbose", action="store_true", help="log details of what is done")


def add_log_format(parser: argparse.ArgumentParser) -> None:
    """Add ``--log-format``."""
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="log lines for people, or one object per line"
    )


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Add ``--dry-run``."""
    parser.add_argument("--dry-run", action="store_true", help="report what would be done, and change nothing")


# -- stores -----------------------------------------------------------------------------------------------------------


def store_of(options: argparse.Namespace, **settings: Any) -> Store:
    """Return an existing store: a mistyped path must not create a store of its own.

    Args:
        options: the verb's.
        settings: passed to `Store`.

    Raises:
        ConfigurationError: there is no such store.
        AccessError: it cannot be determined whether there is one.
    """
    store = Store(options.root, **settings)
    store.ensure_exists()
    return store


def store_with_master(options: argparse.Namespace) -> Store:
    """Return an existing store that has a master.

    Raises:
        ConfigurationError: there is no such store, or no master in it.
        AccessError: it cannot be determined whether there is one.
    """
    store = store_of(options)
    if not store.has_master():
        cause = (
            f"there is no master yet; `edgeshard merge {shlex.quote(str(options.root))}` makes it"
            if store.has_shards()
            else "there is no master yet, because no agent has written to this store: there is nothing to read"
        )
        raise ConfigurationError(options.verb, store.master_path, cause)
    return store


def file_or_stdin(file: str) -> str | BinaryIO:
    """Return the file's name, or standard input if that is "-".

    Raises:
        ConfigurationError: standard input is closed.
    """
    return ensure_stdin().buffer if file == "-" else file


def ensure_stdin() -> TextIO:
    """Return standard input.

    Raises:
        ConfigurationError: it is closed.
    """
    if sys.stdin is None:  # as Python leaves it then
        raise ConfigurationError("read", "standard input", "it is closed; pipe the input into this command")
    return sys.stdin


# -- prune rules ------------------------------------------------------------------------------------------------------


def add_lock_wait(
    parser: argparse.ArgumentParser, whom: str = "for a merger at work", default_s: float = BUSY_TIMEOUT_S
) -> None:
    """Add ``--lock-wait``; `whom` says for whom to wait."""
    parser.add_argument(
        "--lock-wait",
        action=_LockWait,
        type=seconds,
        default=default_s,
        metavar="S",
        help=f"wait up to S seconds {whom} (default: {default_s:g})",
    )
    parser.set_defaults(is_lock_wait_given=False)


class _LockWait(argparse.Action):
    """Stores the time, and that it was given: then no error needs to advise it."""

    def __call__(
        self, _parser: object, namespace: argparse.Namespace, value: object, _option: str | None = None
    ) -> None:
        namespace.lock_wait, namespace.is_lock_wait_given = value, True


def add_prune_rules(parser: argparse._ActionsContainer, prefix: str, does: str = "") -> None:
    """Add the rules of a prune.

    Args:
        parser: a verb's parser, or a group of it.
        prefix: what the names of the options begin with, such as "--".
        does: what the help of each option begins with.
    """
    parser.add_argument(
        f"{prefix}older-than",
        type=_parsed_by(age_s),
        metavar="AGE",
        help=f"{does}rows that arrived in this master longer ago than AGE: 30d, 12h, 90m (minutes), 45s",
    )
    parser.add_argument(
        f"{prefix}keep-rows",
        type=_parsed_by(_rows),
        metavar="N",
        help=f"{does}all but the newest N rows, counting all tables together",
    )
    parser.add_argument(
        f"{prefix}max-bytes",
        type=_parsed_by(size_bytes),
        metavar="SIZE",
        help=f"{does}the oldest rows, until the master and its WAL are no larger: 500M, 2G, 512MiB",
    )
    parser.add_argument(
        f"{prefix}deletions-older-than",
        type=_parsed_by(age_s),
        metavar="AGE",
        help=f"{does}tombstones of keyed tables that are older than AGE, once no older change can arrive and every "
        "confirmed database with a receipt knows of them",
    )
    parser.add_argument(
        f"{prefix}forget-after",
        type=_parsed_by(age_s),
        metavar="AGE",
        help="forget streams of which every row was pruned longer ago than AGE: a copy as old as they are could bring "
        "their rows back",
    )
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument(
        f"{prefix}only-pushed", action="store_true", help=f"{does}only rows that a PostgreSQL database holds"
    )
    whose.add_argument(
        f"{prefix}only-receipted", action="store_true", help=f"{does}only rows that a confirmed database holds"
    )
    parser.add_argument(
        f"{prefix}table",
        metavar="T",
        type=name,
        help=f"{does}only rows of this table, even those written in transactions with rows of other tables",
    )


def prune_rule_of(options: argparse.Namespace, prefix: str = "") -> PruneRule:
    """Return the rules given as options; `prefix` is what their names begin with."""
    given = {key: getattr(options, prefix + key) for key in PruneRule.__annotations__}
    return cast(PruneRule, {key: value for key, value in given.items() if value is not None and value is not False})


def selects_rows(rule: PruneRule) -> bool:
    """Return whether a rule says which rows to delete, and not only which rows it applies to."""
    return any(key in rule for key in ("older_than", "keep_rows", "max_bytes", "deletions_older_than", "forget_after"))


# -- types of arguments -----------------------------------------------------------------------------------------------


def _parsed_by(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """Wrap a parser so that argparse shows the text of its ValueError."""

    def parsed(text: str) -> _T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def _rows(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"number of rows must be a whole number of up to {_DIGITS_MAX} digits, got {quoted(text)}")
    return row_count(int(text))


def count(text: str) -> int:
    """Parse a whole number, which may be 0."""
    if not _WHOLE.fullmatch(text):
        cause = f"must be a whole number of up to {_DIGITS_MAX} digits, got {quoted(text)}"
        raise argparse.ArgumentTypeError(cause)
    return int(text)


def seconds(text: str) -> float:
    """Parse a time in seconds, which may be 0."""
    value = float(text) if _SECONDS.fullmatch(text) else -1.0
    if not 0 <= value <= MAX_INTERVAL_S:
        cause = f"must be a number of seconds from 0 to {MAX_INTERVAL_S:.0f}, got {quoted(text)}"
        raise argparse.ArgumentTypeError(cause)
    return value


def positive_seconds(text: str) -> float:
    """Parse a time in seconds above 0."""
    value = seconds(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be a number of seconds above 0")
    return value


def name(text: str) -> str:
    """Accept any text but "": a shell variable that is not set must not make the current folder a store."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text
