//! The dashboard in a real browser: three servers, one cut off, a conflict, a row on the shelf, hostile names and values.
//!
//! Everything is clicked and read as a person would; each assertion is printed as a line `seen: …`. Pictures of every
//! page, desktop and phone, light and dark, go to the folder that LITEMESH_SCREENSHOTS names, where it names one.
//! Does not verify: browsers other than Chromium. Without chromium and chromedriver it says so and passes.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "support/browser.rs"]
mod browser;
mod support;
#[path = "support/tasks.rs"]
mod tasks;

use std::path::{Path, PathBuf};

use browser::Browser;
use serde_json::{Value, json};
use support::cluster::Cluster;
use support::dump::texts;
use support::server::Server;
use support::{app, until};

const FIXTURES: [(&str, &str); 2] = [("scouting", "scouting.sql"), ("users", "users.sql")];

/// A name that would be markup, and a value that would be a script and turns the text beside it round.
const HOSTILE_NAME: &str = "<img src=x onerror=document.title='owned'>";
const HOSTILE_VALUE: &str = "<script>document.title='owned'</script>\u{202e}gnihton <b onclick=1>";

/// Keys as the driver names them.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";

fn seen(what: &str) {
    eprintln!("seen: {what}");
}

/// Three servers; two have written the same cell apart and met; one row is on the shelf; the third is cut off and lacks
/// what was written since.
fn scene() -> Cluster {
    let mut cluster = Cluster::unjoined(3, &FIXTURES, Some("scouting.toml"));
    for (server, name) in cluster.servers.iter_mut().zip(["pit", "stands", HOSTILE_NAME]) {
        server.name = name.to_owned();
    }
    for number in 0..40 {
        let team =
            format!("INSERT INTO team (team_number, team_name, marker) VALUES ({0}, 'Team {0}', 'made')", 100 + number);
        app(cluster.servers[0].database("scouting"), &team);
    }
    enrol(&mut cluster);
    cluster.settled(40);
    cluster.part();
    for (server, locked) in cluster.servers.iter().zip([20, 21, 22]).take(2) {
        let file = server.database("scouting");
        app(file, &format!("UPDATE team SET location = 'by {}' WHERE id = 1", server.name));
        app(file, &format!("INSERT INTO team_settings (team_number, locked) VALUES (8123, {locked})"));
    }
    let hostile = HOSTILE_VALUE.replace('\'', "''");
    app(cluster.servers[0].database("scouting"), &format!("UPDATE team SET team_name = '{hostile}' WHERE id = 2"));
    let long = "0123456789".repeat(1_024);
    app(cluster.servers[1].database("scouting"), &format!("UPDATE team SET team_name = '{long}' WHERE id = 2"));
    cluster.heal();
    cluster.settled(40);
    let row = texts(cluster.servers[0].database("scouting"), "SELECT id FROM team_settings WHERE team_number = 8123")
        .remove(0);
    cluster.servers[0].cli(&["split", "scouting.team_settings", &row]).done();
    cluster.settled(40);
    cluster.servers[2].stop();
    app(
        cluster.servers[0].database("scouting"),
        "UPDATE team SET location = 'written while one was away' WHERE id = 3",
    );
    until("the first server knows who is away", 40, || {
        let away = cluster.servers[0].status()["peers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|peer| peer["state"] != "connected")
            .count();
        if away == 1 { Ok(()) } else { Err(format!("{away} away")) }
    });
    cluster
}

/// The second server has a row of its own under an id that the first has given too: it looks at the plan before it joins.
fn enrol(cluster: &mut Cluster) {
    app(
        cluster.servers[1].database("scouting"),
        "INSERT INTO team (team_number, team_name) VALUES (800, 'of the stands')",
    );
    cluster.servers[0].start();
    let (code, joiner) = (cluster.servers[0].invite(), &cluster.servers[1]);
    let flags = joiner.database_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    for answer in ["--plan", "--yes"] {
        joiner.cli(&[&["join", &code, "--name", &joiner.name, answer], &flags[..]].concat()).done();
    }
    cluster.join(2);
    let address = cluster.servers[0].address();
    for server in &mut cluster.servers[1..] {
        server.start_with(&["--peer", &address]);
    }
    cluster.connected();
    cluster.adopted();
}

/// Where the pictures go; none are taken where nobody wants them.
fn album() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("LITEMESH_SCREENSHOTS")?);
    std::fs::create_dir_all(&folder).unwrap();
    Some(folder)
}

