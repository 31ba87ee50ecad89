from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from shardd.setup.program import obstacles


@pytest.fixture
def venv(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A virtual environment as a usual umask makes it. Not below pytest's folder, which is its owner's alone."""
    monkeypatch.setattr("shardd.setup.program._HIDDEN", ())
    with TemporaryDirectory(dir="/var/tmp") as folder:
        program = Path(folder) / "venv" / "bin" / "shardd"
        program.parent.mkdir(parents=True)
        program.write_text("")
        for part in (program, *program.parents[:3]):
            part.chmod(0o755)
        yield program.parent.parent


def test_what_everybody_may_use_is_no_obstacle(venv: Path) -> None:
    assert list(obstacles([venv / "bin/shardd"], venv)) == []


def test_a_strict_umask_is_found_and_undone_for_the_whole_environment(venv: Path) -> None:
    (venv / "bin").chmod(0o700)
    (other := venv / "bin/python").write_text("")
    (found,) = obstacles([venv / "bin/shardd", other], venv)
    assert found.startswith(f"{venv}/bin: the service's user may not use it")
    assert found.endswith(f"chmod --recursive go+rX {venv}")
    (venv / "bin").chmod(0o755)
    other.chmod(0o600)
    (found,) = obstacles([venv / "bin/shardd", other], venv)
    assert found.startswith(f"{other}: ")


def test_what_the_service_does_not_see_is_found_behind_links_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardd.setup.program._HIDDEN", (tmp_path / "root",))
    (python := tmp_path / "root" / "bin" / "python").parent.mkdir(parents=True)
    python.write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "root")
    (found,) = obstacles([tmp_path / "link" / "bin" / "python", python], tmp_path)
    assert found.startswith(f"{python}: the service does not see {tmp_path}/root")
