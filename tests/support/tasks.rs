//! What a superadmin does on single pages of the dashboard: time travel, bundles, a shelved row, upkeep; and what hostile
//! names, a keyboard and a phone meet there.
//!
//! Invariant: everything is clicked and read as a person would, and what a click did is read from the application's file
//! or from the node, not from the page alone. Caller: `tests/dashboard.rs`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::browser::Browser;
use super::support::cluster::Cluster;
use super::support::dump::texts;
use super::support::server::Server;
use super::support::{app, until};
use super::{ENTER, ESCAPE, HOSTILE_NAME, TAB, link, seen, speaks, turn_to, unharmed};

/// Answers of the node that the page gets are changed on their way: `change` is the body of a function of the status.
fn status_changed(browser: &Browser, change: &str) {
    let script = format!(
        "window.honest ??= window.fetch; window.fetch = async (path, request) => {{ \
           const answer = await window.honest(path, request); \
           if (!String(path).startsWith('/api/v1/status')) return answer; \
           const status = await answer.json(); {change}; \
           return new Response(JSON.stringify(status), {{ status: 200 }}); }};"
    );
    browser.script(&script, &[]);
}

fn status_honest(browser: &Browser) {
    browser.script("window.fetch = window.honest", &[]);
}

/// Names that are markup, turn the text round or have ten thousand letters; and clocks.
pub(crate) fn hostile_names_and_clocks(browser: &Browser) {
    turn_to(browser, "/", "Overview");
    let title =
        format!("[...document.querySelectorAll('.map title')].some((one) => one.textContent === {:?})", HOSTILE_NAME);
    assert_eq!(browser.script(&format!("return {title}"), &[]), true, "the map tells the whole name");
    assert!(browser.text(".server-lines").contains(HOSTILE_NAME), "the list tells the whole name");
    seen("a name of 43 characters is told whole, in the list and as the title of its place on the map");
    for (name, shown) in [("'\u{202e}lave<img src=x onerror=1>'", "U+202E"), ("'x'.repeat(10240)", "xxxxxxxxxxxxxxxx")]
    {
        status_changed(browser, &format!("status.peers[0].name = {name}"));
        for page in ["/", "/servers"] {
            for width in [1280, 360] {
                browser.dress(width, 800, false);
                browser.script("location.hash = arguments[0]", &[json!(page)]);
                browser.shows("#main", shown);
                unharmed(browser, &format!("{page}, {width} wide, hostile name"));
            }
        }
    }
    browser.dress(1280, 800, false);
    seen("a name that turns the direction, is markup, or has 10 kB stays text and breaks no page, wide or narrow");
    status_changed(
        browser,
        "status.peers.forEach((peer, at) => { peer.state = 'connected'; peer.name = `s${at + 1}`; peer.clock_skew_ms = at ? 600000 : 5; })",
    );
    turn_to(browser, "/servers", "Servers");
    browser.shows(".clock-wrong", "The clock of s2 is 10 min ahead: set it");
    status_changed(
        browser,
        "status.peers.forEach((peer) => { peer.state = 'connected'; peer.clock_skew_ms = -7200000; })",
    );
    browser.shows(".clock-wrong", "The clock of this machine (pit) is 2 h ahead");
    status_honest(browser);
    browser.shows("#main", HOSTILE_NAME);
    seen("the page of servers names the machine whose clock is wrong, this one too");
}

