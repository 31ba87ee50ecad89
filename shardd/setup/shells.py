"""What the shells need to complete command lines: click's own scripts, and what these leave out.

`--option=VALUE`: click proposes only the value. zsh would replace the whole word by it, and fish would not propose what does not
begin like the word. In zsh, the second Tab of a session would only register the function. A help text would end at its first
comma in fish.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click
from click.shell_completion import FishComplete, ZshComplete, add_completion_class, get_completion_class

_ZSH_LINE: Final = "    for type key descr in ${response}; do\n"
_ZSH_VALUE: Final = "    [[ ${words[CURRENT]} == --*=* ]] && compset -P '*='\n\n"
"""What is proposed belongs behind the sign. `compadd -U` puts it in the place of the whole word, but for what `-i` names."""
_ZSH_ADD: Final = "compadd -U -V unsorted -a completions"
_ZSH_ADD_BEHIND: Final = 'compadd -U -V unsorted -i "$IPREFIX" -a completions'
_ZSH_FIRST: Final = "$zsh_eval_context[-1] == loadautofunc"
_ZSH_EACH: Final = "$funcstack[1] == _%(prog_name)s"
"""Whether the file is the body of an autoloaded function: at its first call, and at each later one."""
_FISH_SPLIT: Final = 'string split "," $completion'
_FISH_OUTPUT: Final = "    end;\nend;\n"
_FISH_VALUE: Final = (
    "    end | string replace -r '^' -- (string match -r -- '^--[^=]+=' (commandline -t); or echo '');\nend;\n"
)


def _changed(template: str, changes: Mapping[str, str]) -> str:
    for old, new in changes.items():
        assert template.count(old) == 1, f"click's script has changed: {old!r}"
        template = template.replace(old, new)
    return template


class _Zsh(ZshComplete):
    source_template = _changed(
        ZshComplete.source_template,
        {_ZSH_LINE: _ZSH_VALUE + _ZSH_LINE, _ZSH_ADD: _ZSH_ADD_BEHIND, _ZSH_FIRST: _ZSH_EACH},
    )


class _Fish(FishComplete):
    source_template = _changed(
        FishComplete.source_template,
        {_FISH_SPLIT: 'string split -m 1 "," $completion', _FISH_OUTPUT: _FISH_VALUE},
    )


def register() -> None:
    """Let click print these scripts when it is asked for one."""
    for one in (_Zsh, _Fish):
        add_completion_class(one)


def completion_script(shell: str) -> str:
    """The script of a shell; click's `source` would run the shell to find out its version."""
    register()
    found = get_completion_class(shell)
    assert found is not None
    script = found(click.Command("shardd"), {}, "shardd", "_SHARDD_COMPLETE")
    return script.source_template % script.source_vars()
