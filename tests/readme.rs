//! Every command of the README is run, in its order, on two servers as the text describes them.
//!
//! A block is run when the line before it is `<!-- run: WHERE -->`; a `sh` block without that line is a fault here.
//! `litemesh` is this build; `CODE` is the line that `invite` printed last. What it does not verify: the prose.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use support::server::Server;
use support::{make, patience, until};
use tempfile::TempDir;

struct Block {
    place: String,
    lines: Vec<String>,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut place = None;
    let mut lines = include_str!("../README.md").lines();
    while let Some(line) = lines.next() {
        if let Some(named) = line.strip_prefix("<!-- run: ").and_then(|rest| rest.strip_suffix(" -->")) {
            place = Some(named.to_owned());
        } else if line == "```sh" {
            let lines: Vec<String> = lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
            let place = place.take().unwrap_or_else(|| panic!("nobody says where to run:\n{}", lines.join("\n")));
            blocks.push(Block { place, lines });
        }
    }
    blocks
}

/// A server of the README: a folder `instance/` with the app's two files, no flags, no configuration but the network's.
fn server(root: &TempDir, name: &str) -> Server {
    let server = Server::new(root.path(), name);
    std::fs::create_dir(server.folder.join("instance")).unwrap();
    make(&server.folder.join("instance/scouting.db"), "scouting.sql");
    make(&server.folder.join("instance/users.db"), "users.sql");
    server
}

#[test]
fn every_command_works_as_written() {
    let root = TempDir::new().unwrap();
    let mut first = server(&root, "first");
    let mut second = server(&root, "second");
    let mut code = String::new();
    for block in blocks() {
        let server = match block.place.as_str() {
            "first" | "tests" | "simulation" => continue,
            "on the first server" => &mut first,
            "on the second server" => &mut second,
            "on the second server, stopped" => {
                second.stop();
                &mut second
            }
            other => panic!("nobody is {other:?}"),
        };
        for line in &block.lines {
            let line = line.replace("CODE", &code);
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words[0], "litemesh", "{line}");
            if words == ["litemesh", "run"] {
                server.start();
                continue;
            }
            // Names are asked for nowhere in the README; here the servers would have the machine's name, both.
            let named = if words[1] == "join" { vec!["--name", "second"] } else { vec![] };
            let answer = server.cli(&[&words[1..], &named].concat()).done();
            assert!(!answer.stdout.trim().is_empty(), "`{line}` says nothing");
            if words[1] == "invite" {
                code = answer.stdout.trim().to_owned();
            }
            if words[1] == "join" && words.contains(&"--yes") {
                assert!(!code.is_empty());
            }
        }
        if block.place == "on the second server" {
            until("the second server found the first by the code alone", 30, || {
                let peers = support::cluster::connected_peers(&second);
                if peers == 1 { Ok(()) } else { Err(format!("{peers} peers")) }
            });
        }
    }
}

/// The first command is the demo; it runs to its end by itself, says so, and leaves nothing behind.
#[test]
fn the_first_command_does_the_main_job() {
    let first = blocks().into_iter().find(|block| block.place == "first").expect("the README has a first command");
    let arguments = first.lines[0].strip_prefix("cargo run --release -- ").expect("the first command runs the program");
    // The words name no program, and there are several: cargo must know which one is meant.
    let manifest: toml::Table = include_str!("../Cargo.toml").parse().unwrap();
    assert_eq!(manifest["package"]["default-run"].as_str(), Some("litemesh"), "`{}` finds no program", first.lines[0]);
    let folder = TempDir::new().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_litemesh"))
        .args(arguments.split(' '))
        .current_dir(folder.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut out, &mut text).map(|_| text)
    });
    let status = until("the demo ends", 120, || child.try_wait().unwrap().ok_or_else(|| "it still runs".to_owned()));
    let text = reader.join().unwrap().unwrap();
    assert!(status.success(), "{status} within {:?}\n{text}", patience(120));
    assert!(text.contains("nothing was lost") || text.contains("nothing lost"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the demo leaves the folder as it was");
}

/// The simulation that the README offers runs, and says what it came to.
#[cfg(feature = "simulation")]
#[test]
fn the_simulation_runs_as_written() {
    let block = blocks().into_iter().find(|block| block.place == "simulation").expect("the README has a simulation");
    let arguments = block.lines[0].strip_prefix("cargo run --bin simulate -- ").expect("it runs the simulator");
    let ran = Command::new(env!("CARGO_BIN_EXE_simulate")).args(arguments.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success() && said.contains("0 rows lost"), "{}\n{said}", ran.status);
}

/// What the README names exists: files and folders of the map.
#[test]
fn every_place_on_the_map_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let words = include_str!("../README.md").split('`').skip(1).step_by(2);
    for word in words.filter(|word| word.starts_with("src/") || word.ends_with('/') || word.starts_with("config/")) {
        assert!(root.join(word).exists(), "README.md names {word}, which does not exist");
    }
}

/// What the README calls shown is shown: every test that its table names is there.
#[test]
fn every_disagreement_has_its_test() {
    let table = include_str!("../README.md").split("## When two servers disagree").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    for folder in ["tests", "src/merge"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                sources += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ") && !line.contains("they did")).collect();
    assert!(rows.len() > 15, "{} kinds", rows.len());
    for row in rows {
        let named = row.rsplit('`').nth(1).unwrap_or_else(|| panic!("no test in {row}"));
        assert!(named == "histories" || sources.contains(&format!("fn {named}(")), "{named} does not exist");
    }
}
