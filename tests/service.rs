//! What installs the program as a service, and what shows its figures: unit, container, launchd agent, Grafana board. Every
//! command and flag in them is asked of the program itself, every metric of a running node.
//!
//! What it does not verify: that systemd, a container engine, launchd or Grafana are content; where `systemd-analyze` is
//! installed, the unit is shown to it.

#![cfg(feature = "daemon")]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::server::Server;
use support::{make, until};

const UNIT: &str = include_str!("../config/litemesh.service");
const CONTAINER: &str = include_str!("../config/Containerfile");
const BOARD: &str = include_str!("../config/grafana.json");

fn litemesh(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_litemesh")).args(arguments).output().unwrap()
}

/// The program knows these words: with `--help` behind them it explains instead of complaining.
#[track_caller]
fn understood(words: &[&str]) {
    let output = litemesh(&[words, &["--help"]].concat());
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `LITEMESH_…` in a text.
fn variables(text: &str) -> Vec<String> {
    let word = |c: char| !(c.is_ascii_uppercase() || c == '_');
    text.split(word).filter(|word| word.starts_with("LITEMESH_")).map(str::to_owned).collect()
}

/// The values of a key of the unit, in its order.
fn unit(key: &str) -> Vec<&'static str> {
    UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn the_unit_starts_the_program_as_it_is() {
    let mut commands = unit("ExecStart");
    assert_eq!(commands.len(), 1);
    // What a comment offers must be right too.
    commands
        .extend(UNIT.lines().filter(|line| line.starts_with('#')).filter_map(|line| line.split("ExecStart=").nth(1)));
    assert_eq!(commands.len(), 2, "{commands:?}");
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        assert_eq!(words[0], "/usr/local/bin/litemesh");
        assert!(UNIT.contains("install -m 755 litemesh /usr/local/bin/"), "the unit says how the program gets there");
        assert!(words.contains(&"run"), "{command}");
        understood(&words[1..]);
    }
    assert_eq!(variables(UNIT), ["LITEMESH_ALERTS_SMTP_PASSWORD_FILE"]);
    assert!(litemesh::config::unknown_variables(variables(UNIT).into_iter()).is_empty());
}

#[test]
fn the_unit_lets_the_program_write_where_the_application_lives_and_nowhere_else() {
    assert_eq!(unit("ReadWritePaths"), unit("WorkingDirectory"));
    assert_eq!(unit("RequiresMountsFor"), unit("WorkingDirectory"));
    for (key, value) in [
        ("ProtectSystem", "strict"),
        ("NoNewPrivileges", "yes"),
        ("PrivateDevices", "yes"),
        ("CapabilityBoundingSet", ""),
        ("MemoryDenyWriteExecute", "yes"),
        ("Restart", "on-failure"),
    ] {
        assert_eq!(unit(key), [value], "{key}");
    }
    // The application's user; a user made for the moment could not write its files.
    assert!(unit("DynamicUser").is_empty() && unit("User").len() == 1);
    // A watchdog would kill a program that sends no signs of life.
    assert!(unit("WatchdogSec").is_empty() && !include_str!("../Cargo.toml").contains("sd-notify"));
    for family in ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX"] {
        assert!(unit("RestrictAddressFamilies")[0].split(' ').any(|one| one == family), "{family}");
    }
    // Usage and integrity, as `--help` lists them.
    let help = String::from_utf8(litemesh(&["--help"]).stdout).unwrap();
    assert!(help.contains("2 usage") && help.contains("4 integrity"), "{help}");
    assert_eq!(unit("RestartPreventExitStatus"), ["2 4"]);
}

#[test]
fn systemd_finds_no_fault_with_the_unit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("litemesh.service");
    std::fs::write(&path, UNIT.replace("/usr/local/bin/litemesh", env!("CARGO_BIN_EXE_litemesh"))).unwrap();
    let Ok(output) = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output() else {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("litemesh")).collect();
    assert!(output.status.success() && ours.is_empty(), "{said}");
}