fn link(server: &Server) -> String {
    server.cli(&["dashboard"]).done().stdout.trim().to_owned()
}

/// Nothing that a row or a name holds was taken for markup, and the page broke none of its own rules.
#[track_caller]
fn unharmed(browser: &Browser, place: &str) {
    let title = browser.script("return document.title", &[]);
    assert!(title.as_str().unwrap().ends_with("· litemesh"), "{place}: the title became {title}");
    assert_eq!(
        browser.count("#main img, #main script, #main b[onclick], .verdict img"),
        0,
        "{place}: markup from a value"
    );
    let complaints = browser.complaints();
    assert!(complaints.is_empty(), "{place}: {complaints:?}");
    let wide =
        browser.script("return document.documentElement.scrollWidth - document.documentElement.clientWidth", &[]);
    assert_eq!(wide, 0, "{place}: the page is wider than its window");
}

/// Who listens hears one heading of the first order, landmarks, and a name for all that can be pressed.
#[track_caller]
fn speaks(browser: &Browser, place: &str) {
    let spoken = browser.spoken();
    for role in ["main", "navigation", "banner", "heading"] {
        assert!(spoken.iter().any(|(has, _)| has == role), "{place}: no {role}");
    }
    let nameless = spoken
        .iter()
        .find(|(role, name)| ["button", "link", "textbox", "combobox"].contains(&role.as_str()) && name.is_empty());
    assert_eq!(nameless, None, "{place}");
    assert_eq!(browser.count("#main h1"), 1, "{place}: one heading of the first order");
    assert_eq!(browser.count("table:not(:has(caption))"), 0, "{place}: a table without a caption");
}

const PAGES: &[&str] = &[
    "/",
    "/servers",
    "/data",
    "/conflicts",
    "/shelf",
    "/activity",
    "/activity?row=scouting.team+2",
    "/travel",
    "/bundles",
    "/verify",
    "/runs",
    "/reliability",
    "/care",
    "/invite",
];

/// Goes to a page by its entry in the list of pages, or by its address.
#[track_caller]
fn turn_to(browser: &Browser, page: &str, heading: &str) {
    browser.script("location.hash = arguments[0]", &[json!(page)]);
    browser.shows("#main h1", heading);
}

#[test]
fn a_superadmin_sees_in_the_browser_what_is_wrong_and_acts() {
    let Some(browser) = Browser::start() else {
        eprintln!("skipped: chromium and chromedriver are not installed here, the dashboard was not looked at");
        return;
    };
    let cluster = scene();
    let server = &cluster.servers[0];
    browser.dress(1280, 800, false);
    sign_in(&browser, server);
    verdict(&browser);
    every_page(&browser);
    keyboard(&browser, server);
    tasks::keyboard_and_phone(&browser);
    tasks::hostile_names_and_clocks(&browser);
    servers(&browser);
    conflict_is_put_back(&browser, server);
    shelf_and_row(&browser);
    feed(&browser, server);
    taken_back(&browser, server);
    tasks::time_travel(&browser, server);
    let bundle = tasks::bundle_saved(&browser, &cluster);
    upkeep(&browser);
    tasks::kept_in_order(&browser, &cluster);
    tasks::freed(&browser, server);
    tracked(&browser);
    tasks::charts_are_true(&browser);
    invitation(&browser);
    joined(&browser, &cluster);
    the_end(&browser, cluster, &bundle);
}

fn sign_in(browser: &Browser, server: &Server) {
    browser.go(&server.http());
    browser.shows("#door", "Sign in");
    assert!(!browser.text("body").contains("pit"), "nothing of the node is shown before the sign-in");
    seen("without a token there is a sign-in and nothing of the node");
    browser.type_into("#door-token", "0123456789abcdef-wrong");
    browser.click("#door-form button");
    browser.shows("#door-error", "not this node’s token");
    assert!(
        browser.complaints().iter().all(|line| line.contains("401")),
        "a wrong token is refused, and nothing else fails"
    );
    seen("a wrong token is refused in words");
    browser.go(&link(server));
    browser.shows("#verdict", "need");
    assert_eq!(browser.script("return location.hash", &[]), "#/", "the token is out of the address bar");
    seen("the link of `litemesh dashboard` signs in, and leaves the address bar at once");
}

