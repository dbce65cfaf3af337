"""A server of the older sync protocol: its own file, the endpoints of a node, nothing but the standard library.

    legacy_server.py DATABASE URL TOKEN fetch [LIMIT]     takes all changes since the last time, page by page
    legacy_server.py DATABASE URL TOKEN send              sends what stands in the table `to_send`
    legacy_server.py DATABASE URL TOKEN damaged           sends a batch whose checksum is wrong
    legacy_server.py DATABASE URL TOKEN sync SERVER       what its superadmin page shows

It knows a row by table and id, writes whole rows, remembers the time of the last change it was given, and calls itself
`old`. What it prints is JSON.
"""

import base64
import hashlib
import json
import sqlite3
import sys
import urllib.error
import urllib.parse
import urllib.request

path, url, token, order = sys.argv[1:5]
database = sqlite3.connect(path, timeout=10)
database.execute("CREATE TABLE IF NOT EXISTS last_sync (since TEXT)")

# Tables without any key.
KEYLESS = {"sighting"}


def call(method, endpoint, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + endpoint, data, method=method)
    request.add_header("Authorization", "Bearer " + token)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def checksum(changes):
    return hashlib.sha256(json.dumps(changes, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def from_json(value):
    return base64.b64decode(value["$blob"]) if isinstance(value, dict) else value


def to_json(value):
    return {"$blob": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def fetch(limit):
    pages, changes, tables = 0, 0, {}
    while True:
        row = database.execute("SELECT since FROM last_sync").fetchone()
        since = row[0] if row else "1970-01-01T00:00:00"
        query = urllib.parse.urlencode({"since": since, "limit": limit, "server_id": "old"})
        status, page = call("GET", "/api/sync/sqlite3/optimized-changes?" + query)
        assert status == 200, page
        assert page["checksum"] == checksum(page["changes"]), "checksum"
        assert page["count"] == len(page["changes"]) <= limit + 250, page["count"]
        if not page["changes"]:
            break
        for change in page["changes"]:
            assert set(change) >= {"table", "record_id", "operation", "data", "timestamp", "change_hash", "server_id"}
            data = {name: from_json(value) for name, value in change["data"].items()}
            if change["database"] != "scouting":
                continue
            table = '"%s"' % change["table"]
            tables[change["table"]] = tables.get(change["table"], 0) + 1
            if change["table"] in KEYLESS:
                # Nothing in the row tells it from another: it is kept under the number that the node gives it.
                if change["operation"] == "delete":
                    assert data, "a delete says what the row held"
                    database.execute("DELETE FROM %s WHERE rowid = ?" % table, [change["record_id"]])
                    continue
                data = {"rowid": int(change["record_id"]), **data}
            if change["operation"] == "delete":
                where = " AND ".join('"%s" = ?' % name for name in data)
                database.execute("DELETE FROM %s WHERE %s" % (table, where), list(data.values()))
            else:
                names, marks = ", ".join('"%s"' % name for name in data), ", ".join("?" * len(data))
                database.execute("INSERT OR REPLACE INTO %s (%s) VALUES (%s)" % (table, names, marks), list(data.values()))
        pages, changes = pages + 1, changes + page["count"]
        database.execute("DELETE FROM last_sync")
        database.execute("INSERT INTO last_sync VALUES (?)", [page["changes"][-1]["timestamp"]])
        database.commit()
    return {"pages": pages, "changes": changes, "tables": tables}


def batch():
    changes = []
    for table, record, operation in database.execute("SELECT tab, record, operation FROM to_send ORDER BY rowid"):
        data = {}
        if operation != "delete":
            cursor = database.execute('SELECT * FROM "%s" WHERE id = ?' % table, [record])
            names = [column[0] for column in cursor.description]
            data = {name: to_json(value) for name, value in zip(names, cursor.fetchone())}
        changes.append({
            "table": table, "record_id": str(record), "operation": operation, "data": data,
            "timestamp": "2025-03-06T09:00:00", "change_hash": "", "server_id": "old",
        })
    return {"changes": changes, "count": len(changes), "checksum": checksum(changes), "server_id": "old"}


if order == "fetch":
    print(json.dumps(fetch(int(sys.argv[5]) if len(sys.argv) > 5 else 400)))
elif order == "send":
    print(json.dumps(call("POST", "/api/sync/sqlite3/receive-changes", batch())))
elif order == "damaged":
    body = batch()
    body["changes"][0]["record_id"] = "999"
    print(json.dumps(call("POST", "/api/sync/sqlite3/receive-changes", body)))
elif order == "sync":
    answers = {"sync": call("POST", "/api/sync/sqlite3/sync/" + sys.argv[5], {})}
    answers["reliability"] = call("GET", "/api/sync/sqlite3/reliability/" + sys.argv[5])
    answers["cleanup"] = call("POST", "/api/sync/sqlite3/cleanup", {"days_to_keep": 30})
    print(json.dumps(answers))
