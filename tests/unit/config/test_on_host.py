"""`shardd config check` with a file full of mistakes that are valid YAML, and with paths that lead nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from shardd.cli.config import config_group
from shardd.config import load_config

ENVIRON = {"HOME": "/home/x", "PIP_CERT": "x", "SHARDD_ENVIRONMENT_FILE": ""}


def lines_of(file: Path, text: str) -> list[str]:
    """What the command says about a file, without the place."""
    file.write_text(text)
    ran = CliRunner(env=ENVIRON).invoke(config_group, ["check", str(file)])
    assert ran.exit_code == 78
    return [line.partition(f"{file}:")[2] for line in ran.stderr.splitlines() if str(file) in line]


def test_each_mistake_has_one_line_with_the_right_fix(tmp_path: Path) -> None:
    text = """\
database:
  dsn: postgresql://shardd:p@ss/word@db/shardd
pacing: {timezone: Germany}
opt_outs: {take_back_words: yes}
inbox: {keep: 0}
transports:
  whatsapp:
    media_hosts: ["http://media.internal/"]
  cloud_api:
    webhook: {listen: 8081, app_secret: "${APP_SECRET}"}
webhooks:
  crm:
    url: https://crm.example/x
    secret: whsec_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    kinds: message.received
"""
    said = lines_of(tmp_path / "shards.yaml", text)
    for line, expected in zip(
        said,
        (
            "2: database.dsn: has an @ behind a /; write special characters of user and password as %40 for @, %2F for /",
            "3: pacing.timezone: Germany is not a known time zone; write Europe/Berlin or Europe/Busingen",
            "4: opt_outs.take_back_words: yes is a switch, but this option is not one; write values such as start, unstop",
            "5: inbox.keep: 0 means that there are no events message.received, which webhooks.crm.kinds has; write 30d, or",
            "8: transports.whatsapp.media_hosts: has a part http://media.internal/ that is a URL; write media.internal",
            "10: transports.cloud_api.webhook.app_secret: needs the variable APP_SECRET, which is not set; set it for shardd",
            "10: transports.cloud_api.webhook.listen: 8081 is not an address with a port; write 127.0.0.1:8081",
        ),
        strict=True,
    ):
        assert line.startswith(expected)
    assert "PIP_CERT" not in "".join(said)
    assert ":-" not in "".join(said), "a secret has no default in the file"


def test_paths_are_looked_at_on_this_host(tmp_path: Path) -> None:
    file, folder = tmp_path / "shards.yaml", tmp_path / "folder"
    folder.mkdir()
    text = f"""\
state_dir: {file}/state
inbox: {{media: download, media_dir: files}}
transports: {{whatsapp: {{media_dir: "{file}"}}}}
control: {{socket: "{folder}"}}
"""
    assert lines_of(file, text) == [
        f"1: state_dir: {file}/state is below the file {file}; name a folder, such as /var/lib/shardd",
        f"2: inbox.media_dir: {tmp_path}/files does not exist on this host; create it: mkdir -p {tmp_path}/files",
        f"3: transports.whatsapp.media_dir: {file} is not a folder; name one",
        f"4: control.socket: {folder} is a folder; name a socket in it, such as {folder}/control.sock",
    ]
    # A daemon does not refuse to start because a disk is not mounted yet.
    assert load_config(file).inbox.media_dir == tmp_path / "files"


@pytest.mark.parametrize(("every", "noted"), [("1s", True), ("59s", True), ("1m", False), ("never", False)])
def test_what_is_allowed_but_seldom_meant_is_noted(tmp_path: Path, every: str, noted: bool) -> None:
    file = tmp_path / "shards.yaml"
    file.write_text(f"transports: {{whatsapp: {{visit_every: {every}}}}}\n")
    ran = CliRunner(env=ENVIRON).invoke(config_group, ["check", str(file)])
    assert ran.exit_code == 0
    assert (f"note: transports.whatsapp.visit_every: {every} means a login of each idle device" in ran.stderr) == noted
