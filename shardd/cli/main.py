"""`shardd`: the command line. Each group of commands has a module of its own.

Every error that shardd foresees ends here as one line on stderr and an exit code of sysexits.h; an error that it does
not is a defect and keeps its traceback, but only in the log.
"""

from __future__ import annotations

import sys

import click

from shardd import __version__
from shardd.cli.campaign import campaign_group
from shardd.cli.config import config_group
from shardd.cli.daemon import drain, restart, start, stop
from shardd.cli.db import db_group
from shardd.cli.device import device_group
from shardd.cli.device_import import import_
from shardd.cli.device_pair import pair
from shardd.cli.device_replace import replace
from shardd.cli.device_session import logout, take_over
from shardd.cli.device_set import set_
from shardd.cli.event import event_group
from shardd.cli.group import group_group
from shardd.cli.import_legacy import import_group
from shardd.cli.job import job_group
from shardd.cli.job_bulk import cancel, retry
from shardd.cli.opt_out import opt_out_group
from shardd.cli.status import status
from shardd.cli.webhook import webhook_group
from shardd.errors import SharddError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="shardd")
def cli() -> None:
    """Keep thousands of WhatsApp devices sending, and tell the truth about every message."""


for command in (
    start,
    stop,
    drain,
    restart,
    status,
    job_group,
    campaign_group,
    device_group,
    group_group,
    opt_out_group,
    event_group,
    webhook_group,
    config_group,
    db_group,
    import_group,
):
    cli.add_command(command)
for command in (set_, pair, take_over, logout, import_, replace):
    device_group.add_command(command)
for command in (retry, cancel):
    job_group.add_command(command)


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
