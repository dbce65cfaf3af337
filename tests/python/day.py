"""A day at one server of a scouting app: users, roles, teams, events, matches, scouting and pit scouting, some edits and a
few deletes, one transaction each. Prints what must be found afterwards, as one JSON document: every row by a marker of
its own, every reference by the marker of the row that was meant.

Uses nothing but the standard library, and ids that SQLite makes, like the app does.
"""
import argparse
import json
import random
import sqlite3

parser = argparse.ArgumentParser()
for flag in ("scouting", "users", "name"):
    parser.add_argument("--" + flag, required=True)
parser.add_argument("--writes", type=int, required=True)
parser.add_argument("--seed", type=int, default=1)
args = parser.parse_args()

dice = random.Random(f"{args.seed}/{args.name}")
print_seed = {"seed": args.seed, "server": args.name}


def connect(path):
    connection = sqlite3.connect(path, timeout=10, isolation_level=None)
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


scouting, users = connect(args.scouting), connect(args.users)
made = {kind: {} for kind in ("team", "event", "match", "scouting_data", "pit_scouting_data", "user")}
deleted, counter = [], 0
# What this day made, by marker: id and what it refers to. Ids are this server's own while it is alone.
expected = {kind: {} for kind in made}


def marker():
    global counter
    counter += 1
    return f"{args.name}-{counter}"


def insert(connection, kind, row, mark, **meant):
    columns = ", ".join(f'"{name}"' for name in row)
    places = ", ".join("?" * len(row))
    cursor = connection.execute(f'INSERT INTO "{kind}" ({columns}) VALUES ({places})', list(row.values()))
    made[kind][mark] = cursor.lastrowid
    expected[kind][mark] = meant
    return cursor.lastrowid


def pick(kind):
    mark = dice.choice(sorted(made[kind]))
    return mark, made[kind][mark]


def add_user():
    mark = marker()
    # Half of the names are those that the other server's mentor gives out too.
    name = f"scout{dice.randrange(40)}" if dice.random() < 0.5 else f"scout-{mark}"
    taken = users.execute("SELECT 1 FROM user WHERE username = ?", (name,)).fetchone()
    if taken:
        name = f"scout-{mark}"
    row = {"username": name, "email": f"{mark}@example.org", "password_hash": f"hash of {mark}", "is_active": 1}
    users.execute("BEGIN IMMEDIATE")
    user = insert(users, "user", row, mark, username=name)
    (role,) = users.execute("SELECT id FROM role ORDER BY id LIMIT 1 OFFSET 2").fetchone()
    users.execute("INSERT INTO user_roles (user_id, role_id) VALUES (?, ?)", (user, role))
    users.execute("COMMIT")


def add_team():
    mark = marker()
    number = dice.randrange(1, 61)
    insert(scouting, "team", {"team_number": number, "team_name": f"Team {number}", "location": mark}, mark, number=number)


def add_event():
    mark = marker()
    row = {"name": f"Regional {dice.randrange(3)}", "code": "REG", "location": mark, "year": 2025}
    insert(scouting, "event", row, mark)


def add_match():
    event, event_id = pick("event")
    mark = marker()
    row = {"match_number": dice.randrange(1, 90), "match_type": "Qualification", "event_id": event_id, "red_alliance": mark}
    insert(scouting, "match", row, mark, event=event)


def add_scouting():
    (match, match_id), (team, team_id), (user, user_id) = pick("match"), pick("team"), pick("user")
    mark = marker()
    row = {"match_id": match_id, "team_id": team_id, "scout_id": user_id, "scout_name": user,
           "data_json": json.dumps({"marker": mark, "auto": dice.randrange(9)})}
    insert(scouting, "scouting_data", row, mark, match=match, team=team, user=user)


def add_pit():
    (team, team_id), (event, event_id), (user, user_id) = pick("team"), pick("event"), pick("user")
    mark = marker()
    row = {"team_id": team_id, "event_id": event_id, "scout_id": user_id, "scout_name": user,
           "data_json": "{}", "local_id": mark}
    insert(scouting, "pit_scouting_data", row, mark, event=event, team=team, user=user)


def link():
    (_, team), (_, event) = pick("team"), pick("event")
    scouting.execute("INSERT OR IGNORE INTO team_event (team_id, event_id) VALUES (?, ?)", (team, event))


def edit():
    _, match = pick("match")
    scouting.execute('UPDATE "match" SET red_score = ?, winner = ? WHERE id = ?', (dice.randrange(200), "red", match))
    _, team = pick("team")
    scouting.execute("UPDATE team SET team_name = ? WHERE id = ?", (f"Renamed {dice.randrange(1000)}", team))


def delete():
    if not made["scouting_data"]:
        return
    mark, row = pick("scouting_data")
    scouting.execute("DELETE FROM scouting_data WHERE id = ?", (row,))
    del made["scouting_data"][mark], expected["scouting_data"][mark]
    deleted.append(mark)


for first in (add_user, add_team, add_event, add_match):
    first()
acts = [add_user, add_team, add_event, add_match, add_scouting, add_pit, link, edit, delete]
weights = [4, 6, 1, 10, 55, 8, 6, 8, 2]
for _ in range(args.writes - 4):
    dice.choices(acts, weights)[0]()
print(json.dumps({"rows": expected, "deleted": deleted, **print_seed}))