fn verdict(browser: &Browser) {
    browser.shows("#verdict", "is cut off");
    browser.shows("#verdict", "cannot be shown in the application");
    browser.shows("#verdict", "To do:");
    let live = browser.script("return document.querySelector('.verdict-head').getAttribute('aria-live')", &[]);
    assert_eq!(live, "polite");
    browser.shows("#main", HOSTILE_NAME);
    seen("the verdict says that a server is cut off and a row on the shelf, why, and what to do; names stay text");
    let skewed = |skews: &[i64]| {
        let peer = |(at, skew): (usize, &i64)| json!({ "id": format!("{at}"), "name": format!("s{}", at + 1), "state": "connected", "behind": 0, "ahead": 0, "last_seen": "", "unknown_frames": 0, "clock_skew_ms": skew });
        let peers: Vec<Value> = skews.iter().enumerate().map(peer).collect();
        let status = json!({ "node": { "name": "s0", "role": "admin" }, "cluster": { "members": skews.len() + 1 }, "databases": [], "alerts": [], "peers": peers });
        browser.module("/dashboard/verdict.js", "m.verdict(a[0]).headline", &[status])
    };
    assert_eq!(skewed(&[10, 600_000]), "The clock of s2 is 10 min ahead");
    assert_eq!(skewed(&[-7_200_000, -7_200_100]), "The clock of this machine (s0) is 2 h ahead");
    assert_eq!(skewed(&[600_000]), "The clocks of s0 and s1 are 10 min apart");
    assert_eq!(skewed(&[10, -10]), "All is well");
    seen("of three clocks the wrong machine is named; of two, that nobody can tell");
}

/// From the top of the page, without a mouse.
fn keyboard(browser: &Browser, server: &Server) {
    browser.go("about:blank");
    browser.go(&link(server));
    browser.shows("#main h1", "Overview");
    browser.press(TAB);
    assert_eq!(browser.script("return document.activeElement.id", &[]), "skip");
    browser.press(ENTER);
    assert_eq!(browser.script("return document.activeElement.id", &[]), "main");
    browser.press(TAB);
    let outline = "const e = document.activeElement; return [e.tagName, getComputedStyle(e).outlineStyle]";
    assert_eq!(browser.script(outline, &[]), json!(["A", "solid"]), "the keyboard's place can be seen");
    seen("the first Tab offers to skip to the content, Enter goes there, and the keyboard's place is outlined");
}

fn servers(browser: &Browser) {
    browser.click("#nav a[href='#/servers']");
    browser.shows("#main h1", "Servers");
    browser.shows("#main", "a computer answers, but no node listens there");
    browser.click("[data-key='own-addresses'] summary");
    browser.shows("[data-key='own-addresses']", "/ip4/127.0.0.1/tcp/");
    seen("servers: why one is away, what was tried, and where this one is reached");
    browser.click("[data-key='sync-all']");
    browser.shows(".said", "hold the same");
    seen("Sync all says that every reachable server holds the same");
    browser.click("tbody tr:nth-child(2) button");
    browser.shows(".said", "is cut off");
    browser.shows(".said", HOSTILE_NAME);
    seen("Sync with the server that is cut off says so, and that it catches up by itself");
}

fn conflict_is_put_back(browser: &Browser, server: &Server) {
    let location = "SELECT location FROM team WHERE id = 1";
    let shown = texts(server.database("scouting"), location).remove(0);
    let lost = if shown == "by pit" { "by stands" } else { "by pit" };
    turn_to(browser, "/conflicts", "Conflicts");
    browser.type_into("#conflict-filter", "location");
    let card = ".card:has(a[href$='scouting.team+1'])";
    browser.shows(card, &shown);
    browser.shows(card, lost);
    seen("a conflict shows both values side by side, with their authors");
    browser.click(&format!("{card} .side-by button"));
    until("the other value is back in the app's file", 20, || {
        let now = texts(server.database("scouting"), location).remove(0);
        if now == lost { Ok(()) } else { Err(now) }
    });
    browser.shows("#toast", "the value that had lost");
    browser.shows(card, "Settled");
    browser.choose("#conflict-which", "To look at (1)");
    assert_eq!(browser.text(card), "", "what is settled is not among what there is to look at");
    browser.choose("#conflict-which", "All");
    browser.script("document.getElementById('conflict-which').selectedIndex = 0", &[]);
    seen("one click puts the other value back into the application's file, and the conflict is settled");
    browser.type_into("#conflict-filter", "team_name");
    browser.shows(".card", "<script>document.title=");
    browser.shows(".card", "U+202E");
    seen("a script in a value stays text, a mark that turns the direction is named");
}

