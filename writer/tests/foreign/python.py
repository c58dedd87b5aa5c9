"""Runs SQL scripts with Python's own sqlite3, in WAL mode, adds rows by binding, and closes cleanly.

    python3 python.py DATABASE SCRIPT..."""

import math
import sqlite3
import sys

database, *scripts = sys.argv[1:]
connection = sqlite3.connect(database)
connection.execute("PRAGMA page_size = 8192")
connection.execute("PRAGMA journal_mode = WAL")
for script in scripts:
    with open(script, encoding="utf-8") as file:
        connection.executescript(file.read())
for value in [math.nan, math.inf, -0.0, 2**63 - 1, -(2**63), 0.1 + 0.2, "\0", "\U0001f980", b"\0\xff\0", b"", None, True]:
    connection.execute("INSERT INTO raw (value) VALUES (?)", [value])
connection.commit()
connection.close()
