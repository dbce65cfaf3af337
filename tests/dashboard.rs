//! The dashboard in a real browser: three servers, one cut off, a conflict, a row on the shelf, hostile names and values.
//!
//! Everything is clicked and read as a person would; each assertion is printed as a line `seen: …`. Pictures of every
//! page, desktop and phone, light and dark, go to the folder that LITEMESH_SCREENSHOTS names (else a temporary one).
//! Does not verify: browsers other than Chromium. Without chromium and chromedriver it says so and passes.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

#[path = "support/browser.rs"]
mod browser;
mod support;

use std::path::PathBuf;

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
    cluster.enrol();
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

/// Where the pictures go.
fn album(cluster: &Cluster) -> PathBuf {
    let folder =
        std::env::var_os("LITEMESH_SCREENSHOTS").map_or_else(|| cluster.root.path().join("pictures"), PathBuf::from);
    std::fs::create_dir_all(&folder).unwrap();
    folder
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
        browser.count("main img, main script, main b[onclick], .verdict img"),
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
    assert_eq!(browser.count("main h1"), 1, "{place}: one heading of the first order");
}

const PAGES: &[&str] = &["/"];

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
    pictures(&browser, &cluster);
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

fn pictures(browser: &Browser, cluster: &Cluster) {
    let album = album(cluster);
    for page in PAGES {
        let name = match page.trim_matches('/') {
            "" => "overview".to_owned(),
            other => other.replace(['/', '?', '=', '&'], "-"),
        };
        for (size, width) in [("desktop", 1280), ("phone", 360)] {
            browser.dress(width, 800, false);
            browser.script("location.hash = arguments[0]", &[json!(page)]);
            until(&format!("{page} is shown"), 20, || {
                if browser.count("main h1") == 1 { Ok(()) } else { Err("no heading".to_owned()) }
            });
            unharmed(browser, &format!("{page} {size}"));
            for (dress, dark) in [("light", false), ("dark", true)] {
                browser.picture(width, dark, &album.join(format!("{name}-{size}-{dress}.png")));
            }
        }
        browser.dress(1280, 800, false);
        speaks(browser, page);
    }
    seen(
        "on every page: no markup from values, no broken policy, nothing wider than 360 pixels, names for all controls",
    );
}
