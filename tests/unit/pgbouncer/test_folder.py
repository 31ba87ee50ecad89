"""As which account PgBouncer runs for root."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from shardd.embedded import home
from shardd.pgbouncer import PgBouncerError
from shardd.pgbouncer.folder import prepare_folder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


def test_as_the_account_that_runs_the_embedded_database_whichever_users_were_added_since(tmp_path: Path) -> None:
    """Debian's package of PgBouncer brings the user postgres; without one, root made the database as nobody."""
    nobody = pwd.getpwnam("nobody")
    (tmp_path / "pg").mkdir()
    os.chown(tmp_path / "pg", nobody.pw_uid, nobody.pw_gid)
    folder = prepare_folder(tmp_path)
    assert folder.account.name == "nobody"
    assert folder.path.stat().st_uid == nobody.pw_uid
    folder.remove()


def test_without_such_an_account_the_error_names_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr(home.pwd, "getpwnam", missing)
    with pytest.raises(PgBouncerError, match=r"refuses to run as root.*run shardd as an ordinary user"):
        prepare_folder(tmp_path)
