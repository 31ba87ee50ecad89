"""`shardd device move` and `shardd opt-out copy`, between two databases with a daemon each, on the test WhatsApp server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest

from shardd.queue.moving import COMING, gone_with
from shardd.transports.whatsapp.sessions.setup import prepare_store
from tests.acceptance.test_platforms import until
from tests.fixtures.pairing import Place
from tests.support.command import PROGRAM, Command
from tests.support.daemon import Daemon, Producer

PERSON = "6281234567890"


@pytest.fixture
def asia(place: Place, make_daemon: Callable[..., Daemon], other_dsn: str) -> Place:
    """Another region; `place` is Europe. Its daemon is not started."""
    daemon = make_daemon(node="asia-1", database={"dsn": other_dsn}, transports=place.daemon.settings["transports"])
    daemon.dsn, daemon.environ = other_dsn, place.daemon.environ
    daemon.write_config()
    shardd = Command(daemon.config_file)
    shardd.environ |= daemon.environ
    return replace(place, daemon=daemon, shardd=shardd, producer=Producer(other_dsn))


def moved(source: Place, target: Place) -> tuple[str, ...]:
    return ("device", "move", "berlin-1", f"--to={target.daemon.config_file}", "--yes")


def sent_today(place: Place) -> int:
    return int(place.producer.execute("SELECT sum(sent) FROM shardd.device_days WHERE device_id = 'berlin-1'")[0][0])


def check_one_client(place: Place, number: str) -> None:
    """At no moment two of the device were logged in."""
    online: Counter[str] = Counter()
    for event in place.server.control.events():
        if event.kind in ("login", "disconnect") and event.device.startswith(number):
            online[event.device] += 1 if event.kind == "login" else -1
            assert online[event.device] <= 1, f"two clients at {event.time}"
    assert online


async def test_a_device_moves_to_another_region_and_back_with_its_session_its_counts_and_the_opt_outs(
    place: Place, asia: Place, fresh_number: str
) -> None:
    europe = place
    await europe.daemon.start()
    await asia.daemon.start()
    session = await europe.add_paired("berlin-1", fresh_number, label="Berlin", daily_limit=500)
    for number in range(3):
        europe.send("berlin-1", f"europe {number}")
    assert await europe.producer.until_finished(europe.daemon, 3) == {"sent": 3}
    await europe.control.write(f"{fresh_number}:1", PERSON, "STOP")
    await until(europe.daemon, lambda: europe.producer.execute("SELECT address FROM shardd.opt_outs"))

    europe.producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, run_at) "
        "VALUES ('berlin-1', '+4915112345678', 'tomorrow', now() + interval '1 day')"
    )
    refused = await europe.shardd(*moved(europe, asia))
    assert (refused.code, refused.out) == (64, "")
    assert "1 job of device berlin-1 would stay here" in refused.err
    assert europe.row("berlin-1")[0] == session
    assert (await europe.shardd("job", "cancel", "--device=berlin-1", "--yes")).code == 0

    done = await europe.shardd(*moved(europe, asia))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("moved device berlin-1 to ")
    assert (europe.sessions(), asia.sessions()) == ([], [session])
    assert asia.row("berlin-1") == (session, "ready", None)
    (settings,) = asia.producer.execute("SELECT label, daily_limit FROM shardd.devices WHERE id = 'berlin-1'")
    assert settings == ("Berlin", 500)
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="is removed"):
        europe.send("berlin-1", "too late")

    asia.send("berlin-1", "asia", to="+4915112345678")
    asia.send("berlin-1", "never", to=f"+{PERSON}")
    assert await asia.producer.until_finished(asia.daemon, 1) == {"sent": 1, "opted_out": 1}
    assert sent_today(asia) == 4

    back = await asia.shardd(*moved(asia, europe))
    assert (back.code, back.err) == (0, "")
    europe.send("berlin-1", "europe again", to="+4915112345678")
    await europe.producer.until_finished(europe.daemon, 5)
    assert sent_today(europe) == 5
    texts = [message.text for message in await europe.control.wait_messages(5, sender=fresh_number)]
    assert texts == ["europe 0", "europe 1", "europe 2", "asia", "europe again"]
    check_one_client(europe, fresh_number)
    left, came = (
        [("move", "device berlin-1", result) for result in ("begun", "done")],
        ("move", "device berlin-1", "done"),
    )
    assert [act for act in europe.producer.acts() if act[0] == "move"] == [*left, came]
    assert asia.producer.acts() == [came, *left]


async def test_a_move_that_is_interrupted_opens_no_client_and_goes_on_when_it_is_repeated(
    place: Place, asia: Place, fresh_number: str
) -> None:
    europe = place
    await europe.daemon.start()
    await asia.daemon.start()
    session = await europe.add_paired("berlin-1", fresh_number)
    europe.send("berlin-1", "europe")
    await europe.producer.until_finished(europe.daemon, 1)
    assert asia.daemon.dsn is not None
    await prepare_store(asia.store)

    # Killed before its session is there.
    with psycopg.connect(asia.daemon.dsn) as blocking:
        blocking.execute("LOCK TABLE shardd_sessions.whatsmeow_device IN SHARE MODE")
        process = await asyncio.create_subprocess_exec(
            PROGRAM, *moved(europe, asia), env=europe.shardd.environ, stdout=asyncio.subprocess.DEVNULL
        )
        waits = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        await until(asia.daemon, lambda: asia.producer.execute(waits))
        process.kill()
        await process.wait()
    assert europe.row("berlin-1") == (None, "unpaired", gone_with(session))
    assert asia.row("berlin-1") == (session, "replaced", COMING)
    assert (europe.sessions(), asia.sessions()) == ([session], [])

    # Refused after it has come, before the device may send.
    with psycopg.connect(asia.daemon.dsn) as blocking:
        blocking.execute("LOCK TABLE shardd.device_days IN SHARE MODE")
        failed = await europe.shardd(*moved(europe, asia))
        assert (failed.code, failed.out) == (75, "")
        assert "a lock was not free" in failed.err
        asia.send("berlin-1", "asia")
    assert europe.row("berlin-1") == (None, "unpaired", gone_with(session))
    assert asia.row("berlin-1") == (session, "replaced", COMING)
    assert (europe.sessions(), asia.sessions()) == ([], [session])
    assert asia.producer.states() == {"queued": 1}
    wrong = await asia.shardd("device", "move", "berlin-1", f"--to={europe.daemon.config_file}", "--yes")
    assert (wrong.code, wrong.out) == (64, "")
    assert "device berlin-1 is replaced: only a device that can send is moved" in wrong.err

    done = await europe.shardd(*moved(europe, asia))
    assert (done.code, done.err) == (0, "")
    assert await asia.producer.until_finished(asia.daemon, 1) == {"sent": 1}
    check_one_client(europe, fresh_number)


async def test_a_device_is_moved_only_from_the_host_that_serves_it_and_only_to_where_it_is_unknown(
    place: Place, asia: Place, fresh_number: str
) -> None:
    session = await place.add_paired("berlin-1", fresh_number)
    place.producer.execute(
        "INSERT INTO shardd.nodes (id, name, incarnation, shards, version, host, ttl) "
        "VALUES ('b', 'host-b', gen_random_uuid(), 1, '0.1.0', 'b.example', 30)"
    )
    place.producer.execute(
        "INSERT INTO shardd.epochs (shard, node, incarnation) VALUES (0, 'host-b', gen_random_uuid())"
    )
    place.producer.execute(
        "INSERT INTO shardd.leases (shard, epoch, node_id, expires_at) SELECT 0, epoch, 'b', now() + interval '1 hour' "
        "FROM shardd.epochs"
    )
    elsewhere = await place.shardd(*moved(place, asia))
    assert (elsewhere.code, elsewhere.out) == (64, "")
    assert "is served by node host-b on host b.example: run this there" in elsewhere.err

    place.producer.execute("UPDATE shardd.leases SET expires_at = now()")
    asia.add("berlin-1")
    taken = await place.shardd(*moved(place, asia))
    assert (taken.code, taken.out) == (64, "")
    assert "has a device berlin-1 already, or another one of its number; nothing was changed" in taken.err
    assert place.row("berlin-1") == (session, "ready", None)
    assert place.sessions() == [session]


async def test_opt_outs_are_copied_under_their_addresses_and_what_was_taken_back_stays_so(
    place: Place, asia: Place
) -> None:
    place.producer.execute(
        "INSERT INTO shardd.settings (name, value) VALUES ('default_codes', '{\"whatsapp\": \"62\"}')"
    )
    place.producer.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('0812 3456 7890'), ('4711000@lid')")
    copy = ("opt-out", "copy", f"--to={asia.daemon.config_file}")
    for new in ("2 opt-outs", "0 opt-outs"):
        ran = await place.shardd(*copy)
        assert (ran.code, ran.err) == (0, "")
        assert ran.out.startswith(f"added {new} to ")
    found = asia.producer.execute("SELECT address FROM shardd.opt_outs ORDER BY 1")
    assert found == [("4711000@lid",), (PERSON,)]

    asia.producer.execute("SELECT shardd.take_back(array[%s], NULL, 'START', now())", f"+{PERSON}")
    assert (await place.shardd(*copy)).out.startswith("added 0 opt-outs")
    back = await place.shardd(
        "opt-out", "copy", f"--config={asia.daemon.config_file}", f"--to={place.daemon.config_file}", "--since=1h"
    )
    assert (back.code, back.out.partition(" to ")[0]) == (0, "added 0 opt-outs")
    # What they say later counts again.
    place.producer.execute(
        "INSERT INTO shardd.opt_outs (recipient, source, said_at) VALUES (%s, 'message', now())", f"+{PERSON}"
    )
    assert (await place.shardd(*copy)).out.startswith("added 1 opt-out")
