"""Whole config files: defaults, every issue at once, the rules between options, files that cannot be read, changes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardd.config import TRANSPORTS, Config, WhatsappConfig, diff_config, load_config, parse_config
from shardd.errors import ConfigError

HOME = {"HOME": "/home/x"}


def issues(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "x.yaml", HOME | environ)
    return str(caught.value).splitlines()


def test_an_empty_file_means_all_defaults() -> None:
    for text in ("", "# nothing\n", "---\n", "lease:\nqueue:\n  backoff:\n"):
        config = parse_config(text, "x.yaml", HOME)
        assert config.shards == 8
        assert config.database is None
        assert config.state_dir == Path("/home/x/.local/state/shardd")
        assert config.control_socket == Path("/home/x/.local/state/shardd/control.sock")
        assert (config.lease.ttl, config.supervisor.backoff.first, config.queue.backoff.cap) == (30.0, 0.5, 600.0)
        assert (config.worker.recycle.rss, config.worker.journal_fsync) == (2**30, False)
        assert config.connect_timeout == config.statement_timeout == 5.0


def test_state_dir_follows_the_xdg_rules() -> None:
    assert parse_config("", "x", {"XDG_STATE_HOME": "/s"}).state_dir == Path("/s/shardd")
    assert parse_config("", "x", HOME | {"XDG_STATE_HOME": "relative"}).state_dir == Path("/home/x/.local/state/shardd")
    with pytest.raises(ConfigError, match=r"^x:1: state_dir: is missing, and without HOME"):
        parse_config("", "x", {})


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "etc" / "shards.yaml"
    file.parent.mkdir()
    file.write_text("state_dir: ../state\n")
    config = load_config(file)
    assert config.state_dir == tmp_path / "state"
    assert config.source == file


def test_every_error_is_reported_at_once_with_line_field_value_and_fix() -> None:
    text = """\
node: My Host
shards: 010
lease:
  tll: 3s
  renew_every: 20
queue: {batch: 1e3, send_timeout: null}
pacing:
  timezone: asia/jakarta
ttl: 3s
log: debug
worker:
  journal_fsync: yes
  recycle:
    rss: ${RSS}
shards: 3
supervisor:
  heartbeat_every: 10s
control: [1]
transports:
  sandbox: {record: {a: 1}}
  telegram: {}