fn shelf_and_row(browser: &Browser) {
    turn_to(browser, "/shelf", "Shelf");
    browser.shows(".card", "scouting.team_settings");
    browser.click(".card summary");
    browser.shows(".card dl", "8123");
    seen("the shelf says which row is not shown, why, and what it holds");
    browser.click("[data-key='retry']");
    browser.shows("#toast", "tried again");
    turn_to(browser, "/activity", "Activity");
    browser.type_into("#row-input", "scouting.team 2");
    browser.click("#row button");
    browser.shows("#row", "Its versions, oldest first");
    browser.shows("#row", "at enrolment");
    browser.shows("#row", "What lost");
    seen("a row's history shows every version, its server, and what lost");
}

fn feed(browser: &Browser, server: &Server) {
    turn_to(browser, "/activity", "Activity");
    browser.shows(".events", "split");
    browser.script("document.body.dataset.same = 'page'", &[]);
    app(server.database("scouting"), "UPDATE team SET location = 'seen <i>live</i>' WHERE id = 5");
    browser.shows(".event", "seen <i>live</i>");
    assert_eq!(browser.script("return document.body.dataset.same", &[]), "page");
    seen("a change of the application comes up in the feed by itself");
    browser.type_into("#find-table", "team_settings");
    browser.click("form.filters button");
    browser.shows("#main", "Changes that fit");
    browser.shows(".events", "team_settings");
    assert!(!browser.text(".events").contains("seen <i>live"), "the search leaves other tables out");
    seen("the search finds the changes of one table");
}

fn taken_back(browser: &Browser, server: &Server) {
    turn_to(browser, "/activity?table=team", "Activity");
    browser.shows(".event:first-child", "seen <i>live</i>");
    browser.click(".event:first-child button");
    browser.shows("dialog", "1 row would change");
    browser.click("dialog [data-key='undo-yes']");
    until("the value from before is back in the app's file", 20, || {
        let now =
            texts(server.database("scouting"), "SELECT coalesce(location, 'nothing') FROM team WHERE id = 5").remove(0);
        if now.contains("live") { Err(now) } else { Ok(()) }
    });
    browser.shows("#toast", "can be taken back too");
    assert_eq!(browser.count("dialog"), 0);
    seen("an event is taken back after a look at what that would change");
}

fn tracked(browser: &Browser) {
    turn_to(browser, "/runs", "Runs");
    browser.shows("#main", "capture");
    browser.shows("#main", "reconcile");
    seen("runs of every kind are listed with how they ended");
    turn_to(browser, "/reliability", "Reliability");
    browser.shows("#main", "stands");
    browser.shows("#main", HOSTILE_NAME);
    assert!(browser.count(".chart-drawing rect, .chart-drawing circle") > 0, "something is drawn");
    browser.click(".chart summary");
    browser.shows(".chart details[open] table", "ended well");
    seen("reliability is drawn over time, and each chart is there as a table too");
}

/// On the second server: what its join did to the row that it brought.
fn joined(browser: &Browser, cluster: &Cluster) {
    browser.go("about:blank");
    browser.go(&link(&cluster.servers[1]));
    browser.shows(".server-lines", "pit");
    turn_to(browser, "/care", "Upkeep");
    browser.shows("#main", "Ids that moved");
    browser.shows("#main", "1 row by +");
    if let Some(album) = album() {
        browser.picture(1280, false, &album.join("join-desktop-light.png"));
    }
    browser.dress(1280, 800, false);
    browser.go("about:blank");
    browser.go(&link(&cluster.servers[0]));
    browser.shows(".server-lines", "stands");
    seen("a server that joined shows the plan of its join: which rows met, and which id moved where");
}

