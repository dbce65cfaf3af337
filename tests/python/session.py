"""What an app developer sees: one session after the other inserts a row, takes the id that the library gives it, and a
moment later reads and updates the row through that id, like a web form. Prints how often the id led elsewhere, as JSON.

Uses nothing but the standard library.
"""
import argparse
import json
import sqlite3
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--scouting", required=True)
parser.add_argument("--name", required=True)
parser.add_argument("--pause", type=float, default=0.02, help="seconds between insert and update: somebody types")
args = parser.parse_args()

connection = sqlite3.connect(args.scouting, timeout=10, isolation_level=None)
sessions = wrong = missing = busy = 0
ids = []
print("ready", flush=True)
# Until the test closes our standard input.
import select
while not select.select([sys.stdin], [], [], 0)[0]:
    sessions += 1
    marker = f"session-{args.name}-{sessions}"
    cursor = connection.execute("INSERT INTO team (team_number, marker) VALUES (?, ?)", (100000 + sessions, marker))
    mine = cursor.lastrowid
    ids.append(mine)
    time.sleep(args.pause)
    row = connection.execute("SELECT marker FROM team WHERE id = ?", (mine,)).fetchone()
    changed = connection.execute("UPDATE team SET location = ? WHERE id = ?", (f"typed into {marker}", mine)).rowcount
    if row is None or changed == 0:
        missing += 1
    elif row[0] != marker:
        wrong += 1
left = connection.execute(
    "SELECT count(*) FROM team WHERE marker LIKE ? AND location <> 'typed into ' || marker", (f"session-{args.name}-%",)
).fetchone()[0]
print(json.dumps({"sessions": sessions, "wrong": wrong, "missing": missing, "typed_elsewhere": left}))
