"""A producer, which uses only PostgreSQL. Arguments: DSN, devices, jobs, seconds over which the inserts are spread."""

import sys
import time

import psycopg

BATCH = 100
CAMPAIGNS = ("spring", "spring", "reminders")
"""Of three jobs, two belong to the first campaign."""
INSERT = "INSERT INTO shardd.jobs (device_id, recipient, campaign, body) VALUES (%s, %s, %s, %s)"

dsn, devices, jobs, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
began = time.monotonic()
with psycopg.connect(dsn, autocommit=True) as connection, connection.cursor() as cursor:
    cursor.executemany("INSERT INTO shardd.campaigns (id) VALUES (%s)", [(name,) for name in dict.fromkeys(CAMPAIGNS)])
    for first in range(0, jobs, BATCH):
        numbers = range(first, min(first + BATCH, jobs))
        rows = [
            (f"demo-{n % devices:04}", f"+49151{n:08}", CAMPAIGNS[n % len(CAMPAIGNS)], f"Hello, this is message {n}.")
            for n in numbers
        ]
        cursor.executemany(INSERT, rows)
        time.sleep(max(0.0, began + seconds * (numbers[-1] + 1) / jobs - time.monotonic()))