"""
    beats = (
        "x.yaml:17: supervisor.heartbeat_timeout: 20s is less than three heartbeats (supervisor.heartbeat_every is 10s), "
        "so healthy workers would be killed; write 30s or more"
    )
    assert issues(text) == [
        "x.yaml:1: node: My Host is not a node name (a-z, 0-9, '.', '-', at most 63 characters); write my-host",
        "x.yaml:2: shards: 010 begins with 0, which some programs read as octal; write 10",
        "x.yaml:4: lease.tll: is not an option of lease; did you mean ttl?",
        "x.yaml:5: lease.renew_every: 20 has no unit; write 20s for seconds, or ms, m, h, d",
        "x.yaml:6: queue.batch: 1e3 is not a whole number in plain digits; write 1000",
        "x.yaml:6: queue.send_timeout: is null; delete the line for the default (90s), or write a value",
        "x.yaml:8: pacing.timezone: asia/jakarta is not a known time zone; write Asia/Jakarta",
        "x.yaml:9: ttl: is not an option; did you mean lease.ttl?",
        "x.yaml:10: log: is not a section; write its options below it, indented: level, format",
        "x.yaml:12: worker.journal_fsync: yes is neither true nor false; write true",
        (
            "x.yaml:14: worker.recycle.rss: needs the variable RSS, which is not set; "
            "set it for shardd (the service reads /etc/shardd/environment), or write ${RSS:-default}"
        ),
        "x.yaml:15: shards: is written twice, first in line 2; keep one of them",
        beats,
        "x.yaml:18: control: is not a section; write its options below it, indented: socket, group, metrics",
        "x.yaml:20: transports.sandbox.record: is a section; write one value",
        f"x.yaml:21: transports.telegram: is not an option of transports; known are {', '.join(TRANSPORTS)}",
    ]


def test_a_hash_that_a_comma_between_braces_cuts_is_told_to_be_quoted() -> None:
    cut = "dashboard: {users: {ada: {password: $argon2id$v=19$m=65536,t=3,p=4$abc$def, role: look}}}"
    assert any(
        "dashboard.users.ada.password: is cut at its first comma" in issue and issue.endswith("between quotes")
        for issue in issues(cut)
    )


def test_values_from_the_environment_are_read_like_written_ones() -> None:
    text = "shards: ${N}\nlease: {ttl: '${TTL:-1m}'}\nworker: {journal_fsync: '${SYNC:-true}'}\n"
    config = parse_config(text, "x.yaml", HOME | {"N": "3"})
    assert (config.shards, config.lease.ttl, config.worker.journal_fsync) == (3, 60.0, True)
    assert issues("shards: ${N}", N="many")[0].startswith("x.yaml:1: shards: ${N} (many) is not a whole number")


@pytest.mark.parametrize(
    "text",
    [
        "database: {dsn: 'postgresql://u:geheim@x@h/d'}",
        "database: {dsn: 'host=h password=geh eim'}",
        "database: {dsn: 'postgresql://u:${PW}@h:x/d'}",
        "database: postgresql://u:geheim@h/d",
        "database: {dns: 'postgresql://u:geheim@h/d'}",
        "database: {dsn: [geheim]}",
        "database: {dsn: {password: geheim}}",
        "database: {dsn: !geheim x}",
        "database: {dsn: *geheim}",
        "database: {dsn: 'postgresql:///d', sessions_dsn: 'geheim://geheim'}",
        "database: {dsn: 'postgresql:///d', sessions_dsn: 'password=${PW} ${MISSING}'}",
        "database:\n  dsn: postgresql://u:geheim@h/d\n  connect_timeout: 20s",
    ],
)
def test_no_message_shows_a_secret(text: str) -> None:
    said = "\n".join(issues(text, PW="ge heim"))
    # A scheme is no secret: `geheim://` names what cannot be connected to.
    assert "heim" not in said.replace("geheim://, which", "")


def test_a_config_does_not_show_its_secrets() -> None:
    config = parse_config(
        "database: {dsn: 'postgresql://u:geheim@h/d', sessions_dsn: 'password=geheim'}", "x.yaml", HOME
    )
    assert config.database is not None
    assert config.database.dsn == "postgresql://u:geheim@h/d"
    other = parse_config("database: {dsn: 'postgresql://u:geheim2@h/d'}", "x.yaml", HOME)
    assert "geheim" not in f"{config!r} {config} {config.database!r} {diff_config(config, other)}"
    with pytest.raises(pydantic.ValidationError) as caught:
        Config.model_validate({"database": {"dsn": "geheim://x:geheim@h"}})
    assert "geheim@" not in str(caught.value)


def test_an_empty_database_section_is_no_embedded_database() -> None:
    for text in ("database:\n", "database: null\n", "database: {}\n", "database:\n  connect_timeout: 1s\n"):
        (said,) = issues(text)
        assert said.startswith("x.yaml:1: database: has no dsn; write `dsn: postgresql://…` below it, or delete")


@pytest.mark.parametrize("text", ["just words", "- a\n- b\n", "'shards: 8'", "null words"])
def test_a_file_that_is_no_config(text: str) -> None:
    (said,) = issues(text)
    assert "is not a config; write lines such as `shards: 8`" in said


# ---- rules between options


def test_a_lease_must_outlast_two_slow_database_calls() -> None:
    assert parse_config("lease: {ttl: 20s}", "x.yaml", HOME).lease.ttl == 20.0  # 5 + 2 x 5 = 15 = 20 - 5: just enough
    (said,) = issues("lease:\n  margin: 5s\n  ttl: 19s\n")
    assert said == (
        "x.yaml:3: lease.ttl: 19s is too short: renew_every (5s) + 2 x database.connect_timeout (5s) is 15s, "
        "but ttl - margin (5s) is 14s; write ttl: 20s or more, or renew_every: 4s or less"
    )
    (said,) = issues("shards: 1\ndatabase:\n  dsn: postgresql:///x\n  statement_timeout: 12s\n")
    assert said.startswith(
        "x.yaml:4: lease.ttl: 30s is too short: renew_every (5s) + 2 x database.statement_timeout (12s) is 29s"
    )
    assert said.endswith("write ttl: 34s or more, or renew_every: 1s or less")
    (said,) = issues("lease: {ttl: 3s}")
    assert said.endswith("is less than 0; write ttl: 20s or more")


@given(
    ttl=st.integers(3000, 60_000),
    renew=st.integers(500, 20_000),
    margin=st.integers(1000, 20_000),
    connect=st.integers(100, 15_000),
    statement=st.integers(100, 15_000),
)
@settings(max_examples=60)
def test_the_fix_of_a_lease_is_enough(ttl: int, renew: int, margin: int, connect: int, statement: int) -> None:
    def text(ttl: str) -> str:
        return (
            f"lease: {{ttl: {ttl}, renew_every: {renew}ms, margin: {margin}ms}}\n"
            f"database: {{dsn: 'postgresql:///x', connect_timeout: {connect}ms, statement_timeout: {statement}ms}}\n"
        )

    fits = renew + 2 * max(connect, statement) <= ttl - margin
    if fits:
        parse_config(text(f"{ttl}ms"), "x.yaml", HOME)
    else:
        (said,) = issues(text(f"{ttl}ms"))
        fix = re.search(r"write ttl: (\S+) or more", said)
        assert fix is not None
        parse_config(text(fix[1]), "x.yaml", HOME)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pacing: {gap_min: 20s}", "pacing.gap_min: 20s is longer than pacing.gap_max (15s); write 15s or less"),
        ("queue: {scan_every: 100ms}", "queue.poll_every: 250ms is longer than queue.scan_every (100ms)"),
        ("retention: {finished: 120d}", "retention.finished: 120d is longer than retention.dedupe_keys (90d)"),
        ("queue: {backoff: {first: 1h}}", "queue.backoff.first: 1h is longer than queue.backoff.cap (10m)"),
        (
            "supervisor: {backoff: {cap: 10ms}}",
            "supervisor.backoff.first: 500ms is longer than supervisor.backoff.cap (10ms)",
        ),
        (
            "transports: {sandbox: {latency_min: 1s}}",
            "latency_min: 1s is longer than transports.sandbox.latency_max (200ms)",
        ),
        (
            "transports: {sandbox: {hang_rate: 0.5, transient_rate: 0.6}}",
            "transient_rate: 0.6 is too large: transient_rate (0.6) + hang_rate (0.5) is 1.1; write shares that add up to 1.0",
        ),
        (f"control: {{socket: /{'s' * 100}}}", "is 101 bytes long; write a path of at most 100"),
        (
            f"state_dir: /{'s' * 88}",
            "is too long for the control socket in it (102 bytes of at most 100)",
        ),
        (f"state_dir: /{'ü' * 44}", "is too long for the control socket in it (102 bytes of"),
    ],
)
def test_rules_between_options_name_the_numbers(text: str, words: str) -> None:
    (said,) = issues(text)
    assert words in said


def test_shares_that_add_up_to_one_are_fine() -> None:
    text = "transports: {sandbox: {transient_rate: 0.7, permanent_rate: 0.1, hang_rate: 0.1, in_doubt_rate: 0.1}}"
    assert parse_config(text, "x.yaml", HOME).transports.sandbox.transient_rate == 0.7


@pytest.mark.parametrize(
    "text",
    [
        "lease: {ttl: 60, renew_every: 25s}",  # ttl has an issue of its own
        "lease: {tll: 60s, renew_every: 25s}",  # ttl was probably meant
        "lease: 60s\ndatabase: {dsn: 'postgresql:///x', connect_timeout: 25s}",
        "lease: {renew_every: 25s, ttl: '${TTL}'}",
    ],
)
def test_rules_are_not_reported_about_options_that_have_errors_themselves(text: str) -> None:
    (said,) = issues(text)
    assert "too short" not in said


# ---- files


def test_a_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "none.yaml"
    with pytest.raises(ConfigError, match=r"there is no such file; name yours with --config or \$SHARDD_CONFIG"):
        load_config(file)
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        load_config(Path("/dev/null/x"))


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, words in ((tmp_path, "is a folder"), (pipe, "not a regular file"), (loop, "cannot be read: ")):
        with pytest.raises(ConfigError, match=words):
            load_config(path)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    file = tmp_path / "shards.yaml"
    file.write_text("")
    file.chmod(0)
    me = os.geteuid()
    if me == 0:  # root may read every file, so be somebody else for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match=r"user [1-9]\d* may not read it; change the owner or mode of the file"):
            load_config(file)
    finally:
        os.seteuid(me)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "shards.yaml"
    file.write_bytes(b"shards: 3\nnode: h\xf6st\n")
    with pytest.raises(ConfigError, match=r"shards.yaml:2: is not UTF-8 \(byte 0xf6\); save the file as UTF-8"):
        load_config(file)
    file.write_bytes(b"#" * 300_000)
    with pytest.raises(ConfigError, match="300000 bytes, so it is not a config"):
        load_config(file)


def test_files_from_other_systems_are_read(tmp_path: Path) -> None:
    file = tmp_path / "shards.yaml"
    file.write_bytes(b"\xef\xbb\xbfshards: 3\r\nlog:\r\n  level: debug\r\n")
    config = load_config(file)
    assert (config.shards, config.log.level) == (3, "debug")


@given(
    st.text(max_size=80) | st.from_regex(r"([a-z_]{1,8}: ?[\[{'\"&*!|>$%@0-9a-z\n \t-]{0,12}\n){1,4}", fullmatch=True)
)
@settings(max_examples=300)
def test_whatever_a_file_holds_the_answer_is_a_config_or_a_config_error(text: str) -> None:
    try:
        parse_config(text, "x.yaml", HOME)
    except ConfigError as error:
        assert all(re.match(r"x\.yaml:\d+(:\d+)?: ", line) for line in str(error).splitlines())  # noqa: PT017 - either end is good


# ---- the model in Python


def test_transports_travel_as_plain_data() -> None:
    transports = parse_config("transports: {whatsapp: {media_dir: m, idle_close: 90s}}", "/etc/x.yaml", HOME).transports
    plain = transports.as_plain()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plain)) == plain
    assert (plain["whatsapp"]["media_dir"], plain["whatsapp"]["idle_close"]) == ("/etc/m", 90.0)
    assert WhatsappConfig(**plain["whatsapp"]) == transports.whatsapp


def test_the_model_is_frozen() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Config().shards = 3


def test_changes_say_what_they_need() -> None:
    old = parse_config("node: a\npacing: {gap_max: 20s}\n", "x.yaml", HOME)
    new = parse_config(
        "node: a\nlog: {level: debug}\nworker: {go_memory_limit: 1GiB}\ndatabase: {dsn: 'password=x'}\n", "x.yaml", HOME
    )
    assert diff_config(old, old) == []
    assert [(change.field, change.old, change.new, change.reload) for change in diff_config(old, new)] == [
        ("database.dsn", "null", "(hidden)", "restart"),
        ("database.connect_timeout", "null", "5s", "restart"),
        ("database.statement_timeout", "null", "5s", "restart"),
        ("worker.go_memory_limit", "512MiB", "1GiB", "shard"),
        ("pacing.gap_max", "20s", "15s", "live"),
        ("log.level", "info", "debug", "live"),
    ]
