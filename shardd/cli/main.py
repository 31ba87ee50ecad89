"""`shardd`: the command line.

Every SharddError ends here as one line on stderr (for a config file: one line per error) and an exit code of sysexits.h. Any
other exception is a defect: the daemon logs its traceback, every other command reports it in one line, too.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from pathlib import Path
from typing import Final

import click

from shardd import __version__
from shardd.cli.early import report_failure, watch
from shardd.cli.help import examples
from shardd.cli.lazy import LazyGroup
from shardd.cli.output import say, say_error
from shardd.errors import ConfigError, SharddError, UnsureError, UsageError

COMPLETE: Final = "_SHARDD_COMPLETE"
"""Set by a shell that asks for a completion."""
TRACEBACK_VARIABLE: Final = "SHARDD_TRACEBACK"
"""If set, the traceback of a defect is printed, too."""

COMMANDS: Final = {
    "campaign": "shardd.cli.campaign.commands:campaign_group",
    "cluster": "shardd.cli.cluster:cluster_group",
    "config": "shardd.cli.config:config_group",
    "dashboard": "shardd.cli.dashboard:dashboard_group",
    "db": "shardd.cli.db:db_group",
    "device": "shardd.cli.device.commands:device_group",
    "drain": "shardd.cli.daemon:drain",
    "event": "shardd.cli.event:event_group",
    "group": "shardd.cli.group:group_group",
    "guide": "shardd.cli.guide.commands:guide",
    "import": "shardd.cli.legacy.commands:import_group",
    "inbox": "shardd.cli.inbox:inbox_group",
    "job": "shardd.cli.job.commands:job_group",
    "opt-out": "shardd.cli.opt_out.commands:opt_out_group",
    "producer": "shardd.cli.producer:producer_group",
    "reload": "shardd.cli.daemon:reload",
    "restart": "shardd.cli.daemon:restart",
    "send": "shardd.cli.job.send:send",
    "setup": "shardd.cli.setup:setup_group",
    "start": "shardd.cli.daemon:start",
    "status": "shardd.cli.status.commands:status",
    "stop": "shardd.cli.daemon:stop",
    "token": "shardd.cli.api_token:token_group",
    "webhook": "shardd.cli.webhook:webhook_group",
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples("shardd status", "shardd send berlin-1 +4915112345678 'It is ready.'"),
)
@click.version_option(__version__, prog_name="shardd")
def cli() -> None:
    """Keep thousands of WhatsApp devices sending, with a truthful state for every message."""


def main() -> None:
    """Run the command line and exit."""
    watch()  # when it is called without the installed command
    _open_closed_streams()
    _register_scripts()
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
        say_error(f"shardd: {_usage_text(error)}")
        code = UsageError.exit_code
    except ConfigError as error:
        report_failure(str(error), error.__cause__)
        for line in f"shardd: {error}".split("\n"):
            say_error(line)
        code = error.exit_code
    except SharddError as error:
        report_failure(str(error), error.__cause__)
        say_error(f"shardd: {_error_text(error)}")
        code = error.exit_code
    except BrokenPipeError:
        # The reader (head, less) has gone.
        sys.stderr.close()
        code = 0
    except Exception as error:
        if sys.excepthook is not sys.__excepthook__:
            raise  # the daemon logs it
        _report_defect(error)
        code = SharddError.exit_code
    gc.freeze()  # the collections at the end would look at all that was loaded, for nothing
    sys.exit(code)


def _register_scripts() -> None:
    if COMPLETE in os.environ:
        from shardd.setup.shells import register  # noqa: PLC0415  # loaded only when a shell asks

        register()


def _open_closed_streams() -> None:
    """Replace streams that were closed when we were started (`<&-`) by the null device."""
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115  for the life of the process
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


def _check_encoding() -> None:
    """Raise UsageError for bytes that are not UTF-8: neither the database nor JSON accepts them."""
    for argument in sys.argv[1:]:
        if not _is_unicode(argument):
            raise UsageError(f"the argument {argument} is not UTF-8: write it in UTF-8")
    for name, value in os.environ.items():
        if name.startswith("SHARDD_") and not _is_unicode(value):
            raise UsageError(f"the environment variable {name} is not UTF-8: write it in UTF-8")


def _is_unicode(text: str) -> bool:
    # Python represents other bytes as lone surrogates (PEP 383).
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def _error_text(error: SharddError) -> str:
    if isinstance(error, UnsureError):
        return f"it is not known whether this was done ({error}): look before you do it again"
    return str(error)


def _usage_text(error: click.ClickException) -> str:
    """Click's message on one line, with the command whose help to read."""
    words = " ".join(error.format_message().split()).rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    return words if context is None else f"{words}; see {context.command_path} --help"


def _report_defect(error: Exception) -> None:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    more = "" if TRACEBACK_VARIABLE in os.environ else f"; {TRACEBACK_VARIABLE}=1 shows more"
    if not more:
        for line in "".join(traceback.format_exception(error)).splitlines():
            say(line, err=True)
    say_error(f"shardd: this is a defect of shardd, please report it: {type(error).__name__}: {error} ({where}){more}")


if __name__ == "__main__":
    main()
