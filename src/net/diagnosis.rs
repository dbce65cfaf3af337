//! How the network is doing, as numbers and in words: what each interface carries, and why a member is not reached.
//!
//! Invariant: pure; every finding that is not well says what to do. Callers: network (doctor), http and cli read it as a
//! document.

use serde::Serialize;

use super::interfaces::Interface;
use super::reason::Reason;

/// How the network is doing, for `doctor` and the dashboard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Multiaddrs it listens on, with `/p2p/`.
    pub listening: Vec<String>,
    /// Connected peers.
    pub peers: Vec<PeerDiagnosis>,
    /// Members that are not connected, and why.
    pub away: Vec<AwayDiagnosis>,
    /// The machine's interfaces, and what was heard on each.
    pub interfaces: Vec<InterfaceDiagnosis>,
    /// The relays of the settings, and `reserved`, `asked`, `not connected` or why not.
    pub relays: Vec<(String, String)>,
    /// The last failure of each target that was dialed in vain: target, words.
    pub failures: Vec<(String, String)>,
    /// Hex keys of peers that broke the protocol and are shut out for a while.
    pub banned: Vec<String>,
    /// Looking for peers by multicast: `on` or `off`.
    pub discovery: String,
    /// The same in words, one line for each interface, member and address.
    pub findings: Vec<Finding>,
}

/// One connected peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PeerDiagnosis {
    /// Its key in hex.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The address it is connected by.
    pub connected_by: String,
    /// All its known addresses.
    pub addresses: Vec<String>,
    /// Frames dropped because it reads too slowly.
    pub dropped_frames: u64,
}

/// One member, or one address of a person's, that is not connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AwayDiagnosis {
    /// The member's key in hex; empty for a bare address.
    pub id: String,
    /// Its name, or the address.
    pub name: String,
    /// Seconds since it was last reached, also in a former run; `None`: never.
    pub last_reached_s: Option<u64>,
    /// Where it was last reached.
    pub last_address: String,
    /// Seconds since it was last heard in a beacon; `None`: not in this run.
    pub last_heard_s: Option<u64>,
    /// Every known address and what came of the last dial; empty: not tried yet.
    pub tried: Vec<(String, String)>,
}

/// One interface of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InterfaceDiagnosis {
    /// Name, state and addresses.
    #[serde(flatten)]
    pub interface: Interface,
    /// Beacons of all kinds that came in, this node's own included.
    pub packets: u64,
    /// This node's own beacons that came back.
    pub own: u64,
    /// Packets of somebody else: another cluster, a forgery.
    pub foreign: u64,
    /// Packets not looked at, because there were too many.
    pub dropped: u64,
    /// Members heard: name, and seconds since.
    pub heard: Vec<(String, u64)>,
    /// Why nothing can be sent or heard here; empty: it can.
    pub failed: String,
}

/// One line for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// `ok` or `warning`.
    pub state: String,
    /// What was found.
    pub found: String,
    /// What to do; empty when all is well.
    pub next: String,
}

/// Whoever is on the link is heard at least this often.
const BEACON_S_MAX: u64 = 13;

fn finding(check: String, next: &str, found: String) -> Finding {
    let state = if next.is_empty() { "ok" } else { "warning" };
    Finding { check, state: state.into(), found, next: next.into() }
}

/// A span of time as people say it.
pub(crate) fn ago(seconds: u64) -> String {
    match seconds {
        0..90 => format!("{seconds} s ago"),
        90..5_400 => format!("{} min ago", (seconds + 30) / 60),
        5_400..172_800 => format!("{} h ago", (seconds + 1_800) / 3_600),
        172_800.. => format!("{} days ago", seconds / 86_400),
    }
}

