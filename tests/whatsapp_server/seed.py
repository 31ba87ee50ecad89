"""Writes paired devices directly into a whatsmeow store in PostgreSQL: thousands in seconds, without pairing.

Their keys are derived from their numbers (``derived_keys``), so every test server knows them. Does not load neonize.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
from psycopg import sql

from .crypto.derived_keys import LinkedKeys, phone_seed
from .crypto.keys import KeyPair
from .crypto.protobuf_fields import write_fields
from .wire.nodes import lid_jid, number_jid

UPLOADED_PREKEYS = 6  # with fewer than 5, the client uploads new ones at login
_ACCOUNT_SIGNATURE_PREFIX = b"\x06\x00"
_DEVICE_SIGNATURE_PREFIX = b"\x06\x01"
DEVICE_COLUMNS = (
    "jid",
    "lid",
    "registration_id",
    "noise_key",
    "identity_key",
    "signed_pre_key",
    "signed_pre_key_id",
    "signed_pre_key_sig",
    "adv_key",
    "adv_details",
    "adv_account_sig",
    "adv_account_sig_key",
    "adv_device_sig",
    "platform",
    "push_name",
)


def seed_postgres(dsn: str, numbers: Iterable[str], *, index: int = 1, schema: str | None = None) -> list[str]:
    """Write one device for each number; returns their addresses, ``number:index@s.whatsapp.net``.

    Args:
        dsn: The store's database; its tables must exist.
        numbers: Phone numbers, digits only, without a row with this index.
        index: The index of each device among the linked devices of its number.
        schema: Schema of the tables, unless the DSN's search_path finds them.
    """
    rows = [_device_row(number, index) for number in numbers]
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        if schema is not None:
            cursor.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(schema)))
        _copy(cursor, "whatsmeow_device", DEVICE_COLUMNS, rows)
        _copy(cursor, "whatsmeow_pre_keys", ("jid", "key_id", "key", "uploaded"), _prekey_rows(rows))
        names = ((row[1].partition(":")[0], row[0].partition(":")[0]) for row in rows)
        _copy(cursor, "whatsmeow_lid_map", ("lid", "pn"), names)
    return [row[0] for row in rows]


def _device_row(number: str, index: int) -> tuple[Any, ...]:
    keys, phone = LinkedKeys(number, index), KeyPair.derived(phone_seed(number), "identity")
    identity = keys.identity
    details = write_fields({1: int.from_bytes(os.urandom(3), "big"), 2: int(time.time()), 3: index})
    return (
        str(number_jid(number, index)),
        str(lid_jid(number, index)),
        keys.registration_id,
        keys.noise.private,
        identity.private,
        keys.signed_prekey.private,
        LinkedKeys.SIGNED_PREKEY_ID,
        keys.signature,
        os.urandom(32),
        details,
        phone.sign(_ACCOUNT_SIGNATURE_PREFIX + details + identity.public),
        phone.public,
        identity.sign(_DEVICE_SIGNATURE_PREFIX + details + identity.public + phone.public),
        "android",
        f"Device {number}",
    )


def _prekey_rows(devices: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    for device in devices:
        for key_id in range(1, UPLOADED_PREKEYS + 1):
            yield device[0], key_id, os.urandom(32), True


def _copy(cursor: psycopg.Cursor[Any], table: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
    with cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
