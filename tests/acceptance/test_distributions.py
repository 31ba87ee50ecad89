"""The sdist and the wheel: the same bytes wherever they are built, the right files, and a product that runs without the clone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement

from shardd.config import sample_config
from shardd.extras import EXTRAS, how_to_install

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "scripts" / "lib" / "distributions.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EPOCH = "1790000000"
PATIENCE = 100.0
"""Seconds after which a step is called hung."""
pytestmark = pytest.mark.skipif(find_spec("hatchling") is None, reason="hatchling is not installed: ./scripts/test")


def names() -> list[str]:
    """The files that belong to the project: what git knows, or in an unpacked sdist all but what builds and tests leave."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return sorted(name for name in listed.split("\0") if name and (ROOT / name).exists())
    left = re.compile(r"(^|/)(__pycache__|\.[a-z_]+_cache|\.hypothesis|\.venv)/|^PKG-INFO$")
    files = (str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file())
    return sorted(name for name in files if not left.search(name))


def run(*command: str | Path, cwd: Path, timeout: float = PATIENCE, **environ: str) -> str:
    """What a command prints; an error fails the test with all of it."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Built:
    """What ./scripts/build wrote."""

    sdist: Path
    wheel: Path

    def contents(self) -> tuple[bytes, bytes]:
        return self.sdist.read_bytes(), self.wheel.read_bytes()


def found_in(folder: Path) -> Built:
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    assert len(list(folder.iterdir())) == 2
    return Built(sdist, wheel)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Built by the script, from a repository that has this tree as its only commit, and files that are not committed."""
    folder = tmp_path_factory.mktemp("clone")
    for name in names():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    date = {f"GIT_{who}_DATE": f"{EPOCH} +0000" for who in ("AUTHOR", "COMMITTER")}
    run("git", "init", "--quiet", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    who = ["-c", "user.name=test", "-c", "user.email=test@example.invalid", "-c", "commit.gpgsign=false"]
    run("git", *who, "commit", "--quiet", "--message=all", cwd=folder, **date)
    (folder / "shardd" / "scratch.py").write_text("not committed\n")
    (folder / "notes.txt").write_text("not committed\n")
    target = tmp_path_factory.mktemp("dist")
    said = run(sys.executable, BUILD, folder, target, cwd=folder)
    assert re.fullmatch(r"([0-9a-f]{64}  \S+\n){2}", said)
    return found_in(target)


def test_other_folders_masks_times_orders_and_settings_give_the_same_bytes(built: Built, tmp_path: Path) -> None:
    tree = tmp_path / "another place" / "of another depth"
    for number, name in enumerate(reversed(names())):
        copy = tree / name
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy)
        copy.chmod(0o700 if (ROOT / name).stat().st_mode & 0o100 else 0o600)
        os.utime(copy, (number, 900_000_000 + number))
    run(sys.executable, "-m", "compileall", "-q", "shardd/cli", cwd=tree)
    target = tmp_path / "dist"
    command = (
        "umask 077; exec " + f"{sys.executable} -m hatchling build --target=sdist --target=wheel --directory={target}"
    )
    environ = {"SOURCE_DATE_EPOCH": EPOCH, "TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "7", "HOME": "/"}
    run("sh", "-c", command, cwd=tree, **environ)
    assert found_in(target).contents() == built.contents()


def test_the_wheel_has_the_package_its_licence_and_nothing_else(built: Built) -> None:
    info = built.wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    with zipfile.ZipFile(built.wheel) as wheel:
        files = {name: wheel.read(name) for name in wheel.namelist()}
    made = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    # In the wheel → in the clone.
    expected = {name: name for name in names() if name.startswith("shardd/")}
    expected |= {name.replace("systemd/", "shardd/setup/"): name for name in names() if name.startswith("systemd/")}
    assert "shardd/setup/shardd.service" in expected
    assert set(files) == {*expected, *made}
    for name, source in expected.items():
        assert files[name] == (ROOT / source).read_bytes(), name
    assert files[f"{info}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert files[f"{info}/entry_points.txt"].split() == b"[console_scripts] shardd = shardd.cli.entry:main".split()
    # What is read at run time and is not Python.
    for kind in ("sql", "md"):
        assert any(name.endswith(f".{kind}") for name in expected), kind


def test_the_sdist_has_every_file_of_the_project_but_pictures_and_nothing_else(built: Built) -> None:
    top = built.sdist.name.removesuffix(".tar.gz")
    with tarfile.open(built.sdist) as sdist:
        members = {member.name.removeprefix(f"{top}/"): member for member in sdist.getmembers()}
    assert set(members) == {*(name for name in names() if not name.startswith("scripts/pictures/")), "PKG-INFO"}
    for name, member in members.items():
        assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", int(EPOCH)), name
        executable = name != "PKG-INFO" and (ROOT / name).stat().st_mode & 0o100
        assert member.mode == (0o755 if executable else 0o644), name


def test_the_distribution_has_a_name_of_its_own_and_the_version_of_the_command(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
        metadata = Metadata.from_email(wheel.read(name))
    assert metadata.name == "shardd-whatsapp"
    said = run(sys.executable, "-m", "shardd.cli.main", "--version", cwd=ROOT)
    assert said == f"shardd, version {metadata.version}\n"
    assert metadata.license_expression == "Apache-2.0"
    assert metadata.provides_extra is not None
    assert sorted(metadata.provides_extra) == sorted(EXTRAS)


def test_the_errors_name_the_requirements_of_pyproject() -> None:
    extras = PROJECT["optional-dependencies"]
    assert {name: [requirement] for name, requirement in EXTRAS.items()} == extras
    for name in EXTRAS:
        said = how_to_install(name)
        assert f"{sys.executable} -m pip install '.[{name}]'" in said
        (elsewhere,) = re.findall(r"without a clone, \S+ -m pip install '(.+)'$", said)
        assert Requirement(elsewhere) == Requirement(extras[name][0])


def test_no_text_says_to_install_the_other_project_of_the_name() -> None:
    wrong = re.compile(r"pip[\w.]* (?:[\w-]+ )*install [^\n]*(?<![\w./-])shardd(?:\[|[\"'`\s]|$)|[\"'` ]shardd\[[a-z]")
    texts = [name for name in names() if name.rpartition(".")[2] in {"py", "md", "sql", "sh", "yaml", "toml", "txt"}]
    texts += [name for name in names() if name.startswith("scripts/") and "." not in name]
    assert wrong.search("run pip install 'shardd[media]'")
    assert wrong.search("/opt/shardd/bin/pip install --upgrade shardd\n")
    here = str(Path(__file__).relative_to(ROOT))
    found = [name for name in texts if name != here and wrong.search((ROOT / name).read_text(encoding="utf-8"))]
    assert found == []


def test_the_sdist_runs_the_tests(built: Built, state_dir: Path) -> None:
    run("tar", "--extract", f"--file={built.sdist}", cwd=state_dir)
    (source,) = state_dir.iterdir()
    # `-m` puts this folder in front of where the tests of the clone find shardd.
    tests = ["tests/unit/config/test_sample.py", "tests/unit/test_guide.py", "tests/unit/test_states.py"]
    ran = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, cwd=source)
    assert re.search(r"^\d\d+ passed", ran, re.MULTILINE)


# ---- an installation without the clone


@pytest.fixture(scope="module")
def shardd(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, installed from the wheel into a virtual environment of its own.

    Its dependencies are those of the tests' environment, by a path: they are locked by hash, and there is no index here. That
    folder's own .pth files are not read, so the clone is not on the path.
    """
    environment = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", built.wheel, cwd=environment)
    where = run(environment / "bin" / "python", "-c", "import shardd; print(shardd.__file__)", cwd=environment)
    assert Path(where.strip()).is_relative_to(site)
    return environment / "bin" / "shardd"


@pytest.fixture
def empty(state_dir: Path) -> Path:
    """An empty folder."""
    folder = state_dir / "empty"
    folder.mkdir()
    return folder


@pytest.fixture
def daemon(shardd: Path, empty: Path, state_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """`shardd start` in the empty folder, with nothing in its config but where its state is."""
    config = state_dir / "shards.yaml"
    config.write_text("state_dir: state\n")
    log = (state_dir / "log").open("w")
    process = subprocess.Popen(
        [shardd, "start", f"--config={config}"], cwd=empty, text=True, stdout=log, stderr=subprocess.STDOUT
    )
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(PATIENCE)
    log.close()


def test_the_wheel_prints_its_version_sample_and_guide_in_an_empty_folder(shardd: Path, empty: Path) -> None:
    assert run(shardd, "--version", cwd=empty).startswith("shardd, version ")
    assert run(shardd, "config", "sample", cwd=empty) == sample_config()
    assert run(shardd, "guide", "pace", cwd=empty).startswith("Pacing\n======\n")
    assert list(empty.iterdir()) == []


def test_the_wheel_sends_a_message_in_an_empty_folder(
    shardd: Path, empty: Path, state_dir: Path, daemon: subprocess.Popen[str]
) -> None:
    config = {"SHARDD_CONFIG": str(state_dir / "shards.yaml")}
    status = json.loads(run(shardd, "status", "--wait", "--json", cwd=empty, **config))
    assert status["healthy"], status
    run(shardd, "device", "add", "me", "--transport=sandbox", cwd=empty, **config)
    dsn = run(shardd, "db", "dsn", "--role=producer", cwd=empty, **config).strip()
    with psycopg.connect(dsn, autocommit=True) as connection:
        insert = (
            "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('me', '+4915112345678', 'Hello') RETURNING id"
        )
        row = connection.execute(insert).fetchone()
        assert row is not None
        deadline = time.monotonic() + PATIENCE
        state = None
        while state != ("sent",) and time.monotonic() < deadline:
            time.sleep(0.1)
            state = connection.execute("SELECT state FROM shardd.outcomes WHERE id = %s", row).fetchone()
    assert state == ("sent",), (state_dir / "log").read_text()
    run(shardd, "stop", cwd=empty, **config)
    assert daemon.wait(PATIENCE) == 0
    assert list(empty.iterdir()) == []
