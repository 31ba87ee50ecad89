"""The sample file, the two files in `config/`, and the commands that show and check them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic.fields import FieldInfo

from shardd.cli.config import config_group
from shardd.config import Config, diff_config, load_config, parse_config, sample_config
from shardd.config.fields import extra_of, named_type, reader_of, section_type, walk

CONFIG = Path(__file__).parents[3] / "config"
ENVIRON = {"HOME": "/home/x", "SHARDD_DB_PASSWORD": "geheim"}


def test_the_production_file_is_the_sample() -> None:
    assert (CONFIG / "shards.yaml").read_text() == sample_config(), "shardd config sample > config/shards.yaml"


def test_the_sample_is_good_and_shows_the_defaults() -> None:
    sample = parse_config(sample_config(), "/etc/shardd/shards.yaml", ENVIRON)
    assert sample.database is not None
    assert sample.database.dsn == "postgresql://shardd:geheim@db.example/shardd"
    changed = {change.field for change in diff_config(parse_config("", "x.yaml", ENVIRON), sample)}
    assert {field for field in changed if not field.startswith("database.")} == {"state_dir"}


@pytest.mark.parametrize(("name", "field"), [(path[-1], field) for path, field in walk(Config)])
def test_every_option_is_explained_read_by_a_reader_and_knows_its_reload(name: str, field: FieldInfo) -> None:
    assert field.description
    assert field.description.endswith(".")
    if section_type(field) is None and named_type(field) is None:
        assert reader_of(field) is not None
        assert extra_of(field, "reload") in {"live", "shard", "restart"}
    assert f"{name}:" in sample_config()


def test_the_sample_of_a_named_section_is_good_when_it_is_commented_in() -> None:
    head, _, tail = sample_config().partition("\nwebhooks:\n")
    example, _, rest = tail.partition("\n\n")
    text = f"{head}\nwebhooks:\n{example.replace('  # ', '  ', 1).replace(chr(10) + '  # ', chr(10) + '  ')}\n\n{rest}"
    config = parse_config(text, "x.yaml", ENVIRON | {"CRM_WEBHOOK_SECRET": f"whsec_{'A' * 32}"})
    (webhook,) = config.webhooks.values()
    shown = {
        change.field: (change.old, change.new)
        for change in diff_config(parse_config(sample_config(), "x", ENVIRON), config)
    }
    assert shown["webhooks.crm.give_up"] == ("null", "3d")
    assert shown["webhooks.crm.secret"] == ("null", "(hidden)")
    assert webhook == webhook.model_validate({"url": webhook.url, "secret": webhook.secret}), "not the defaults"


def test_the_demo_file() -> None:
    config = load_config(CONFIG / "demo.yaml")
    assert (config.node, config.shards, config.database, config.log.level) == ("demo", 8, None, "warning")
    assert (config.pacing.gap_max, config.pacing.hourly_limit, config.pacing.daily_limit) == (0, 0, 0)
    assert config.state_dir == CONFIG.parent / ".shardd" / "demo"


def test_sample_prints_a_file_that_check_accepts(tmp_path: Path) -> None:
    printed = CliRunner().invoke(config_group, ["sample"])
    assert (printed.exit_code, printed.stdout) == (0, sample_config())
    file = tmp_path / "shards.yaml"
    file.write_text(printed.stdout)
    checked = CliRunner(env=ENVIRON).invoke(config_group, ["check", str(file)])
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert checked.stdout.startswith(f"{file}: good (node ")
    assert "geheim" not in checked.stdout


def test_check_reports_the_errors_and_exits_with_78(tmp_path: Path) -> None:
    file = tmp_path / "shards.yaml"
    file.write_text("shards: 0\nlog: {level: loud}\n")
    checked = CliRunner().invoke(config_group, ["check", str(file)])
    assert (checked.exit_code, checked.stdout) == (78, "")
    assert checked.stderr.splitlines() == [
        f"{file}:1: shards: 0 is too small; write a value from 1 to 256",
        f"{file}:2: log.level: loud is not one of debug, info, warning, error; write one of these",
        "2 errors",
    ]


def test_check_without_a_file_takes_the_one_that_commands_use(tmp_path: Path) -> None:
    file = tmp_path / "shards.yaml"
    file.write_text("shards: 0\n")
    checked = CliRunner(env={"SHARDD_CONFIG": str(file)}).invoke(config_group, ["check"])
    assert (checked.exit_code, checked.stdout) == (78, "")
    assert checked.stderr.startswith(f"{file}:1: shards: 0 is too small")


def test_check_of_no_file_exits_with_78(tmp_path: Path) -> None:
    checked = CliRunner().invoke(config_group, ["check", str(tmp_path / "none.yaml")])
    assert checked.exit_code == 78
    assert checked.stderr.count("\n") == 1
