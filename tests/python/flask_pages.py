"""A small Flask application with the page's blueprint, used as its superadmin uses it; prints one JSON document.

Arguments: data directory, URL of the node, folder that holds litemesh_pages.py, what to do: look, sync, conflicts, gone.
"""

import functools
import json
import re
import sys

data, node, folder, what = sys.argv[1:]
sys.path.insert(0, folder)

from flask import Flask, abort, session  # noqa: E402
from litemesh_pages import litemesh_pages  # noqa: E402

app = Flask(__name__)
app.secret_key = "of the test"


def superadmin_required(view):
    @functools.wraps(view)
    def guarded(*arguments, **named):
        if session.get("role") != "superadmin":
            abort(403)
        return view(*arguments, **named)

    return guarded


@app.post("/login/<role>")
def login(role):
    session["role"] = role
    return "in"


app.register_blueprint(litemesh_pages(data, superadmin_required, node), url_prefix="/superadmin/sync")
client = app.test_client()
client.post("/login/scout")
guarded = [client.get(f"/superadmin/sync/{page}").status_code for page in ["", "history", "conflicts"]]
guarded += [client.post(f"/superadmin/sync/{page}").status_code for page in ["now", "conflicts/1/restore"]]
client.post("/login/superadmin")


def page(answer):
    return {"code": answer.status_code, "text": answer.get_data(as_text=True)}


told = {"guarded": guarded}
if what == "look":
    told["index"] = page(client.get("/superadmin/sync/"))
    told["history"] = page(client.get("/superadmin/sync/history"))
elif what == "sync":
    told["sync"] = page(client.post("/superadmin/sync/now", follow_redirects=True))
elif what == "conflicts":
    listed = told["conflicts"] = page(client.get("/superadmin/sync/conflicts"))
    form = re.search(r'action="(/superadmin/sync/conflicts/\d+/restore)"', listed["text"])
    if form:
        told["restored"] = page(client.post(form[1], follow_redirects=True))
    told["unknown"] = page(client.post("/superadmin/sync/conflicts/999999/restore"))
else:
    told["gone"] = page(client.get("/superadmin/sync/"))
print(json.dumps(told))