/// Everything that can be pressed is reached by Tab, in sight and outlined; the menu of a phone; reduced motion.
pub(crate) fn keyboard_and_phone(browser: &Browser) {
    for (page, heading) in
        [("/servers", "Servers"), ("/shelf", "Shelf"), ("/travel", "Time travel"), ("/bundles", "Bundles")]
    {
        turn_to(browser, page, heading);
        reached_by_tab(browser, page);
    }
    seen("on servers, shelf, time travel and bundles Tab reaches everything that can be pressed, outlined");
    browser.dress(360, 700, false);
    assert!(!browser.is_in_sight("#nav"), "the pages are folded away on a phone");
    browser.click("#menu");
    assert!(browser.is_in_sight("#nav a[href='#/shelf']"));
    browser.press(ESCAPE);
    assert!(!browser.is_in_sight("#nav"));
    assert_eq!(browser.script("return document.activeElement.id", &[]), "menu");
    browser.press(ENTER);
    assert_eq!(browser.script("return document.activeElement.getAttribute('aria-expanded')", &[]), "true");
    browser.click("#nav a[href='#/shelf']");
    browser.shows("#main h1", "Shelf");
    assert!(!browser.is_in_sight("#nav"));
    seen("on a phone the pages are behind one button: it opens, Escape closes it, a page closes it");
    let motion = "return getComputedStyle(document.getElementById('toast')).transitionDuration";
    assert_ne!(browser.script(motion, &[]), "0s");
    browser.prefer("prefers-reduced-motion", "reduce");
    assert_eq!(browser.script(motion, &[]), "0s");
    browser.dress(1280, 800, false);
    seen("who wants less motion gets none");
}

fn reached_by_tab(browser: &Browser, page: &str) {
    // By their places in the page: what is drawn again meanwhile is the same thing.
    let things = "const all = [...document.querySelectorAll('#main a[href], #main button:not([disabled]), \
                  #main input:not([type=hidden]), #main select, #main summary')].filter((one) => one.checkVisibility()); ";
    let count = browser.script(&format!("{things} return all.length"), &[]).as_u64().unwrap();
    assert!(count > 0, "{page} has something to press");
    browser.script("document.getElementById('main').focus()", &[]);
    let here = format!(
        "{things} const e = document.activeElement; const s = getComputedStyle(e); \
         return [all.indexOf(e), s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2]"
    );
    let mut left: Vec<u64> = (0..count).collect();
    for _ in 0..count * 4 + 20 {
        browser.press(TAB);
        let at = browser.script(&here, &[]);
        if let Some(found) = left.iter().position(|one| at[0] == *one) {
            assert_eq!(at[1], true, "{page}: the keyboard's place {} cannot be seen", at[0]);
            left.remove(found);
        }
        if left.is_empty() {
            return;
        }
    }
    let first = browser.script(&format!("{things} return all[arguments[0]]?.outerHTML"), &[json!(left[0])]);
    panic!("{page}: Tab does not reach {} of {count}, such as {first}", left.len());
}

/// Diff, restore with a typed number, undo of one server's writes.
pub(crate) fn time_travel(browser: &Browser, server: &Server) {
    let file = server.database("scouting");
    let location = "SELECT coalesce(location, '') FROM team WHERE id = 7";
    app(file, "UPDATE team SET location = 'the good one' WHERE id = 7");
    let good = until("the first write is in the log", 20, || written(browser, "the good one"));
    app(file, "UPDATE team SET location = 'the bad one' WHERE id = 7");
    until("the second write is in the log", 20, || written(browser, "the bad one"));
    turn_to(browser, "/travel", "Time travel");
    browser.choose("#diff-place", "scouting.team");
    at_moment(browser, "diff-from", &good);
    browser.click("#diff form button");
    browser.shows("#diff", "1 row differ");
    browser.shows("#diff", "'the good one' → 'the bad one'");
    seen("what changed between two moments is shown row by row, before and after, with who wrote it");
    browser.choose("#restore-place", "scouting.team");
    at_moment(browser, "restore-to", &good);
    browser.click("#restore form button");
    browser.shows("dialog", "1 row would change");
    browser.shows("dialog", "Type 1 to confirm");
    let held = |browser: &Browser| {
        browser.script("return document.querySelector(\"dialog [data-key='undo-yes']\").disabled", &[])
    };
    assert_eq!(held(browser), true, "nothing can be pressed before the number is typed");
    browser.type_into("#sure-rows", "2");
    assert_eq!(held(browser), true, "a wrong number is no yes");
    assert_eq!(texts(file, location), ["the bad one"], "a preview changes nothing");
    browser.type_into("#sure-rows", "1");
    browser.type_into("#sure-by", "Ada");
    browser.type_into("#sure-why", "typed into the wrong row");
    browser.click("dialog [data-key='undo-yes']");
    until("the row is set back in the app's file", 20, || {
        let now = texts(file, location).remove(0);
        if now == "the good one" { Ok(()) } else { Err(now) }
    });
    browser.shows("#toast", "can be taken back too");
    seen("rows are set back to a moment: a preview first, then the number of rows typed, then the deed");
    browser.choose("#undo-server", "pit");
    browser.choose("#undo-place", "scouting.team");
    browser.click("#undo form button");
    browser.shows("dialog", "would change");
    browser.press(ESCAPE);
    assert_eq!(browser.count("dialog"), 0);
    assert_eq!(texts(file, location), ["the good one"]);
    let back = browser.script("return document.activeElement.closest('section').id", &[]);
    assert_eq!(back, "undo", "the keyboard is where it was before the dialog");
    seen("what one server wrote is previewed too; Escape leaves everything as it is, and the keyboard where it was");
}

