"""`shardd opt-out` without a daemon."""

from __future__ import annotations

import asyncio
import csv
import getpass
import io
import json
import signal
from pathlib import Path

import psycopg
import pytest

from shardd.queue.opt_outs import CHUNK
from tests.support.command import PATIENCE, PROGRAM, Command
from tests.support.daemon import Producer


@pytest.fixture
def shardd(config_file: Path) -> Command:
    """Numbers without + are Indonesian."""
    with config_file.open("a") as file:
        file.write("transports: {whatsapp: {default_region: ID}}\n")
    return Command(config_file)


async def test_numbers_are_added_as_a_worker_reads_them(shardd: Command, producer: Producer) -> None:
    added = await shardd(
        "opt-out", "add", "0812 3456 7890", "+49 (0)151 2345678", "12345678@lid", "--note", "by letter"
    )
    assert (added.code, added.out) == (0, "added 3 opt-outs\n")
    rows = producer.execute("SELECT address, source, note, created_by FROM shardd.opt_outs ORDER BY address")
    who = ("operator", "by letter", getpass.getuser())
    assert rows == [("12345678@lid", *who), ("491512345678", *who), ("6281234567890", *who)]
    again = await shardd("opt-out", "add", "-", "nobody", stdin="+6281234567890\n+6281234567891\n")
    assert (again.code, again.out) == (64, "added 1 opt-out; 1 already listed\n")
    assert again.err.startswith("number nobody: recipient 'nobody' is not a phone number")
    nothing = await shardd("opt-out", "add", "-")
    assert (nothing.code, nothing.out) == (64, "")
    assert "no recipient is named" in nothing.err


async def test_show_tells_since_when_and_what_it_stopped(shardd: Command, producer: Producer) -> None:
    await shardd("opt-out", "add", "+6281234567890")
    producer.add_devices(1)
    ((job,),) = producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, reference) VALUES ('d1', '+6281234567890', 'x', 'order-7') "
        "RETURNING id"
    )
    shown = await shardd("opt-out", "show", "081234567890")
    assert shown.code == 0
    assert "6281234567890: opted out" in shown.out
    assert "order-7" in shown.out
    told = (await shardd("opt-out", "show", "081234567890", "--json")).json
    assert (told["opted_out"], told["source"], len(told["heard"])) == (True, "operator", 1)
    assert [(stopped["id"], stopped["class"]) for stopped in told["jobs_stopped"]] == [(job, "marketing")]
    other = await shardd("opt-out", "show", "+6281234567891")
    assert (other.code, other.out) == (0, "6281234567891: has not opted out\n")
    assert not (await shardd("opt-out", "show", "+6281234567891", "--json")).json["opted_out"]


