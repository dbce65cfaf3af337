"""An application at work: inserts, updates and deletes in every table of the fixture at a fixed rate.

After each commit that returned, it records what it inserted or deleted: the independent witness of the tests.
Uses nothing but the standard library, so the SQLite here is another one than the node's.
"""
import argparse
import json
import random
import sqlite3
import time
import uuid

parser = argparse.ArgumentParser()
for flag in ("scouting", "users", "record", "name"):
    parser.add_argument("--" + flag, required=True)
parser.add_argument("--seconds", type=float, required=True)
parser.add_argument("--rate", type=float, required=True, help="transactions a second")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--explicit-ids", action="store_true", help="choose ids like an importer: max + 1, by hand")
parser.add_argument("--timeout", type=float, default=5.0)
args = parser.parse_args()

dice = random.Random(f"{args.seed}/{args.name}")
record = open(args.record, "a", buffering=1)


def connect(path):
    connection = sqlite3.connect(path, timeout=args.timeout, isolation_level=None)
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


scouting, users = connect(args.scouting), connect(args.users)
pending, own_observations = [], []


def note(op, db, table, column, value):
    pending.append({"op": op, "db": db, "table": table, "column": column, "value": value})


def marker(kind):
    return f"{kind}-{args.name}-{uuid.UUID(int=dice.getrandbits(128))}"


def some(connection, table):
    """A random row's id and marker."""
    (count,) = connection.execute(f'SELECT count(*) FROM "{table}" WHERE marker IS NOT NULL').fetchone()
    query = f'SELECT id, marker FROM "{table}" WHERE marker IS NOT NULL ORDER BY id LIMIT 1 OFFSET ?'
    return connection.execute(query, (dice.randrange(count),)).fetchone()


def insert(connection, db, table, row, identified_by="marker"):
    row = dict(row)
    if args.explicit_ids and db == "scouting" and dice.random() < 0.5:
        row["id"] = connection.execute(f'SELECT coalesce(max(id), 0) + 1 FROM "{table}"').fetchone()[0]
    columns = ", ".join(f'"{name}"' for name in row)
    marks = ", ".join("?" * len(row))
    cursor = connection.execute(f'INSERT INTO "{table}" ({columns}) VALUES ({marks})', list(row.values()))
    note("insert", db, table, identified_by, row[identified_by])
    return cursor.lastrowid


def now():
    return time.strftime("%Y-%m-%d %H:%M:%S" if dice.random() < 0.5 else "%Y-%m-%dT%H:%M:%S")


def new_team():
    insert(scouting, "scouting", "team", {"team_number": dice.randrange(1, 9999), "team_name": "Team é🤖", "marker": marker("team")})


def new_event():
    insert(scouting, "scouting", "event", {"name": "Event", "code": None, "year": 2025, "marker": marker("event")})


def new_match_with_observations():
    """One transaction over several tables: on every server it is seen whole or not at all."""
    event, event_marker = some(scouting, "event")
    name = marker("match")
    match = insert(scouting, "scouting", "match", {
        "match_number": dice.randrange(1, 200), "match_type": "Qualification", "event_id": event,
        "timestamp": now(), "marker": name, "event_marker": event_marker})
    for _ in range(6):
        new_observation(match, name)


def new_observation(match=None, match_marker=None):
    if match is None:
        match, match_marker = some(scouting, "match")
    team, team_marker = some(scouting, "team")
    scout, scout_marker = some(users, "user")
    value = marker("observation")
    insert(scouting, "scouting", "observation", {
        "match_id": match, "team_id": team, "scout_id": scout, "scout_name": args.name, "timestamp": now(),
        "data_json": json.dumps({"auto": dice.randrange(10), "note": "näh"}),
        "photo": dice.randbytes(50) if dice.random() < 0.2 else None,
        "marker": value, "match_marker": match_marker, "team_marker": team_marker, "scout_marker": scout_marker})
    own_observations.append(value)


def new_pit_report():
    team, team_marker = some(scouting, "team")
    insert(scouting, "scouting", "pit_report", {
        "team_id": team, "data_json": "{}", "local_id": marker("pit"), "is_uploaded": 0, "team_marker": team_marker},
        identified_by="local_id")