/// The time of the event that wrote a value, as the node tells it.
fn written(browser: &Browser, value: &str) -> Result<String, String> {
    let page = browser.module("/dashboard/api.js", "await m.get('/api/v1/events', { limit: 30 })", &[]);
    let events = page["events"].as_array().cloned().unwrap_or_default();
    let event = events.iter().find(|event| event["changes"].to_string().contains(value));
    event.and_then(|event| event["time"].as_str()).map(str::to_owned).ok_or_else(|| "it is not there yet".to_owned())
}

fn at_moment(browser: &Browser, id: &str, rfc3339: &str) {
    browser.choose(&format!("#{id}"), "at a time…");
    let script = "const field = document.getElementById(arguments[0]); const at = new Date(arguments[1]); \
                  field.value = new Date(at - at.getTimezoneOffset() * 60000).toISOString().slice(0, 23)";
    browser.script(script, &[json!(format!("{id}-exact")), json!(rfc3339)]);
}

/// Saves what the server that is away lacks; gives the file.
pub(crate) fn bundle_saved(browser: &Browser, cluster: &Cluster) -> PathBuf {
    let folder = cluster.root.path().join("downloads");
    std::fs::create_dir_all(&folder).unwrap();
    browser.downloads_to(&folder);
    turn_to(browser, "/bundles", "Bundles");
    browser.shows("#save", "not needed");
    browser.click("#save button[aria-label*='onerror']");
    browser.shows("#save .said", "is saved");
    let file = until("the bundle lies in the downloads", 20, || {
        let mut files = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
        files.find(|file| file.extension().is_some_and(|end| end == "litemesh")).ok_or_else(|| "not yet".to_owned())
    });
    let inside = cluster.servers[0].json(&["bundle", "inspect", file.to_str().unwrap()]);
    assert_eq!(inside["made_for"], HOSTILE_NAME, "{inside}");
    assert!(inside["events"].as_u64() > Some(0), "{inside}");
    seen("what a server lacks is saved as a file by one click; the command line reads it as a bundle for that server");
    let broken = folder.join("broken.litemesh");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&broken, &bytes[..bytes.len() - 1]).unwrap();
    browser.attach("#bundle-file", &broken);
    browser.click("#take form button");
    browser.shows("#take", "refused");
    browser.shows("#take", "Nothing of it was stored");
    seen("a file that was cut off is refused in words");
    let _ = browser.complaints();
    file
}

/// On the server that was away, with no network: the file is looked into and taken.
pub(crate) fn bundle_taken(browser: &Browser, server: &Server, file: &std::path::Path) {
    let place = "SELECT coalesce(location, '') FROM team WHERE id = 3";
    assert_ne!(texts(server.database("scouting"), place), ["written while one was away"]);
    browser.go("about:blank");
    browser.go(&link(server));
    browser.shows("#verdict", "Cut off from every other server");
    turn_to(browser, "/bundles", "Bundles");
    browser.attach("#bundle-file", file);
    browser.click("#take form button");
    browser.shows("#take", "Made on pit");
    browser.shows("#take", "new here");
    assert_ne!(texts(server.database("scouting"), place), ["written while one was away"], "a look stores nothing");
    browser.click("[data-key='take']");
    browser.shows("#take", "taken. The application shows them");
    until("the row is in the app's file", 20, || {
        let now = texts(server.database("scouting"), place).remove(0);
        if now == "written while one was away" { Ok(()) } else { Err(now) }
    });
    seen(
        "on the server that was away the file is looked into, then taken: its application shows the rows, without any network",
    );
}

