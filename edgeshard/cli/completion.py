"""``edgeshard completion``: a script that lets a shell complete verbs, options and their values.

The script is made from the parsers of the verbs, and runs nothing: completing takes no time, also on a slow device.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from typing import Final

import attrs

from edgeshard.cli import arguments, exits

SUMMARY = "Print a script with which bash, zsh or fish completes verbs, options and their values."

_EPILOG = """\
Where nothing else fits, the shell completes the names of files, as always.

examples:
  source <(%(prog)s bash)                                        for this shell; add it to ~/.bashrc for all
  mkdir -p ~/.local/share/bash-completion/completions            for all shells that begin from now on
  %(prog)s bash > ~/.local/share/bash-completion/completions/edgeshard
  mkdir -p ~/.zfunc                                              a folder of $fpath, before compinit runs
  %(prog)s zsh > ~/.zfunc/_edgeshard
  mkdir -p ~/.config/fish/completions
  %(prog)s fish > ~/.config/fish/completions/edgeshard.fish

exit codes:
  0 done         2 wrong usage         74 input/output error
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    arguments.describe(parser, SUMMARY, _EPILOG)
    parser.add_argument("shell", metavar="SHELL", choices=tuple(_SCRIPTS), help="bash, zsh or fish")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    print(_SCRIPTS[options.shell](_verbs()), end="")
    return exits.DONE


# -- what there is to complete ----------------------------------------------------------------------------------------


@attrs.frozen
class _Option:
    """An option of a verb.

    Attributes:
        names: its names, such as "-q" and "--quiet".
        text: what it does, in one line.
        has_value: whether a value follows.
        values: the values that it can have; none if it can have any.
    """

    names: tuple[str, ...]
    text: str
    has_value: bool
    values: tuple[str, ...]


@attrs.frozen
class _Verb:
    """A verb.

    Attributes:
        name: its name.
        text: what it does, in one line.
        options: its options.
        words: what can follow it, besides files and options.
    """

    name: str
    text: str
    options: tuple[_Option, ...]
    words: tuple[str, ...]


def _verbs() -> list[_Verb]:
    from edgeshard.cli import help, verbs  # which import this module

    words = {"help": (*help.topics(), *verbs.VERBS), "completion": tuple(_SCRIPTS)}
    return [
        _Verb(name, verbs.module_of(name).SUMMARY, tuple(_options(verbs.parser_of(name))), words.get(name, ()))
        for name in verbs.VERBS
    ]


def _options(parser: argparse.ArgumentParser) -> Iterator[_Option]:
    formatter = parser._get_formatter()
    for action in parser._actions:
        if action.option_strings:
            text = " ".join(formatter._expand_help(action).split()) if action.help else ""
            values = tuple(map(str, action.choices or ()))
            yield _Option(tuple(action.option_strings), text, action.nargs != 0, values)


# -- the scripts ------------------------------------------------------------------------------------------------------


def _bash(verbs: list[_Verb]) -> str:
    lines = [
        "_edgeshard() {",
        "    local current=${COMP_WORDS[COMP_CWORD]} words=",
        "    if ((COMP_CWORD == 1)); then",
        f"        words={shlex.quote(' '.join([*(verb.name for verb in verbs), '--help', '--version']))}",
        "    else",
        '        case "${COMP_WORDS[1]} ${COMP_WORDS[COMP_CWORD-1]} $current" in',
    ]
    for verb in verbs:
        for option in verb.options:
            if option.has_value:
                patterns = "|".join(f"'{verb.name} {name} '*" for name in option.names)
                lines.append(f"            {patterns}) words={shlex.quote(' '.join(option.values))} ;;")
        names = " ".join(name for option in verb.options for name in option.names)
        lines.append(f"            '{verb.name} '*' -'*) words={shlex.quote(names)} ;;")
        if verb.words:
            lines.append(f"            '{verb.name} '*) words={shlex.quote(' '.join(verb.words))} ;;")
    lines += [
        "        esac",
        "    fi",
        '    COMPREPLY=($(compgen -W "$words" -- "$current"))',
        "}",
        "complete -o bashdefault -o default -F _edgeshard edgeshard",
    ]
    return "\n".join(lines) + "\n"


def _zsh(verbs: list[_Verb]) -> str:
    lines = [
        "#compdef edgeshard",
        "_edgeshard() {",
        "    local -a words_and_texts",
        "    if ((CURRENT == 2)); then",
        f"        words_and_texts=({_described({verb.name: verb.text for verb in verbs})})",
        "        _describe verb words_and_texts",
        "        return",
        "    fi",
        '    case "$words[2] $words[CURRENT-1] $PREFIX" in',
    ]
    for verb in verbs:
        for option in verb.options:
            if option.has_value:
                patterns = "|".join(f"'{verb.name} {name} '*" for name in option.names)
                action = f"compadd -- {' '.join(map(shlex.quote, option.values))}" if option.values else "_files"
                lines.append(f"        {patterns}) {action} ;;")
        described = _described({name: option.text for option in verb.options for name in option.names})
        lines += [
            f"        '{verb.name} '*' -'*)",
            f"            words_and_texts=({described})",
            "            _describe option words_and_texts ;;",
        ]
        if verb.words:
            lines.append(f"        '{verb.name} '*) compadd -- {' '.join(map(shlex.quote, verb.words))} ;;")
    lines += [
        "        *) _files ;;",
        "    esac",
        "}",
        # zsh runs a file of $fpath as the function; a script that is sourced defines it
        'if [[ $funcstack[1] == _edgeshard ]]; then _edgeshard "$@"; else compdef _edgeshard edgeshard; fi',
    ]
    return "\n".join(lines) + "\n"


def _described(texts: dict[str, str]) -> str:
    """Return the items of an array for zsh's `_describe`."""
    return " ".join(shlex.quote(f"{word}:{text}") for word, text in texts.items())


def _fish(verbs: list[_Verb]) -> str:
    lines = [
        "function __edgeshard_verb_is",
        "    set -l words (commandline -opc)",
        '    test "$words[2]" = "$argv[1]"',
        "end",
        "complete -c edgeshard -e",
    ]
    begin = "complete -c edgeshard -n '__edgeshard_verb_is \"\"' -f"
    lines += [f"{begin} -a {verb.name} -d {_fish_quoted(verb.text)}" for verb in verbs]
    for verb in verbs:
        begin = f"complete -c edgeshard -n '__edgeshard_verb_is {verb.name}'"
        for option in verb.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            value = f" -x -a {shlex.quote(' '.join(option.values))}" if option.values else " -r" * option.has_value
            lines.append(f"{begin} {names}{value} -d {_fish_quoted(option.text)}")
        if verb.words:
            lines.append(f"{begin} -f -a {shlex.quote(' '.join(verb.words))}")
    return "\n".join(lines) + "\n"


def _fish_quoted(text: str) -> str:
    """Quote a text for fish, in whose quotes only these two characters are escaped."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


_SCRIPTS: Final = {"bash": _bash, "zsh": _zsh, "fish": _fish}