def new_chat():
    if dice.random() < 0.2:
        insert(scouting, "scouting", "alliance", {"alliance_name": "Alliance", "marker": marker("alliance")})
    alliance, alliance_marker = some(scouting, "alliance")
    insert(scouting, "scouting", "alliance_chat", {
        "alliance_id": alliance, "from_username": args.name, "message": "hi \N{ROBOT FACE}", "created_at": now(),
        "marker": marker("chat"), "alliance_marker": alliance_marker})


def new_share():
    match, _ = some(scouting, "match")
    insert(scouting, "scouting", "share", {"match_id": match, "token": marker("share")}, identified_by="token")


def settings():
    number = 9000 + dice.randrange(8)
    statement = dice.choice((
        "INSERT OR REPLACE INTO team_settings (team_number, locked) VALUES (?, ?)",
        "INSERT INTO team_settings (team_number, locked) VALUES (?, ?) "
        "ON CONFLICT (team_number) DO UPDATE SET locked = excluded.locked"))
    scouting.execute(statement, (number, dice.randrange(2)))
    note("insert", "scouting", "team_settings", "team_number", number)


def link():
    team, _ = some(scouting, "team")
    event, _ = some(scouting, "event")
    if dice.random() < 0.8:
        scouting.execute("INSERT OR IGNORE INTO team_event VALUES (?, ?)", (team, event))
    else:
        scouting.execute("DELETE FROM team_event WHERE team_id = ?", (team,))


def change_team():
    team, _ = some(scouting, "team")
    scouting.execute("UPDATE team SET location = ? WHERE id = ?", (f"{args.name} {dice.randrange(1000)}", team))


def change_scores():
    scouting.execute('UPDATE "match" SET red_score = ?, blue_score = ? WHERE id % 7 = ?',
                     (dice.randrange(200), dice.randrange(200), dice.randrange(7)))


def delete_observation():
    if own_observations:
        value = own_observations.pop(dice.randrange(len(own_observations)))
        scouting.execute("DELETE FROM observation WHERE marker = ?", (value,))
        note("delete", "scouting", "observation", "marker", value)


def new_user():
    value = marker("user")
    user = insert(users, "users", "user", {
        "username": value, "email": value + "@example.org", "password_hash": "x", "is_active": 1,
        "created_at": now(), "marker": value})
    users.execute("INSERT INTO user_roles VALUES (?, ?)", (user, dice.randrange(1, 5)))


WORK = [
    (6, scouting, new_match_with_observations), (20, scouting, new_observation), (5, scouting, new_team),
    (2, scouting, new_event), (6, scouting, new_pit_report), (6, scouting, new_chat), (4, scouting, new_share),
    (4, scouting, settings), (5, scouting, link), (8, scouting, change_team), (4, scouting, change_scores),
    (6, scouting, delete_observation), (4, users, new_user),
]

start = time.monotonic()
done = 0
while time.monotonic() - start < args.seconds:
    _, connection, work = dice.choices(WORK, [weight for weight, _, _ in WORK])[0]
    roll_back = dice.random() < 0.03 and work is not delete_observation
    kept = list(own_observations)
    pending.clear()
    crosses_files = work in (new_observation, new_match_with_observations)
    try:
        if crosses_files:
            # An id read from one file and written to the other is only good while nobody can change it in between.
            users.execute("BEGIN IMMEDIATE")
        connection.execute("BEGIN IMMEDIATE")
        work()
        connection.execute("ROLLBACK" if roll_back else "COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        own_observations[:] = kept
        record.write(json.dumps({"op": "error", "message": f"{work.__name__}: {error!r}"}) + "\n")
        pending.clear()
        roll_back = False
    if users.in_transaction:
        users.execute("ROLLBACK")
    if roll_back:
        own_observations[:] = kept
    for line in pending:
        if roll_back and line["table"] == "team_settings":
            continue
        record.write(json.dumps(dict(line, op="never") if roll_back else line) + "\n")
    done += 1
    ahead = done / args.rate - (time.monotonic() - start)
    if ahead > 0:
        time.sleep(ahead)  # the rate of the load, not a wait for anything

record.write(json.dumps({"op": "done"}) + "\n")
