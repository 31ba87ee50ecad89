"""`shardd`: the command line. Each group of commands has a module of its own.

Every error that shardd foresees ends here as one line on stderr and an exit code of sysexits.h; an error that it does
not is a defect and keeps its traceback, but only in the log.
"""

from __future__ import annotations

import sys
from typing import Final

import click

from shardd import __version__
from shardd.cli.lazy import LazyGroup
from shardd.errors import SharddError

COMMANDS: Final = {
    "campaign": "shardd.cli.campaign:campaign_group",
    "config": "shardd.cli.config:config_group",
    "db": "shardd.cli.db:db_group",
    "device": "shardd.cli.device:device_group",
    "drain": "shardd.cli.daemon:drain",
    "event": "shardd.cli.event:event_group",
    "group": "shardd.cli.group:group_group",
    "import": "shardd.cli.import_legacy:import_group",
    "job": "shardd.cli.job:job_group",
    "opt-out": "shardd.cli.opt_out:opt_out_group",
    "restart": "shardd.cli.daemon:restart",
    "start": "shardd.cli.daemon:start",
    "status": "shardd.cli.status:status",
    "stop": "shardd.cli.daemon:stop",
    "webhook": "shardd.cli.webhook:webhook_group",
}


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="shardd")
def cli() -> None:
    """Keep thousands of WhatsApp devices sending, and tell the truth about every message."""


def main() -> None:
    """Run the command line and exit."""
    try:
        code = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("aborted", err=True)
        code = 130
    except click.ClickException as error:
        error.show()
        code = 64
    except SharddError as error:
        click.echo(f"shardd: {error}", err=True)
        code = error.exit_code
    except BrokenPipeError:
        # The reader (head, less) has gone: nothing more is wanted.
        sys.stderr.close()
        code = 0
    sys.exit(code)


if __name__ == "__main__":
    main()