/// One interface in words. `hearing`: for how many seconds this node has been listening for beacons there, if it does.
pub(crate) fn interface_words(seen: &InterfaceDiagnosis, hearing: Option<u64>) -> Option<Finding> {
    let interface = &seen.interface;
    if interface.loopback {
        return None;
    }
    let check = format!("interface {}", interface.name);
    let addresses: Vec<String> = interface.addresses.iter().map(|address| address.to_string()).collect();
    let (there, next) = match (interface.up, interface.carrier, addresses.is_empty()) {
        (false, ..) => return Some(finding(check, "", "switched off".into())),
        (true, false, _) => return Some(finding(check, "", "nothing at the other end (cable, Wi-Fi network)".into())),
        (true, true, true) => {
            let next = "give it an address: DHCP, or one by hand in the range of the other servers";
            return Some(finding(check, next, "no IP address".into()));
        }
        (true, true, false) => (addresses.join(", "), ""),
    };
    let Some(hearing_s) = hearing else { return Some(finding(check, next, there)) };
    if !interface.multicast {
        let next = "it carries no multicast: name the peers behind it: litemesh peers add MULTIADDR";
        return Some(finding(check, next, there));
    }
    if !seen.failed.is_empty() {
        let next = "does a firewall forbid UDP port 7482? Peers can be named: litemesh peers add MULTIADDR";
        return Some(finding(check, next, format!("{there}; beacons cannot be sent: {}", seen.failed)));
    }
    let mut found = vec![there];
    if seen.dropped > 0 {
        found.push(format!("a flood: {} packets not looked at", seen.dropped));
    }
    if seen.foreign > 0 {
        found.push(format!("{} packets of others (another cluster, or forged)", seen.foreign));
    }
    if !seen.heard.is_empty() {
        let heard: Vec<String> = seen.heard.iter().map(|(name, seconds)| format!("{name} {}", ago(*seconds))).collect();
        found.push(format!("heard {}", heard.join(", ")));
        return Some(finding(check, "", found.join("; ")));
    }
    let next = match hearing_s < 6 || seen.own > 0 {
        true => "",
        false => "not even this node's own beacons come back: let the firewall pass UDP port 7482 in both directions",
    };
    found.push(if seen.packets == 0 { "nothing heard".into() } else { "no other member heard".to_string() });
    Some(finding(check, next, found.join("; ")))
}

/// One relay in words.
pub(crate) fn relay_words(address: &str, state: &str) -> Finding {
    let check = format!("relay {}", host(address));
    match state {
        "reserved" => finding(check, "", "this node can be called there".into()),
        "asked" => finding(check, "", "asked for a place".into()),
        "not connected" => finding(check, "see the line of that peer", "not connected".into()),
        reason => {
            let next = "does that node run with network.wan = true? It is asked again every few seconds";
            finding(check, next, format!("no place there: {reason}"))
        }
    }
}

/// Why a member is away, in words. `reasons`: of the ways that failed.
pub(crate) fn away_words(away: &AwayDiagnosis, reasons: &[Reason]) -> Finding {
    let mut found = vec![match (away.last_reached_s, away.last_address.as_str()) {
        (Some(seconds), "") => format!("last reached {}", ago(seconds)),
        (Some(seconds), address) => format!("last reached {} at {address}", ago(seconds)),
        (None, _) => "never reached".into(),
    }];
    if let Some(seconds) = away.last_heard_s {
        found.push(format!("its beacon was heard {}", ago(seconds)));
    }
    let mut kinds: Vec<&Reason> = reasons.iter().collect();
    kinds.sort();
    kinds.dedup();
    match (away.tried.len(), kinds.as_slice()) {
        (0, _) => found.push("no address is known".into()),
        (_, []) => found.push("being dialed".into()),
        (count @ 2.., [reason]) => found.push(format!("{count} addresses tried, each: {}", reason.words())),
        (_, kinds) => found.extend(kinds.iter().map(|reason| {
            let words = reason.words();
            let mut hosts: Vec<&str> =
                away.tried.iter().filter(|(_, outcome)| *outcome == words).map(|(address, _)| host(address)).collect();
            hosts.dedup();
            format!("{}: {words}", hosts.join(", "))
        })),
    }
    let next = match (away.tried.is_empty(), worst(&kinds)) {
        (true, _) => {
            "neither it nor another member has told one: bring it onto the same network, or name one: litemesh peers add \
             MULTIADDR"
        }
        (false, Some(Reason::Silence)) if away.last_heard_s.is_some_and(|seconds| seconds <= BEACON_S_MAX) => {
            "it is here and does not answer: let the firewalls of both pass UDP and TCP 7481 in both directions"
        }
        (false, Some(reason)) => reason.next(),
        (false, None) => "it is tried every few seconds",
    };
    let name = if away.name.is_empty() { &away.id } else { &away.name };
    finding(format!("peer {name}"), next, found.join("; "))
}

/// The part of a multiaddr that people know.
pub(crate) fn host(address: &str) -> &str {
    address.split('/').nth(2).unwrap_or(address)
}

