"""The settings of a connection that shardd relies on.

Each of them can be changed for a session by `ALTER SYSTEM`, `ALTER DATABASE`, `ALTER ROLE`, postgresql.conf or the environment
(PGOPTIONS, PGDATESTYLE, …), and each affects what a statement means, the format of its result, or how long it takes. So every
connection sets them itself. Costs (`random_page_cost`, `work_mem` …) are up to the operator, and so is
`default_transaction_read_only`, by which a server declares that it must not be written to.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Setting(NamedTuple):
    """A setting, its value, and the first major version of PostgreSQL that has it."""

    name: str
    value: str
    since: int = 0


SETTINGS: Final = (
    # First, so that no name below can resolve to an object of another role. shardd's own names are always qualified.
    Setting("search_path", "pg_catalog, pg_temp"),
    # The format of values.
    Setting("client_encoding", "UTF8"),
    Setting("datestyle", "ISO, MDY"),
    Setting("intervalstyle", "postgres"),
    Setting("timezone", "UTC"),
    Setting("bytea_output", "hex"),
    Setting("extra_float_digits", "1"),
    Setting("array_nulls", "on"),
    Setting("lc_monetary", "C"),
    Setting("lc_numeric", "C"),
    Setting("lc_time", "C"),
    # The meaning of statements.
    Setting("standard_conforming_strings", "on"),
    Setting("backslash_quote", "safe_encoding"),
    Setting("transform_null_equals", "off"),
    Setting("quote_all_identifiers", "off"),
    Setting("check_function_bodies", "on"),
    Setting("plpgsql.extra_errors", "none"),
    Setting("plpgsql.extra_warnings", "none"),
    Setting("default_table_access_method", "heap", since=12),
    # Transactions and the end of a session.
    Setting("default_transaction_isolation", "read committed"),
    Setting("default_transaction_deferrable", "off"),
    Setting("row_security", "on"),
    Setting("exit_on_error", "off"),
    Setting("client_min_messages", "warning"),
    Setting("lock_timeout", "0"),
    Setting("idle_session_timeout", "0", since=14),
    Setting("transaction_timeout", "0", since=17),
    # Planning. Plans are generic because the parameters of the router's statements are arrays of varying size; without an
    # index or a nested loop, a claim would read the whole table.
    Setting("plan_cache_mode", "force_generic_plan", since=12),
    Setting("jit", "off", since=11),
    *(
        Setting(f"enable_{plan}", "on")
        for plan in (
            *("bitmapscan", "hashagg", "hashjoin", "indexonlyscan", "indexscan", "material", "mergejoin", "nestloop"),
            *("seqscan", "sort"),
        )
    ),
    Setting("enable_partition_pruning", "on", since=11),
)

INDEX_PLANS: Final = dict.fromkeys(
    (f"enable_{plan}" for plan in ("seqscan", "bitmapscan", "sort", "hashjoin", "mergejoin", "material")), "off"
)
"""For connections whose statements all fetch a few rows in the order of an index.

On a table that was never analysed, or while it was empty, the planner mistakes ten thousand rows for ten, and expects that
reading and sorting the table costs no more than an index probe; repeated for each lane, that takes far too long. Where there is
no alternative, PostgreSQL still sorts and reads the table.
"""


def settings_for(
    server_version: int, statement_timeout: float, *, lock_timeout: float = 0.0, index_plans: bool = False
) -> dict[str, str]:
    """The settings for a server of this major version; times in seconds. `index_plans`: see `INDEX_PLANS`.

    `lock_timeout`: longest wait for one lock; 0: as long as the statement may take. The server gives up after nine tenths of
    `statement_timeout`, so that its error arrives before our own deadline.
    """
    settings = {setting.name: setting.value for setting in SETTINGS if setting.since <= server_version}
    if index_plans:
        settings |= INDEX_PLANS
    settings["statement_timeout"] = str(max(1, round(statement_timeout * 900)))
    settings["lock_timeout"] = str(round(lock_timeout * 1000))
    settings["idle_in_transaction_session_timeout"] = str(round(statement_timeout * 2000))
    return settings
