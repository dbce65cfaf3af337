//! Targets over what people write: `litemesh.toml`, variables, addresses, times.
//!
//! Invariant checked: nothing panics; a refusal says what is wrong, and of an unknown key which known one is nearest.
//! Caller: the table of targets, in builds with the daemon.

use std::cell::RefCell;

use litemesh::config::{ConfigError, DEFAULT_TOML, Flags, load, parse_database};
use litemesh::http::parse_moment;
use litemesh::net::parse_address;

use crate::draws::{Draws, random};
use crate::scratch::Scratch;
use crate::target::{Outcome, Target};

/// The configuration file, and variables beside it.
pub const CONFIG: Target = Target {
    name: "config",
    promise: "any litemesh.toml is read or refused with the line, the key and a way out",
    run: run_config,
    generate: make_config,
    words: &[
        b"[node]",
        b"[http]",
        b"[network]",
        b"[[database]]",
        b"[[database.table]]",
        b"[capture]",
        b"name = ",
        b"= [",
        b"]",
        b"\"",
        b"\"\"\"",
        b"'''",
        b"\n",
        b" = 9223372036854775808\n",
        b"steering_runs = -1\n",
        b"{}",
        b"\\u0000",
        b"\xe2\x80\xae",
        b"lissten = 1\n",
        b"[a.b.c.d]\n",
        b"nan",
        b"1979-05-27T07:32:00Z",
    ],
};

thread_local! {
    static FOLDER: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

fn make_config(dice: &mut crate::dice::Dice) -> Vec<u8> {
    let bytes = random(dice, 200);
    let mut draws = Draws::new(&bytes);
    let lines: Vec<&str> = DEFAULT_TOML.lines().collect();
    let mut text = String::new();
    for line in &lines {
        // Comments show further keys: some are taken at their word.
        let line = if draws.chance(15) { line.trim_start_matches(['#', ' ']) } else { line };
        if !draws.chance(10) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.into_bytes()
}

fn run_config(bytes: &[u8]) -> Outcome {
    let folder = FOLDER.take().unwrap_or_else(Scratch::new);
    let path = folder.path().join("litemesh.toml");
    std::fs::write(&path, bytes).expect("the folder of the run can be written");
    let flags = Flags { config: Some(path), ..Flags::default() };
    let text = String::from_utf8_lossy(bytes);
    let variable =
        |name: &str| text.split_once(name).map(|(_, rest)| rest.lines().next().unwrap_or_default().to_string());
    let environment = |name: &str| variable(&format!("{name}=")).filter(|_| name != "LITEMESH_CONFIG");
    let outcome = match load(&flags, &environment, folder.path()) {
        Ok(config) => {
            assert!(
                config.http.listen.is_none_or(|listen| listen.ip().is_loopback()),
                "the API would listen to others"
            );
            format!("{} databases, {} warnings", config.databases.len(), config.warnings.len()).into()
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            match error {
                ConfigError::UnknownKey { nearest, line, .. } => {
                    assert!(!nearest.is_empty() && line > 0, "an unknown key without the nearest known one");
                    Outcome::from("unknown key")
                }
                ConfigError::Syntax { line, message, .. } => {
                    assert!(line > 0 && !message.is_empty());
                    message.split_whitespace().take(4).collect::<Vec<_>>().join(" ").into()
                }
                ConfigError::Value { key, .. } => format!("value of {key}").into(),
                ConfigError::Unreadable { .. } => "unreadable".into(),
            }
        }
    };
    FOLDER.set(Some(folder));
    outcome
}

/// Single words of the command line: addresses, times, databases.
pub const WORD: Target = Target {
    name: "word",
    promise: "an address that is read reads the same again; any word is read or refused",
    run: run_word,
    generate: |dice| {
        let bytes = random(dice, 40);
        let draws = &mut Draws::new(&bytes);
        let mut text = String::new();
        for _ in 0..1 + draws.below(4) {
            text.push_str(draws.pick::<&str>(&[
                "/ip4/10.0.0.1",
                "/ip6/::1",
                "/dns4/a.b",
                "/udp/1",
                "/tcp/7481",
                "/quic-v1",
                "/p2p/",
            ]));
            text.push_str(draws.pick::<&str>(&["", "", "", "2h", "2025-03-06T09:00:00Z", "scouting=a.db", "9"]));
        }
        text.into_bytes()
    },
    words: &[b"/ip4/", b"/p2p/12D3KooW", b"/udp/65536", b"/ws", b"/p2p-circuit", b"99999999999y", b"=", b"\0", b"\xff"],
};

fn run_word(bytes: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(bytes);
    let moment = parse_moment(&text, 1_748_736_000_000);
    let database = parse_database(&text).is_ok();
    match parse_address(&text) {
        Ok((peer, address)) => {
            let again = parse_address(&address.to_string());
            assert_eq!(again.map(|(_, address)| address).ok(), Some(address), "an address changes by being written");
            format!("address, peer {}", peer.is_some()).into()
        }
        Err(error) => {
            assert!(error.to_string().len() < 2_000, "a refusal that repeats all it was given");
            let words = error.to_string();
            let kind = words.rsplit_once('"').map(|(_, rest)| rest.to_string()).unwrap_or_default();
            format!("{kind} {} {database}", moment.is_some()).into()
        }
    }
}