/// The reason that says most: an answer says more than silence, silence more than a network this machine is not on.
fn worst<'reason>(kinds: &[&'reason Reason]) -> Option<&'reason Reason> {
    let says = |reason: &Reason| match reason {
        Reason::NotAMember | Reason::OtherCluster | Reason::Banned => 0,
        Reason::TurnedAway | Reason::OtherProgram => 1,
        Reason::Refused => 2,
        Reason::Silence => 3,
        Reason::OtherKey | Reason::UnknownName => 4,
        Reason::NoRoute => 5,
        Reason::TooMany | Reason::Other(_) => 6,
    };
    kinds.iter().copied().min_by_key(|reason| says(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cable() -> InterfaceDiagnosis {
        let interface = Interface {
            name: "eth0".into(),
            index: 2,
            up: true,
            carrier: true,
            multicast: true,
            loopback: false,
            addresses: vec!["10.0.0.1".parse().unwrap()],
        };
        InterfaceDiagnosis { interface, packets: 9, own: 5, ..InterfaceDiagnosis::default() }
    }

    fn line(seen: &InterfaceDiagnosis) -> (String, String) {
        let finding = interface_words(seen, Some(60)).unwrap();
        assert_eq!(finding.state == "ok", finding.next.is_empty());
        (finding.found, finding.next)
    }

    #[test]
    fn an_interface_says_what_it_carries_and_what_hinders_it() {
        let heard = InterfaceDiagnosis { heard: vec![("pit".into(), 3)], foreign: 2, ..cable() };
        assert_eq!(line(&heard).0, "10.0.0.1; 2 packets of others (another cluster, or forged); heard pit 3 s ago");
        assert_eq!(line(&cable()), ("10.0.0.1; no other member heard".into(), String::new()));
        let silent = InterfaceDiagnosis { packets: 0, own: 0, ..cable() };
        assert!(line(&silent).1.contains("firewall") && line(&silent).0.contains("nothing heard"));
        assert_eq!(interface_words(&silent, Some(2)).unwrap().next, "", "it has only just begun");
        let mut off = cable();
        off.interface.carrier = false;
        assert!(line(&off).0.contains("nothing at the other end"));
        off.interface.carrier = true;
        off.interface.addresses.clear();
        assert!(line(&off).1.contains("DHCP"));
        let failed = InterfaceDiagnosis { failed: "Operation not permitted".into(), ..cable() };
        assert!(line(&failed).0.contains("not permitted") && line(&failed).1.contains("7482"));
        let flood = InterfaceDiagnosis { dropped: 70_000, ..cable() };
        assert!(line(&flood).0.contains("a flood: 70000 packets"));
        assert_eq!(interface_words(&cable(), None).unwrap().found, "10.0.0.1");
        let mut loopback = cable();
        loopback.interface.loopback = true;
        assert_eq!(interface_words(&loopback, Some(60)), None);
    }

    #[test]
    fn a_member_that_is_away_has_its_reason_and_a_next_step() {
        let tried = |words: &[&str]| -> Vec<(String, String)> {
            words.iter().enumerate().map(|(i, words)| (format!("/ip4/10.0.0.{i}/tcp/1"), words.to_string())).collect()
        };
        let away = AwayDiagnosis {
            name: "pit-laptop".into(),
            last_reached_s: Some(720),
            last_address: "10.0.0.7".into(),
            tried: tried(&["no answer", "no answer", "no answer"]),
            ..AwayDiagnosis::default()
        };
        let words = away_words(&away, &[Reason::Silence, Reason::Silence, Reason::Silence]);
        assert_eq!(words.check, "peer pit-laptop");
        assert_eq!(words.found, "last reached 12 min ago at 10.0.0.7; 3 addresses tried, each: no answer");
        assert!(words.next.contains("access points can keep computers apart") && words.next.contains("peers add"));

        let heard = AwayDiagnosis { last_heard_s: Some(4), ..away.clone() };
        let words = away_words(&heard, &[Reason::Silence]);
        assert!(words.found.contains("heard 4 s ago") && words.next.contains("firewalls"), "{words:?}");

        let mixed =
            AwayDiagnosis { tried: tried(&["no answer", "a computer answers, but no node listens there"]), ..away };
        let words = away_words(&mixed, &[Reason::Silence, Reason::Refused]);
        assert!(
            words.found.contains("10.0.0.1: a computer answers") && words.next.contains("litemesh run"),
            "{words:?}"
        );

        let unknown = AwayDiagnosis { name: "x".into(), ..AwayDiagnosis::default() };
        let words = away_words(&unknown, &[]);
        assert_eq!(words.found, "never reached; no address is known");
        assert!(words.next.contains("peers add"));
        for reason in
            [Reason::OtherCluster, Reason::NotAMember, Reason::TurnedAway, Reason::OtherProgram, Reason::Banned]
        {
            let away = AwayDiagnosis { name: "x".into(), tried: tried(&["?"]), ..AwayDiagnosis::default() };
            let words = away_words(&away, std::slice::from_ref(&reason));
            assert!(words.found.contains(&reason.words()) && words.next == reason.next(), "{words:?}");
        }
    }

    #[test]
    fn times_are_said_as_people_say_them() {
        let said = [(0, "0 s"), (89, "89 s"), (90, "2 min"), (720, "12 min"), (7_200, "2 h"), (200_000, "2 days")];
        said.into_iter().for_each(|(seconds, words)| assert_eq!(ago(seconds), format!("{words} ago")));
    }
}
