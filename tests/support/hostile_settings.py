"""For each setting that shardd relies on, a value that would break something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import psycopg
from psycopg import sql

HOSTILE: Final = {
    "search_path": "public",
    "client_encoding": "LATIN1",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Jakarta",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "array_nulls": "off",
    "lc_monetary": "C.UTF-8",
    "lc_numeric": "C.UTF-8",
    "lc_time": "C.UTF-8",
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "check_function_bodies": "off",
    "plpgsql.extra_errors": "all",
    "plpgsql.extra_warnings": "all",
    "default_table_access_method": "other",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "row_security": "off",
    "exit_on_error": "on",
    "client_min_messages": "debug5",
    "lock_timeout": "1",
    "idle_session_timeout": "1s",
    "transaction_timeout": "60000",
    "plan_cache_mode": "force_custom_plan",
    "jit": "on",
    "enable_bitmapscan": "off",
    "enable_hashagg": "off",
    "enable_hashjoin": "off",
    "enable_indexonlyscan": "off",
    "enable_indexscan": "off",
    "enable_material": "off",
    "enable_mergejoin": "off",
    "enable_nestloop": "off",
    "enable_partition_pruning": "off",
    "enable_seqscan": "off",
    "enable_sort": "off",
}


def alter_role(
    superuser: psycopg.Connection[Any], role: str, dbname: str, settings: Mapping[str, str] = HOSTILE
) -> None:
    """Change the settings of a role in one database; they are dropped with it."""
    if "default_table_access_method" in settings:
        superuser.execute("CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler")
    known = {row[0] for row in superuser.execute("SELECT name FROM pg_settings").fetchall()}
    for name, value in settings.items():
        if name in known or "." in name:
            superuser.execute(
                sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} TO {}").format(
                    sql.Identifier(role), sql.Identifier(dbname), sql.Identifier(*name.split(".")), sql.Literal(value)
                )
            )
