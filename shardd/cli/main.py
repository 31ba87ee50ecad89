"""`shardd`: the command line. Each group of commands has a module of its own.

Every error that shardd foresees ends here as one line on stderr (of a config file: one for each error) and an exit code of
sysexits.h. One that it does not is a defect: the daemon logs its traceback, every other command names it in one line, too.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Final

import click

from shardd import __version__
from shardd.cli.lazy import LazyGroup
from shardd.cli.output import say, say_error
from shardd.errors import ConfigError, SharddError, UsageError

TRACEBACK_VARIABLE: Final = "SHARDD_TRACEBACK"
"""When it is set, a defect's traceback is shown, too."""

COMMANDS: Final = {
    "campaign": "shardd.cli.campaign.commands:campaign_group",
    "config": "shardd.cli.config:config_group",
    "db": "shardd.cli.db:db_group",
    "device": "shardd.cli.device.commands:device_group",
    "drain": "shardd.cli.daemon:drain",
    "event": "shardd.cli.event:event_group",
    "group": "shardd.cli.group.commands:group_group",
    "import": "shardd.cli.legacy.commands:import_group",
    "job": "shardd.cli.job.commands:job_group",
    "opt-out": "shardd.cli.opt_out.commands:opt_out_group",
    "producer": "shardd.cli.producer.commands:producer_group",
    "restart": "shardd.cli.daemon:restart",
    "start": "shardd.cli.daemon:start",
    "status": "shardd.cli.status.commands:status",
    "stop": "shardd.cli.daemon:stop",
    "webhook": "shardd.cli.webhook:webhook_group",
}


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="shardd")
def cli() -> None:
    """Keep thousands of WhatsApp devices sending, and tell the truth about every message."""


def main() -> None:
    """Run the command line and exit."""
    _open_closed_streams()
    try:
        _check_encoding()
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        say("aborted", err=True)
        code = 130
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = UsageError.exit_code
    except click.ClickException as error:
        say_error(f"shardd: {_usage_words(error)}")
        code = UsageError.exit_code
    except ConfigError as error:
        for line in f"shardd: {error}".split("\n"):
            say_error(line)
        code = error.exit_code
    except SharddError as error:
        say_error(f"shardd: {error}")
        code = error.exit_code
    except BrokenPipeError:
        # The reader (head, less) has gone: nothing more is wanted.
        sys.stderr.close()
        code = 0
    except Exception as error:
        if sys.excepthook is not sys.__excepthook__:
            raise  # the daemon logs it
        _say_defect(error)
        code = SharddError.exit_code
    sys.exit(code)


def _open_closed_streams() -> None:
    """Who starts us with descriptors closed (`<&-`) gets nothing from there and leaves nothing there."""
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115  for the life of the process
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


def _check_encoding() -> None:
    """Refuse bytes that are not UTF-8, which neither the database nor JSON could take. Raises UsageError."""
    for argument in sys.argv[1:]:
        if not _is_unicode(argument):
            raise UsageError(f"the argument {argument} is not UTF-8: write it in UTF-8")
    for name, value in os.environ.items():
        if name.startswith("SHARDD_") and not _is_unicode(value):
            raise UsageError(f"the environment variable {name} is not UTF-8: write it in UTF-8")


def _is_unicode(text: str) -> bool:
    # Python keeps other bytes of the command line as halves of surrogate pairs (PEP 383).
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def _usage_words(error: click.ClickException) -> str:
    """What click says in several lines, in one."""
    words = " ".join(error.format_message().split()).rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    return words if context is None else f"{words}; see {context.command_path} --help"


def _say_defect(error: Exception) -> None:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    more = "" if TRACEBACK_VARIABLE in os.environ else f"; {TRACEBACK_VARIABLE}=1 shows more"
    if not more:
        for line in "".join(traceback.format_exception(error)).splitlines():
            say(line, err=True)
    say_error(f"shardd: this is a defect of shardd, please report it: {type(error).__name__}: {error} ({where}){more}")


if __name__ == "__main__":
    main()
