from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from shardd.environment_file import parse_environment
from shardd.errors import SharddError, UsageError
from shardd.setup.files import COMPLETIONS, CONFIG, ENVIRONMENT, MARK, OVERRIDE, SYSUSERS, UNIT
from tests.support.command import PROGRAM, Ran

OURS = [SYSUSERS, UNIT, *COMPLETIONS.values()]
SHIPPED_UNIT = Path(__file__).parents[2] / "systemd" / "shardd.service"


class System:
    """The root folder of a system, and `shardd setup systemd` for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "etc").mkdir(parents=True)

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def put(self, path: str, text: str) -> Path:
        file = self.at(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def setup(self, *options: str) -> Ran:
        """As a careful administrator runs it: with a umask that lets nobody else read."""
        done = subprocess.run(
            [PROGRAM, "setup", "systemd", f"--root={self.root}", *options],
            capture_output=True, text=True, timeout=60, check=False, umask=0o077,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def found(self) -> dict[str, bytes]:
        """The content of all files of this command by path; of those that systemd-sysusers writes, nothing."""
        files = (path for path in self.root.rglob("*") if path.is_file() and path.parent != self.root / "etc")
        return {f"/{path.relative_to(self.root)}": path.read_bytes() for path in files}


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path / "system")


def test_a_first_setup_makes_what_the_service_needs(system: System) -> None:
    ran = system.setup()
    assert (ran.code, ran.err) == (0, "")
    assert [line.split(maxsplit=1)[0] for line in ran.out.splitlines()] == ["created"] * (len(OURS) + 3)
    assert system.found().keys() == {*OURS, CONFIG, ENVIRONMENT}
    modes = {path: system.at(path).stat().st_mode & 0o777 for path in (*OURS, CONFIG, ENVIRONMENT)}
    assert modes == {**dict.fromkeys((*OURS, CONFIG), 0o644), ENVIRONMENT: 0o600}
    assert {folder.stat().st_mode & 0o777 for folder in system.root.rglob("*/") if folder.is_dir()} == {0o755}
    unit = system.at(UNIT).read_text()
    assert unit == SHIPPED_UNIT.read_text().replace("=/opt/shardd/bin/shardd ", f"={PROGRAM} ")
    assert "shardd:" in system.at("/etc/passwd").read_text()
    # The first config is good, and its service is that of the unit.
    checked = subprocess.run(
        [PROGRAM, "config", "check", system.at(CONFIG)], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert "state in /var/lib/shardd" in checked.stdout
    assert parse_environment(system.at(ENVIRONMENT).read_bytes()).flaws == []


def test_a_repetition_changes_nothing(system: System) -> None:
    system.setup()
    before = {path: path.stat().st_mtime_ns for path in system.root.rglob("*")}
    ran = system.setup()
    assert (ran.code, ran.err) == (0, "")
    assert {line.split(maxsplit=1)[0] for line in ran.out.splitlines()} == {"unchanged", "kept"}
    assert {path: path.stat().st_mtime_ns for path in system.root.rglob("*")} == before


def test_an_upgrade_replaces_what_is_ours_and_keeps_what_is_the_operator_s(system: System) -> None:
    system.setup()
    new = system.found()
    for path in OURS:
        system.put(path, f"# of an older version\n# {MARK.decode()}.\n")
    system.put(CONFIG, "shards: 3\n").chmod(0o600)
    system.put(ENVIRONMENT, "A=b\n").chmod(0o644)
    ran = system.setup()
    assert ran.code == 0
    assert ran.out.count("replaced") == len(OURS)
    assert ran.out.count("kept") == 2
    assert system.found() == {**new, CONFIG: b"shards: 3\n", ENVIRONMENT: b"A=b\n"}
    assert f"{system.at(ENVIRONMENT)}: everybody may read it: chmod 600" in ran.err
    assert f"{system.at(CONFIG)}: only its owner and group may read it" in ran.err


@pytest.mark.parametrize("path", [*OURS, OVERRIDE])
def test_a_file_of_somebody_else_is_in_the_way(system: System, path: str) -> None:
    file = system.put(path, "[Unit]\nDescription=mine\n")
    ran = system.setup()
    assert (ran.code, ran.out) == (UsageError.exit_code, "")
    assert str(file) in ran.err
    assert "move it away" in ran.err
    assert system.found() == {path: file.read_bytes()}


def test_everything_in_the_way_is_named_at_once(system: System) -> None:
    system.at(UNIT).parent.mkdir(parents=True)
    system.at(UNIT).symlink_to("/dev/null")
    system.at(CONFIG).mkdir(parents=True)
    system.at(OVERRIDE).parent.mkdir(parents=True)
    system.at(OVERRIDE).symlink_to("/dev/null")
    ran = system.setup()
    assert ran.code == UsageError.exit_code
    lines = ran.err.splitlines()
    assert len(lines) == 3
    assert any("systemctl unmask shardd" in line for line in lines)
    assert system.found() == {}


def test_a_unit_that_was_edited_as_a_whole_is_kept_and_reported(system: System) -> None:
    system.setup()
    system.put(OVERRIDE, system.at(UNIT).read_text() + "# mine\n")
    ran = system.setup()
    assert ran.code == 0
    assert "takes precedence" in ran.err
    assert system.at(OVERRIDE).read_text().endswith("# mine\n")


def test_a_link_in_an_image_does_not_lead_to_this_machine(system: System, tmp_path: Path) -> None:
    (system.root / "etc" / "shardd").symlink_to(tmp_path)
    ran = system.setup()
    assert (ran.code, ran.err.count("\n")) == (SharddError.exit_code, 1)
    assert f"leads out of {system.root}" in ran.err
    assert not (tmp_path / "shards.yaml").exists()


def test_a_dry_run_shows_what_a_setup_would_do(system: System) -> None:
    ran = system.setup("--dry-run")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split(maxsplit=1)[0] for line in ran.out.splitlines()] == ["create"] * (len(OURS) + 3)
    assert list(system.root.rglob("*")) == [system.root / "etc"]


def test_a_removal_takes_away_what_a_setup_made_except_what_is_the_operator_s(system: System) -> None:
    system.setup()
    foreign = system.put(COMPLETIONS["zsh"], "#compdef shardd\n")
    assert system.setup("--remove", "--dry-run").out.count("remove ") == len(OURS) - 1
    ran = system.setup("--remove")
    assert (ran.code, ran.err) == (0, "")
    assert system.found().keys() == {CONFIG, ENVIRONMENT, COMPLETIONS["zsh"]}
    assert foreign.read_text() == "#compdef shardd\n"
    assert system.setup("--remove").code == 0


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_completion_of_other_shells_completes(shell: str, system: System) -> None:
    """Where these are installed. In a zsh without a terminal, completion does not work: its script is only read."""
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"there is no {shell} here")
    system.setup()
    script = system.at(COMPLETIONS[shell])
    if shell == "zsh":
        done = subprocess.run([program, "-n", script], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return
    for line, words in (("shardd sta", ["start", "status"]), ("shardd device list --state=pa", ["--state=paused"])):
        ask = f"source {script}; complete -C '{line}'"
        environ = {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
        done = subprocess.run(
            [program, "-c", ask], capture_output=True, text=True, timeout=60, check=False, env=environ
        )
        assert done.stdout.split() == words


def test_the_completion_of_bash_completes(system: System) -> None:
    system.setup()
    script = (
        f"PATH={PROGRAM.parent}:$PATH; . {system.at(COMPLETIONS['bash'])}; COMP_WORDS=(shardd sta) COMP_CWORD=1; "
        '_shardd_completion shardd; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("start status\n", "")