/// The words of a JSON list behind an instruction of the Containerfile.
fn listed(instruction: &str) -> Vec<String> {
    let line = CONTAINER.lines().find(|line| line.starts_with(instruction)).unwrap_or_else(|| panic!("{instruction}"));
    serde_json::from_str(&line[line.find('[').unwrap()..]).unwrap()
}

#[test]
fn the_container_is_made_of_what_is_here_and_starts_the_program_as_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut copied = BTreeSet::new();
    for line in CONTAINER.lines().filter_map(|line| line.strip_prefix("COPY ")).filter(|line| !line.contains("--from"))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        for source in &words[..words.len() - 1] {
            assert!(root.join(source).exists(), "{source} does not exist");
            copied.insert((*source).to_owned());
        }
    }
    // Cargo reads every file that the manifest names, built or not.
    let manifest: toml::Table = include_str!("../Cargo.toml").parse().unwrap();
    let programs = manifest["bin"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap());
    let others = ["build", "readme"].map(|key| manifest["package"][key].as_str().unwrap());
    for path in programs.chain(others).chain(["Cargo.toml", "Cargo.lock", "proto", "config"]) {
        let folder = path.split('/').next().unwrap();
        assert!(copied.contains(folder), "{path} is not copied");
    }
    assert!(CONTAINER.contains("RUN cargo build --release --locked --bin litemesh\n"));
    assert!(CONTAINER.contains("COPY --from=build /build/target/release/litemesh /usr/local/bin/litemesh"));
    let entry = listed("ENTRYPOINT");
    assert_eq!(entry, ["litemesh"]);
    for words in [listed("CMD"), listed("HEALTHCHECK").split_off(1)] {
        understood(&words.iter().map(String::as_str).collect::<Vec<_>>());
    }
    assert_eq!(listed("HEALTHCHECK")[0], "litemesh");
    // The ports of the members, and not that of the API.
    let defaults: toml::Table = litemesh::config::DEFAULT_TOML.parse().unwrap();
    let listen = defaults["network"]["listen"].as_array().unwrap();
    assert!(listen.iter().all(|one| one.as_str().unwrap().contains("/7481")), "{listen:?}");
    assert!(CONTAINER.contains("EXPOSE 7481/tcp 7481/udp") && !CONTAINER.contains("7480"));
}

#[test]
fn the_agent_of_macos_is_a_property_list_and_starts_the_program_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/net.litemesh.node.plist");
    let read = "import json, plistlib, sys; print(json.dumps(plistlib.load(open(sys.argv[1], 'rb'))))";
    let agent: Value = serde_json::from_str(&support::python(&["-c", read, path.to_str().unwrap()]).unwrap()).unwrap();
    assert_eq!(path.file_stem().unwrap().to_str(), agent["Label"].as_str());
    let words: Vec<&str> =
        agent["ProgramArguments"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(words[0], "/usr/local/bin/litemesh");
    understood(&words[1..]);
    assert_eq!((&agent["KeepAlive"]["SuccessfulExit"], &agent["Umask"]), (&Value::from(false), &Value::from(0o077)));
}

/// Metrics that a running node exports, and for each the labels of its lines.
fn exported() -> Vec<(String, BTreeSet<String>)> {
    let root = tempfile::tempdir().unwrap();
    let mut server = Server::new(root.path(), "pit");
    let database = server.folder.join("scouting.db");
    make(&database, "scouting.sql");
    server.databases.push(("scouting".to_owned(), database));
    server.start();
    server.cli(&["sync"]).done();
    until("something ran", 30, || match page(&server) {
        page if page.contains("litemesh_runs_total{") => Ok(()),
        page => Err(page),
    });
    let page = page(&server);
    let of = |name: &str| {
        let lines = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
        let labels = lines.flat_map(|labels| labels.split("=\"").filter_map(|part| part.rsplit([',', '{']).next()));
        labels.filter(|label| label.chars().all(|c| c.is_ascii_lowercase())).map(str::to_owned).collect()
    };
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    families.map(|name| (name.to_owned(), of(name))).collect()
}

