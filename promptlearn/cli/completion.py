"""`dassl completion`: commands, flags, and names after the Tab key."""

import argparse
import runpy
from importlib import import_module
from types import ModuleType

from promptlearn.cli.parsing import command_parser
from promptlearn.experiments import PROTOCOLS, Checkout
from promptlearn.experiments.reproduction import papers

HELP = """\
Print a script that completes commands, flags, and the names of methods and datasets, your own included. On each Tab, it
runs `dassl completion words`, which imports neither torch nor a method.

  bash:  dassl completion bash > ~/.local/share/bash-completion/completions/dassl
  zsh:   dassl completion zsh > DIR/_dassl, with DIR a folder in $fpath
  fish:  dassl completion fish > ~/.config/fish/completions/dassl.fish
"""

# Where there is nothing to complete, bash and zsh offer files; fish always does.
SCRIPTS = {
    "bash": """\
_dassl() {
    local IFS=$'\\n'
    COMPREPLY=($(dassl completion words "${COMP_WORDS[@]:0:COMP_CWORD+1}" 2>/dev/null))
}
complete -o bashdefault -o default -F _dassl dassl
""",
    "zsh": """\
#compdef dassl
_dassl() {
    local -a found
    found=("${(@f)$(dassl completion words "${(@)words[1,CURRENT]}" 2>/dev/null)}")
    if [[ -n $found ]]; then compadd -a found; else _files; fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _dassl "$@"; else compdef _dassl dassl; fi
""",
    "fish": """\
function __dassl_words
    set -l before (commandline -opc)
    set -l word (commandline -ct)
    dassl completion words $before "$word" 2>/dev/null
end
complete -c dassl -a "(__dassl_words)"
""",
}


def run(arguments: list[str]) -> int:
    if arguments[:1] == ["words"]:
        print("".join(f"{word}\n" for word in words(arguments[2:])), end="")
        return 0
    print(SCRIPTS[parser().parse_args(arguments).shell], end="")
    return 0


def parser() -> argparse.ArgumentParser:
    p = command_parser("completion", HELP)
    p.add_argument("shell", choices=SCRIPTS, help="the shell that reads the script")
    return p


def words(line: list[str]) -> list[str]:
    """Return what the last word of a line could become; nothing where a file is expected, or anything.

    Args:
        line: the words after `dassl`, up to the cursor; the last one may be empty.
    """
    from promptlearn.cli.main import VERBS  # which imports this module

    *before, word = line or [""]
    if not before:
        found = ["train", *VERBS]
    elif before[0] in ("train", *VERBS):
        found = after(before[1:], word, parser_of(before[0], VERBS))
    else:
        found = []
    return [each for each in found if each.startswith(word)]


def parser_of(verb: str, modules: dict[str, str]) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    if verb == "train":
        made: argparse.ArgumentParser = runpy.run_path(str(Checkout().root / "train.py"), run_name="train")["parser"]()
        return made
    module: ModuleType = import_module(f"promptlearn.cli.{modules[verb]}")
    made = module.parser(PROTOCOLS[verb]) if verb in PROTOCOLS else module.parser()
    return made


def after(before: list[str], word: str, p: argparse.ArgumentParser) -> list[str]:
    """Return the words that may follow `before` on a parser's command line."""
    for action in p._actions:
        if isinstance(action, argparse._SubParsersAction):
            chosen = [each for each in before if each in action.choices]
            return (
                after(before[before.index(chosen[0]) + 1 :], word, action.choices[chosen[0]])
                if chosen
                else [*action.choices]
            )
    if word.startswith("-"):
        return [flag for action in p._actions for flag in action.option_strings]
    taking: argparse.Action | None = None
    for each in before:
        if each.startswith("-"):
            taking = p._option_string_actions.get(each)
        elif taking is not None and taking.nargs not in ("+", "*"):
            taking = None
    if taking is not None and taking.nargs != 0:
        return names_for(taking)
    return [name for action in p._actions if not action.option_strings for name in names_for(action)]


def names_for(action: argparse.Action) -> list[str]:
    """Return the values of a flag or of a positional argument, if they are known."""
    if action.choices:
        return [str(choice) for choice in action.choices]
    checkout = Checkout()
    name = (action.option_strings or [action.dest])[0]
    if name in ("--trainer", "--trainers", "--method"):
        return checkout.trainers()
    if name in ("--dataset", "--datasets", "--source", "--look-into", "names"):
        return checkout.datasets()
    return papers(checkout) if name == "paper" else []