async def test_a_list_is_imported_as_often_as_one_likes(shardd: Command, producer: Producer, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("\ufeffnumber\n# from the old system\n081234567890\nnonsense\n\n+6281234567891\n", "utf-8")
    dry = await shardd("opt-out", "import", lines, "--dry-run")
    assert (dry.code, dry.out) == (64, "would add 2 recipients, including those that are already listed\n")
    assert dry.err.startswith("line 4: recipient 'nonsense' is not a phone number")
    assert producer.execute("SELECT count(*) FROM shardd.opt_outs") == [(0,)]
    assert (await shardd("opt-out", "import", lines)).out == "added 2 opt-outs\n"
    assert (await shardd("opt-out", "import", lines)).out == "added 0 opt-outs; 2 already listed\n"
    table = "Phone;Note;said_at\n0812 3456 7892;wrote a letter;2026-05-01T12:30:00+07:00\n+6281234567893;;\n"
    assert (await shardd("opt-out", "import", "-", "--note", "2026 list", stdin=table)).out == "added 2 opt-outs\n"
    rows = producer.execute(
        "SELECT address, note, said_at AT TIME ZONE 'UTC' FROM shardd.opt_outs WHERE note IS NOT NULL ORDER BY address"
    )
    assert [(address, note) for address, note, _ in rows] == [
        ("6281234567892", "wrote a letter"),
        ("6281234567893", "2026 list"),
    ]
    assert f"{rows[0][2]}" == "2026-05-01 05:30:00"


async def test_who_took_it_back_after_the_file_was_made_is_not_called_listed(
    shardd: Command, producer: Producer
) -> None:
    one, other, listed = "+6281234567890", "+5215512345678", "+6281234567892"
    await shardd("opt-out", "add", one, other, listed)
    for number in (one, other):
        producer.execute("SELECT shardd.take_back(ARRAY[%s], 'd1', 'start', now())", number)
    # The Mexican number in both of its forms is one person.
    time = "2020-05-01T12:30:00Z"
    table = f"recipient,said_at\n{one},{time}\n{other},{time}\n+525512345678,{time}\n{listed},\n"
    imported = await shardd("opt-out", "import", "-", stdin=table)
    first, second = imported.out.splitlines()
    assert (imported.code, first) == (0, "added 0 opt-outs; 1 already listed")
    assert second.startswith(
        "not added, because they took their opt-out back after said_at: +525512345678, +6281234567890;"
    )
    assert "has not opted out" in (await shardd("opt-out", "show", one)).out


async def test_a_file_that_is_no_list_adds_nobody(shardd: Command, producer: Producer) -> None:
    refused = await shardd("opt-out", "import", "-", stdin="name,city\nAda,Bandung\n")
    assert (refused.code, refused.out) == (64, "")
    assert "the table has no column recipient" in refused.err
    assert producer.execute("SELECT count(*) FROM shardd.opt_outs") == [(0,)]


async def test_a_wrong_line_of_an_import_keeps_no_other_out(shardd: Command, producer: Producer) -> None:
    table = (
        "recipient,note,said_at\n+6281234567890,,01/02/2024\n+6281234567891,,\n"
        f"+6281234567892,{'x' * 1001},\n628111000001.0,,\n"
    )
    imported = await shardd("opt-out", "import", "-", stdin=table)
    assert (imported.code, imported.out) == (64, "added 1 opt-out\n")
    bad_time, bad_note, bad_number = imported.err.splitlines()
    assert bad_time == "line 2: said_at '01/02/2024' is not a time: write 2026-05-01T12:30:00Z, or nothing"
    assert bad_note == "line 4: the note has 1,001 characters: use at most 1,000"
    assert bad_number.startswith(
        "line 5: recipient '628111000001.0' is a decimal number, as a spreadsheet writes it: write"
    )
    assert producer.execute("SELECT address FROM shardd.opt_outs") == [("6281234567891",)]


async def test_export_prints_what_import_reads(shardd: Command, producer: Producer) -> None:
    producer.execute(
        "INSERT INTO shardd.opt_outs (recipient, source, device_id, words, said_at) "
        "VALUES ('+6281234567890', 'message', 'd1', 'Stop, \"please\"', '2026-05-01 12:30:00+00')"
    )
    producer.execute(
        "INSERT INTO shardd.opt_outs (recipient) SELECT '+62811' || 1000000 + g FROM generate_series(1, 4100) g"
    )
    exported = await shardd("opt-out", "export")
    rows = list(csv.DictReader(io.StringIO(exported.out)))
    assert len(rows) == 4101
    heard = next(row for row in rows if row["address"] == "6281234567890")
    assert (heard["words"], heard["device_id"], heard["note"]) == ('Stop, "please"', "d1", "")
    assert heard["said_at"] == "2026-05-01T12:30:00+00:00"
    as_json = [json.loads(line) for line in (await shardd("opt-out", "export", "--json")).out.splitlines()]
    assert [row["address"] for row in as_json] == [row["address"] for row in rows]
    assert (await shardd("opt-out", "export", "--json", "--csv")).code == 64
    again = await shardd("opt-out", "import", "-", stdin=exported.out)
    assert (again.code, again.out) == (0, "added 0 opt-outs; 4,101 already listed\n")
    listed = (await shardd("opt-out", "list", "--source", "message", "--json")).json
    assert [(row["address"], row["device_id"]) for row in listed] == [("6281234567890", "d1")]
    assert "there may be more" in (await shardd("opt-out", "list", "--limit", "10")).out
    assert (await shardd("opt-out", "list", "--device", "d2")).out == "no opt-outs\n"


async def test_there_is_no_way_back(shardd: Command) -> None:
    assert "Only the person can take an opt-out back" in (await shardd("opt-out", "--help")).out
    assert (await shardd("opt-out", "remove", "+6281234567890")).code == 64


async def test_a_producers_open_transaction_is_named_and_nothing_was_changed(
    shardd: Command, producer: Producer, dsn: str, tmp_path: Path
) -> None:
    rest = tmp_path / "list.txt"
    rest.write_text("\n".join(f"+62812{number:07}" for number in range(2 * CHUNK)))
    with psycopg.connect(dsn) as blocker:
        blocker.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+6281234567890')")
        pid = blocker.info.backend_pid
        added = await shardd("opt-out", "add", "+6281234567890", "+6281234567891")
        assert (added.code, added.out) == (75, "")
        assert added.err.count("\n") == 1
        for words in ("nothing was changed", f"pid {pid}", f"pg_terminate_backend({pid})", "open for"):
            assert words in added.err
        imported = await shardd("opt-out", "import", rest)
        assert (imported.code, imported.out) == (0, f"added {2 * CHUNK:,} opt-outs\n")
        rest.write_text("\n".join([f"+62813{number:07}" for number in range(CHUNK)] + ["+6281234567890"]))
        imported = await shardd("opt-out", "import", rest)
        assert imported.code == 75
        assert f"the first {CHUNK:,} are on the list, the other 1 were not added" in imported.err
    assert producer.execute("SELECT count(*) FROM shardd.opt_outs") == [(3 * CHUNK + 1,)], (
        "no statement was left behind"
    )


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_a_command_that_is_stopped_leaves_no_statement_behind(
    shardd: Command, producer: Producer, producer_dsn: str, signum: signal.Signals
) -> None:
    """Nobody can tell the server that a process was killed: it ends the statement by itself, after a few seconds."""
    waiting = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'shardd/command' AND wait_event_type = 'Lock'"
    with psycopg.connect(producer_dsn) as blocker:
        blocker.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+6281234567890')")
        process = await asyncio.create_subprocess_exec(
            *(str(PROGRAM), "opt-out", "add", "+6281234567890"),
            env=shardd.environ,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE):
            while not producer.execute(waiting):  # noqa: ASYNC110 - rows tell nobody
                await asyncio.sleep(0.02)
            process.send_signal(signum)
            _, err = await process.communicate()
            if signum is not signal.SIGKILL:
                assert (process.returncode, err.decode().strip()) == (128 + signum, "aborted")
                assert not producer.execute(waiting)
            while producer.execute(waiting):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        blocker.rollback()
    assert producer.execute("SELECT count(*) FROM shardd.opt_outs") == [(0,)]