fn page(server: &Server) -> String {
    let token = std::fs::read_to_string(server.data().join("api-token")).unwrap();
    let address = server.http().strip_prefix("http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    let head = format!(
        "GET /metrics HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        token.trim()
    );
    stream.write_all(head.as_bytes()).unwrap();
    BufReader::new(stream).lines().map_while(Result::ok).collect::<Vec<_>>().join("\n")
}

/// Names of metrics in an expression.
fn metrics_of(expression: &str) -> Vec<String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    expression.split(word).filter(|word| word.starts_with("litemesh_")).map(str::to_owned).collect()
}

#[test]
fn every_metric_of_the_board_is_exported_and_every_exported_one_is_on_the_board() {
    let exported = exported();
    assert!(exported.len() > 15, "{exported:?}");
    let board: Value = serde_json::from_str(BOARD).unwrap();
    let mut shown = BTreeSet::new();
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let named = metrics_of(expression);
            assert!(!named.is_empty(), "`{title}` asks for nothing: {expression}");
            for name in &named {
                let known = exported.iter().find(|(known, _)| known == name);
                let (_, labels) = known.unwrap_or_else(|| panic!("`{title}` asks for {name}, which is not exported"));
                // `instance` is Prometheus' own; a family without lines here (there are no peers) has no labels to compare.
                let legend = target["legendFormat"].as_str().unwrap();
                let wanted = legend.split("{{").skip(1).filter_map(|part| part.split("}}").next());
                for label in wanted.filter(|label| *label != "instance" && !labels.is_empty()) {
                    assert!(labels.contains(label), "`{title}` shows {label} of {name}, which has {labels:?}");
                }
            }
            shown.extend(named);
        }
    }
    let variable = board["templating"]["list"][1]["query"].as_str().unwrap();
    shown.extend(metrics_of(variable));
    let unseen: Vec<&String> = exported.iter().map(|(name, _)| name).filter(|name| !shown.contains(*name)).collect();
    let left_out = ["litemesh_database_tables", "litemesh_monitor_dropped_total"];
    assert_eq!(unseen, left_out, "a metric that nobody sees is forgotten: show it, or list it here");
}

/// The pages come from the same definitions as `--help`: one for each command, with its flags.
#[test]
fn manual_pages_are_made_of_the_commands_own_words() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("man1");
    let output = litemesh(&["man", "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let help = String::from_utf8(litemesh(&["--help"]).stdout).unwrap();
    let commands = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    let commands: Vec<&str> =
        commands.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() > 30, "{commands:?}");
    let read = |page: PathBuf| {
        let text = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        text.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "")
    };
    for command in commands {
        let page = read(out.join(format!("litemesh-{command}.1")));
        let help = String::from_utf8(litemesh(&[command, "--help"]).stdout).unwrap();
        let flags = help
            .split_whitespace()
            .filter(|word| word.starts_with("--"))
            .map(|word| word.trim_matches(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).to_owned());
        let options = help.split("Options:").nth(1).unwrap_or_default().to_owned();
        for flag in flags.filter(|flag| options.contains(&format!("  {flag}"))) {
            assert!(page.contains(&flag), "litemesh-{command}.1 does not tell of {flag}");
        }
    }
    // Commands of commands have pages too.
    assert!(read(out.join("litemesh-peers-revoke.1")).contains("litemesh-peers-revoke"));
    let main = read(out.join("litemesh.1"));
    let printed = String::from_utf8(litemesh(&["man"]).stdout).unwrap();
    assert!(main.contains("Exit codes") && printed.starts_with(".ie") && printed.contains(".TH"), "{printed}");
    let refused = litemesh(&["man", "--out", "/dev/null/pages"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("--out"), "{said}");
}