/// The row on the shelf is made one with the row in its way.
pub(crate) fn freed(browser: &Browser, server: &Server) {
    turn_to(browser, "/shelf", "Shelf");
    browser.shows(".card", "has the same team_number");
    browser.shows(".card", "They are two things");
    browser.click(".card .todo-list button");
    browser.shows("#main", "The shelf is empty");
    until("the node has nothing on its shelf", 20, || {
        let shelved = server.database_status("scouting")["shelved"].clone();
        if shelved == 0 { Ok(()) } else { Err(shelved.to_string()) }
    });
    assert_eq!(
        texts(server.database("scouting"), "SELECT count(*) FROM team_settings WHERE team_number = 8123"),
        ["1"]
    );
    seen("the shelf says which column is in the way and what to do; one click makes both rows one, and frees it");
}

/// Tiers of verification, the plan of a cleanup, a copy of the archive.
pub(crate) fn kept_in_order(browser: &Browser, cluster: &Cluster) {
    turn_to(browser, "/verify", "Verify");
    browser.choose("#verify-tier", "Count: how many rows there are");
    browser.choose("#verify-db", "users");
    browser.click("#main form button");
    until("the verification of one database by count is done", 60, || {
        let answer = browser.module("/dashboard/api.js", "await m.get('/api/v1/verify', { limit: 5 })", &[]);
        let runs = answer["runs"].as_array().cloned().unwrap_or_default();
        let run =
            runs.iter().find(|run| run["tier"] == "count" && run["database"] == "users" && run["by_hand"] == true);
        if run.is_some_and(|run| run["state"] == "done") { Ok(()) } else { Err(answer.to_string()) }
    });
    browser.shows("#main table", "count");
    seen("a verification of one database at another depth runs, and says how it ended");
    turn_to(browser, "/care", "Upkeep");
    browser.shows("#main", "Free on this disk");
    browser.click("[data-key='cleanup-plan']");
    browser.shows("#toast", "Nothing was moved");
    seen("the cleanup says first what it would move");
    let out = cluster.root.path().join("season");
    browser.type_into("#archive-out", out.to_str().unwrap());
    browser.click("form[aria-label='Archive'] button[type='submit']");
    browser.shows("#toast", "copied into");
    let check = cluster.servers[0].json(&["archive", "verify", out.to_str().unwrap()]);
    assert_eq!(check["fault_count"], 0, "{check}");
    seen("the season is archived into a folder of this machine, and `litemesh archive verify` finds the copy right");
    browser.click("#main summary");
    browser.shows("#main details[open]", "data directory");
    seen("checks that found nothing are folded away, and can be opened");
}

/// The drawn numbers are the node's, and say what they are.
pub(crate) fn charts_are_true(browser: &Browser) {
    turn_to(browser, "/reliability", "Reliability");
    for words in ["Runs per hour (number)", "Success per hour (% of runs)", "Mean duration per hour (s or ms)"] {
        browser.shows("#main", words);
    }
    assert!(
        browser
            .script("return document.querySelector('.along').textContent", &[])
            .as_str()
            .unwrap()
            .contains("local time")
    );
    let report = browser.module("/dashboard/api.js", "await m.get('/api/v1/reliability')", &[]);
    let sum = |hours: &Value, name: &str| -> u64 {
        hours.as_array().unwrap().iter().map(|hour| hour[name].as_u64().unwrap()).sum()
    };
    let told =
        sum(&report["servers"][0]["hours"], "success_count") + sum(&report["servers"][0]["hours"], "failure_count");
    let drawn = "let sum = 0; for (const one of document.querySelector('.chart').querySelectorAll('td.number')) \
                 sum += Number(one.textContent); return sum";
    let drawn = browser.script(drawn, &[]).as_u64().unwrap();
    assert!(drawn > 0 && drawn <= told, "the chart shows {drawn} runs, the node tells {told}");
    seen("the charts carry units, and their numbers are those of the node");
    speaks(browser, "/reliability");
}
