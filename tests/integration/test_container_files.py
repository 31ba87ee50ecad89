"""The files in config/container: linters accept them, and they agree with what shardd needs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from shardd.config import Config, SupervisorConfig, parse_config
from shardd.config.values import Bytes

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "config" / "container"
UID = 10001
GRACE = 60
"""Seconds after the drain: for workers that must be killed, and for the embedded PostgreSQL's last checkpoint."""
ENVIRON = {"SHARDD_DB_PASSWORD": "secret"}
PROGRAMS = Path(sys.executable).parent


def check(program: str, *arguments: str | Path) -> str:
    """What a linter says; empty: nothing."""
    done = subprocess.run([PROGRAMS / program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def check_kubernetes(file: Path) -> str:
    return check("kubernetes-validate", "--strict", "--kubernetes-version=1.29", file)


def check_compose(file: Path) -> str:
    return check("check-jsonschema", "--builtin-schema=vendor.compose-spec", file)


def manifests() -> dict[str, Any]:
    """By kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text(encoding="utf-8"))}


def service(name: str) -> Any:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"][name]


def test_linters_find_nothing_wrong() -> None:
    assert check("hadolint", FOLDER / "Containerfile") == ""
    assert check_compose(FOLDER / "compose.yaml") == ""
    assert check_kubernetes(FOLDER / "kubernetes.yaml") == ""


def test_linters_would_find_a_mistake(tmp_path: Path) -> None:
    for name, right, wrong, linter in (
        ("Containerfile", "apt-get install --yes", "apt-get install", lambda file: check("hadolint", file)),
        ("compose.yaml", "read_only: true", "readonly: true", check_compose),
        ("kubernetes.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFileSystem: true", check_kubernetes),
        ("kubernetes.yaml", "maxUnavailable: 1", "maxUnavailable: [1]", check_kubernetes),
    ):
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert right in text
        (tmp_path / name).write_text(text.replace(right, wrong, 1), encoding="utf-8")
        assert linter(tmp_path / name), (name, wrong)


@pytest.mark.parametrize("source", ["compose", "kubernetes"])
def test_shardd_accepts_the_config_and_answers_probes_beyond_loopback(source: str) -> None:
    shipped = (FOLDER / "shards.yaml").read_text(encoding="utf-8")
    text = shipped if source == "compose" else manifests()["ConfigMap"]["data"]["shards.yaml"]
    config = parse_config(text, "shards.yaml", ENVIRON)
    assert (config.state_dir, config.control.metrics) == (Path("/var/lib/shardd"), "0.0.0.0:9464")
    assert "node" not in config.model_fields_set, "each container has its own"


def test_a_stop_has_time_to_drain() -> None:
    needed = SupervisorConfig().drain_timeout + GRACE
    assert manifests()["StatefulSet"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= needed
    assert int(re.fullmatch(r"(\d+)s", service("node")["stop_grace_period"])[1]) >= needed  # type: ignore[index] # it matches


def test_the_image_is_built_from_what_it_copies(tmp_path: Path) -> None:
    _, build, _ = (FOLDER / "Containerfile").read_text(encoding="utf-8").split("\nFROM ")
    for line in re.findall(r"^COPY (?!--from)(.+)$", build, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, tmp_path / source if target == "./" else tmp_path / target)
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").iterdir()
    assert {"shardd/setup/shardd.service", "shardd/cli/main.py"} <= set(zipfile.ZipFile(wheel).namelist())


def test_nothing_runs_as_root_or_writes_to_its_root_file_system() -> None:
    image = (FOLDER / "Containerfile").read_text(encoding="utf-8")
    assert f"\nUSER {UID}:{UID}\n" in image
    for name in ("node", "pgbouncer", "prometheus"):
        found = service(name)
        assert (found["read_only"], found["cap_drop"]) == (True, ["ALL"]), name
        assert found["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in found
        assert "user" not in found
    pod = manifests()["StatefulSet"]["spec"]["template"]["spec"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": UID,
        "runAsGroup": UID,
        "fsGroup": UID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_each_pod_keeps_a_state_folder_of_its_own() -> None:
    stateful = manifests()["StatefulSet"]["spec"]
    (container,) = stateful["template"]["spec"]["containers"]
    (claim,) = stateful["volumeClaimTemplates"]
    where = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    config = parse_config(manifests()["ConfigMap"]["data"]["shards.yaml"], "shards.yaml", ENVIRON)
    assert where[claim["metadata"]["name"]] == str(config.state_dir)
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert stateful["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_a_pod_may_grow_until_each_of_its_workers_is_replaced() -> None:
    (container,) = manifests()["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    resources = container["resources"]
    config = parse_config(manifests()["ConfigMap"]["data"]["shards.yaml"], "shards.yaml", ENVIRON)
    read = Bytes().read
    grown = config.shards * config.worker.recycle.rss
    assert read(f"{resources['limits']['memory']}B") == grown + 2**30
    assert read(f"{resources['requests']['memory']}B") < grown


def test_the_parts_find_each_other() -> None:
    found = manifests()
    stateful = found["StatefulSet"]["spec"]
    labels = stateful["template"]["metadata"]["labels"]
    assert stateful["serviceName"] == found["Service"]["metadata"]["name"]
    assert stateful["selector"]["matchLabels"] == labels == found["Service"]["spec"]["selector"]
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    (container,) = stateful["template"]["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container["readinessProbe"]["httpGet"]["path"] == container["startupProbe"]["httpGet"]["path"] == "/ready"
    (port,) = container["ports"]
    config = parse_config(found["ConfigMap"]["data"]["shards.yaml"], "shards.yaml", ENVIRON)
    for given in (config, _compose_config()):
        assert given.control.metrics == f"0.0.0.0:{port['containerPort']}"
    targets = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"][0]["static_configs"]
    assert targets == [{"targets": [f"node:{port['containerPort']}"]}]
    assert f"127.0.0.1:{port['containerPort']}/health" in json.dumps(service("node")["healthcheck"])


def test_what_compose_mounts_is_there() -> None:
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    sources = [volume.split(":")[0] for one in services.values() for volume in one.get("volumes", [])]
    files = [source for source in sources if source.startswith(".")]
    assert len(files) == 5
    assert [file for file in files if not (FOLDER / file).is_file()] == []


def test_pgbouncer_has_the_settings_of_the_documented_one() -> None:
    def settings(file: Path) -> dict[str, str]:
        lines = file.read_text(encoding="utf-8").splitlines()
        return dict(line.split(" = ", 1) for line in lines if " = " in line and not line.startswith(";"))

    documented, shipped = settings(ROOT / "config" / "pgbouncer.ini"), settings(FOLDER / "pgbouncer.ini")
    place = {"listen_addr", "auth_file", "shardd_sessions"}
    assert {k: v for k, v in shipped.items() if k not in place} == {
        k: v for k, v in documented.items() if k not in place
    }
    sessions = documented["shardd_sessions"].replace("db.example", "postgres")
    assert shipped["shardd_sessions"] == sessions
    sessions_dsn = _compose_config().database.sessions_dsn  # type: ignore[union-attr] # it has a database
    assert sessions_dsn == f"postgresql://shardd:secret@pgbouncer:{shipped['listen_port']}/shardd_sessions"


def _compose_config() -> Config:
    return parse_config((FOLDER / "shards.yaml").read_text(encoding="utf-8"), "shards.yaml", ENVIRON)