fn upkeep(browser: &Browser) {
    turn_to(browser, "/data", "Data");
    browser.shows("#main", "team_settings");
    assert_eq!(browser.count("[data-key='row-scouting.team_settings'] a[href='#/shelf']"), 1);
    seen("table by table, the row on the shelf is counted where it belongs");
    turn_to(browser, "/verify", "Verify");
    browser.click("[data-key='check-log']");
    browser.shows("#main", "every hash and signature is right");
    seen("the log is checked by one click");
    browser.click("#main form button");
    browser.shows("#main table", "full");
    until("the verification by hand is done and equal", 60, || {
        let runs = browser.text("#main table");
        if runs.contains("equal") && runs.contains("a person") { Ok(()) } else { Err(runs) }
    });
    seen("a verification is ordered by one click, and its result shown");
    turn_to(browser, "/care", "Upkeep");
    browser.shows("#main", "Safe to unplug");
    browser.shows("#main", "all but");
    seen("receipts say that this machine can be unplugged, and what the one that is away lacks");
    browser.shows("#main", "Event log");
    browser.click("form[aria-label='Cleanup'] button[type='submit']");
    browser.shows("#toast", "moved out of the log");
    seen("the cleanup runs by one click and says what it moved");
}

fn invitation(browser: &Browser) {
    turn_to(browser, "/invite", "Invite a server");
    browser.click("#main form button");
    browser.shows(".code", "litemesh1:");
    let squares = browser.script("return document.querySelector('.qr path').getAttribute('d').length", &[]);
    assert!(squares.as_u64() > Some(1_000), "the picture of the code is drawn: {squares}");
    browser.shows(".steps", "litemesh join CODE --plan");
    browser.shows(".steps", "litemesh join CODE --yes");
    browser.shows(".joined", "Waiting for the new server");
    seen("an invitation gives a code, its picture for a camera, and what to type on the new server");
}

fn the_end(browser: &Browser, mut cluster: Cluster, bundle: &Path) {
    turn_to(browser, "/", "Overview");
    browser.shows(".server-lines", "in step");
    let _ = browser.complaints();
    cluster.servers[0].stop();
    browser.shows("#verdict", "The node does not answer");
    browser.shows("#verdict", "litemesh run");
    seen("a node that stops is said to be silent, with what to do");
    browser.click("#sign-out");
    browser.shows("#door", "Sign in");
    assert!(!browser.text("body").contains("scouting"), "nothing of the node is left after signing out");
    assert_eq!(browser.script("return sessionStorage.length", &[]), 0);
    seen("signing out leaves nothing behind");
    cluster.servers[1].stop();
    cluster.servers[2].start();
    tasks::bundle_taken(browser, &cluster.servers[2], bundle);
}

/// In both widths and both dresses; pictures where somebody wants them.
fn every_page(browser: &Browser) {
    let album = album();
    for page in PAGES {
        let name = match page.trim_matches('/') {
            "" => "overview".to_owned(),
            other => other.replace(['/', '?', '=', '&'], "-"),
        };
        for (size, width) in [("desktop", 1280), ("phone", 360)] {
            browser.dress(width, 800, false);
            browser.script("location.hash = arguments[0]", &[json!(page)]);
            until(&format!("{page} is shown"), 20, || {
                if browser.count("#main h1") == 1 { Ok(()) } else { Err("no heading".to_owned()) }
            });
            unharmed(browser, &format!("{page} {size}"));
            for (dress, dark) in [("light", false), ("dark", true)] {
                match &album {
                    Some(album) => browser.picture(width, dark, &album.join(format!("{name}-{size}-{dress}.png"))),
                    None => browser.dress(width, 800, dark),
                }
                assert_eq!(browser.faint(), Vec::<String>::new(), "{page}, {size}, {dress}: hard to read");
            }
        }
        browser.dress(1280, 800, false);
        speaks(browser, page);
    }
    seen(
        "on every page: no markup from values, no broken policy, nothing wider than 360 pixels, names for all controls, a \
         caption for every table, contrast enough in the light and in the dark",
    );
}
