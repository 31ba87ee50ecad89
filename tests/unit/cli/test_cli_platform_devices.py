"""`shardd device add` for HTTP platforms refuses wrong settings without asking the database."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from shardd.cli.device.commands import device_group
from shardd.errors import UsageError


@pytest.mark.parametrize(
    ("transport", "options", "complaint"),
    [
        ("wablas", [], "settings.token: is missing"),
        (
            "wablas",
            ["--settings", '{"tokn": "geheim"}'],
            "settings.tokn: is not known to transport 'wablas'; write token",
        ),
        ("whacenter", ["--settings", '{"device_id": "geheim words"}'], "settings.device_id: the value (not shown)"),
        ("cloud_api", ["--settings", '{"token": "geheim"}'], "settings.phone_number_id: is missing"),
        (
            "wablas",
            ["--settings", '{"token": "geheim"}', "--proxy", "socks5://user:geheim@127.0.0.1:1"],
            "proxy: is a socks5 proxy",
        ),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, transport: str, options: list[str], complaint: str) -> None:
    config_file = tmp_path / "shards.yaml"
    config_file.write_text(f"state_dir: {tmp_path}\n")
    ran = CliRunner().invoke(device_group, ["add", "p1", "--transport", transport, *options, f"--config={config_file}"])
    assert isinstance(ran.exception, UsageError)
    assert complaint in str(ran.exception)
    assert "geheim" not in str(ran.exception)
