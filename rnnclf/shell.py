"""TAB in bash, zsh and fish: the scripts that `rnnclf --install-completion` installs. Torch-free.

Every script asks `rnnclf` in the same way: the line up to the cursor is in _TYPER_COMPLETE_ARGS, and the
answer has one completion per line, a whole word as the user would think of it, followed by a tab and a
description if there is one. Quoting, and the part of a word that a shell has already put aside, are the
script's business. What goes wrong while the user presses TAB stays silent.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from typer import _completion_shared

from rnnclf.errors import RnnclfError
from rnnclf.files import paths_starting

ASK = (
    "env %(autocomplete_var)s=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args"
    ' _TYPER_COMPLETE_ARGS="{line}" %(prog_name)s 2>/dev/null'
)

# bash splits words at '=' and ':' and replaces only what follows, so that the rest of each answer goes.
BASH = r"""
%(complete_func)s() {
    local line=${COMP_LINE:0:COMP_POINT} current=${COMP_WORDS[COMP_CWORD]} word
    local before=$line
    [[ $current == [=:] ]] || before=${line%%"$current"}
    before=${before##*[[:space:]]}
    COMPREPLY=()
    while IFS= read -r word && [[ $word ]]; do
        word=${word%%%%$'\t'*}
        word=${word#"$before"}
        case $current$word in
            [\'\"]*) ;;  # bash itself closes the quotation marks that are open
            *[[:space:]\'\"\\\$\`\&\;\|\<\>\(\)\*\?\!\#]*)
                printf -v word %%q "$word"
                [[ $word == \\~/* ]] && word=${word#\\} ;;
        esac
        COMPREPLY+=("$word")
    done <<< "$(ASK)"  # not <(…), which Ctrl-C does not reach
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
    return 0
}

complete -o default -F %(complete_func)s %(prog_name)s
""".replace("ASK", ASK.format(line="$line"))

# An autoloaded file is run at the first TAB of a shell, so it has to answer as well as to define.
ZSH = r"""
#compdef %(prog_name)s

%(complete_func)s() {
    local line word description
    local -a open closed open_shown closed_shown raw
    [[ -n $compstate[quote] ]] || raw=(-Q)  # zsh itself quotes what stands in quotation marks
    [[ $PREFIX == -*=* ]] && compset -P '*='
    for line in ${(f)"$(ASK)"}; do  # not <(…), which Ctrl-C does not reach
        word=${line%%%%$'\t'*}
        description=$word
        [[ $line == *$'\t'* ]] && description="$word  -- ${line#*$'\t'}"
        (( $#raw )) && word=${${(q)word}/#\\\~\//\~/}
        if [[ $word == *[=./] ]]; then
            open+=("$word"); open_shown+=("$description")
        else
            closed+=("$word"); closed_shown+=("$description")
        fi
    done
    (( $#open )) && compadd $raw -S '' -d open_shown -a open
    (( $#closed )) && compadd $raw -d closed_shown -a closed
    return $(( $#open + $#closed == 0 ))
}

compdef %(complete_func)s %(prog_name)s
[[ $funcstack[1] == _%(prog_name)s ]] && %(complete_func)s "$@"
""".replace("ASK", ASK.format(line="${words[1,CURRENT-1]} $IPREFIX$QIPREFIX$PREFIX"))

FISH = 'complete --command %(prog_name)s --no-files --arguments "(ASK)"'.replace(
    "ASK", ASK.format(line="(commandline -cp)").replace('"', "")
)


def use_our_scripts() -> None:
    """Puts our scripts in place of Typer's, and lets Ctrl-C end an answer without a traceback."""
    _completion_shared._completion_scripts.update(bash=BASH, zsh=ZSH, fish=FISH)
    if "_RNNCLF_COMPLETE" in os.environ:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def complete_run(incomplete: str) -> list[str]:
    """Files and folders, and the words that stand for runs below outputs/: latest and their names."""
    from rnnclf.workflows.places import names_below

    there = paths_starting(incomplete)
    return [*there, *(name for name in names_below() if name.startswith(incomplete) and name not in there)]


def complete_train(ctx: Any, incomplete: str) -> list[str]:
    """The words of `rnnclf train`; files where no word begins like this."""
    from rnnclf.hydra_app.completion import complete

    if incomplete.startswith("init="):
        return [f"init={path}" for path in complete_run(incomplete.removeprefix("init="))]
    return complete(ctx.params.get("words") or [], incomplete) or _files_of_own(incomplete)


def complete_data(ctx: Any, incomplete: str) -> list[str]:
    """Files and folders first; words about the dataset where they are begun."""
    return [*_files_of_own(incomplete), *_words(ctx, incomplete, ("dataset", "plugins"))]


def complete_baseline(ctx: Any, incomplete: str) -> list[str]:
    """Files and folders, and the words that `rnnclf baseline` takes."""
    from rnnclf.baselines import BASELINES

    own = [f"classifiers={name}" for name in BASELINES] if "=" in incomplete else ["classifiers="]
    own = [word for word in (*own, "max_time=") if word.startswith(incomplete)]
    heads = ("dataset", "seed", "final_fit", "recipe", "threads", "plugins")
    return [*_files_of_own(incomplete), *own, *_words(ctx, incomplete, heads)]


def complete_eval(ctx: Any, incomplete: str) -> list[str]:
    """Files and folders, and after the first of them the words that `rnnclf eval` takes."""
    paths = _runs_of_own(incomplete)
    if not incomplete and not ctx.params.get("words"):
        return paths
    own = [f"split={name}" for name in ("train", "validation", "test", "all")]
    own.append("early=true")
    own += [f"sets={level}" for level in ("0.9", "0.95", "0.99")] if incomplete.startswith("s") else ["sets="]
    heads = ("dataset", "device", "threads", "engine", "precision", "plugins")
    return [
        *paths,
        *(word for word in own if word.startswith(incomplete)),
        *_words(ctx, incomplete, heads),
    ]


def complete_compare(incomplete: str) -> list[str]:
    """Files and folders, and the word that `rnnclf compare` takes."""
    words = ["equal=0.5"] if incomplete and "equal=0.5".startswith(incomplete) else []
    return [*_runs_of_own(incomplete), *words]


def complete_ensemble(incomplete: str) -> list[str]:
    """Files and folders, and the word that `rnnclf ensemble` takes."""
    words = ["most=10"] if incomplete and "most=10".startswith(incomplete) else []
    return [*_runs_of_own(incomplete), *words]


def complete_report(ctx: Any, incomplete: str) -> list[str]:
    """Files and folders, and after the first of them the words that `rnnclf report` takes."""
    paths = _runs_of_own(incomplete)
    if not incomplete and not ctx.params.get("words"):
        return paths
    return [*paths, *_words(ctx, incomplete, ("dataset", "plugins"))]


def complete_export(ctx: Any, incomplete: str) -> list[str]:
    """The words that `rnnclf export` takes after the run."""
    own = ["step=true", "int8=true", "operators=own", "labels=true", "lengths=true"]
    return [
        *(word for word in own if word.startswith(incomplete)),
        *_words(ctx, incomplete, ("dataset", "threads", "plugins")),
    ]


def complete_stream(ctx: Any, incomplete: str) -> list[str]:
    """Files, and after the first of them the words that `rnnclf stream` takes."""
    return [*_files_of_own(incomplete), *_words(ctx, incomplete, ("dataset", "threads", "plugins"))]


def complete_track(incomplete: str) -> list[str]:
    """Files and folders, and the word that `rnnclf track` takes."""
    from rnnclf.trackers import TRACKERS

    own = [f"tracker={name}" for name in TRACKERS] if "=" in incomplete else ["tracker="]
    return [*_files_of_own(incomplete), *(word for word in own if incomplete and word.startswith(incomplete))]


def complete_predict(ctx: Any, incomplete: str) -> list[str]:
    """Files and folders, and after two of them the words that `rnnclf predict` takes."""
    paths = _runs_of_own(incomplete)
    if not incomplete and len(ctx.params.get("words") or []) < 2:
        return paths
    return [*paths, *_words(ctx, incomplete, ("dataset", "device", "threads", "engine", "plugins"))]


def _files_of_own(incomplete: str) -> list[str]:
    return [] if "=" in incomplete else paths_starting(incomplete)


def _runs_of_own(incomplete: str) -> list[str]:
    return [] if "=" in incomplete else complete_run(incomplete)


def _words(ctx: Any, incomplete: str, heads: tuple[str, ...]) -> list[str]:
    """The words of `rnnclf train` whose key is one of `heads` or below one of them."""
    from rnnclf.hydra_app.completion import complete

    earlier = [word for word in ctx.params.get("words") or [] if word.startswith(heads)]
    return [word for word in complete(earlier, incomplete) if word.startswith(heads)]


def complete_cell(ctx: Any, incomplete: str) -> list[str]:
    from rnnclf.cells import CELLS

    taken = ctx.params.get("cells") or []
    return [name for name in CELLS.names() if name.startswith(incomplete) and name not in taken]


def complete_group(incomplete: str) -> list[str]:
    from rnnclf.workflows.catalog import KINDS

    return [name for name in KINDS.names() if name.startswith(incomplete)]


def complete_shown(incomplete: str) -> list[str]:
    """Everything that `rnnclf show` explains by one word: groups, choices, keys."""
    from rnnclf.workflows.catalog import KINDS, choice_names
    from rnnclf.workflows.keys import all_names

    names = [*KINDS.names(), *(name for _, names in choice_names() for name in names)]
    names += [key for key in all_names() if "." not in key or "." in incomplete]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def complete_name(ctx: Any, incomplete: str) -> list[str]:
    """The choices of the group on the line."""
    from rnnclf.hydra_app.setup import register
    from rnnclf.workflows.catalog import choice_names, group_named

    try:
        register(list(filter(None, (ctx.params.get("plugins") or "").split(","))))
        names = dict(choice_names())[group_named(str(ctx.params.get("word")))]
    except RnnclfError:  # an unknown group must not print a traceback into the shell
        return []
    return [name for name in names if name.startswith(incomplete)]
