//! Beacons between two nodes. Loopback carries none, so each test runs itself again in a network namespace of its own,
//! with one interface; where the system allows no namespaces the test says so and ends.

use std::net::UdpSocket;
use std::process::Command;

use super::*;

const ANY: [&str; 4] = ["/ip4/0.0.0.0/tcp/0", "/ip4/0.0.0.0/udp/0/quic-v1", "/ip6/::/tcp/0", "/ip6/::/udp/0/quic-v1"];
/// Set inside of the namespace.
const INSIDE: &str = "LITEMESH_TEST_NAMESPACE";
const INTERFACE: &str = "set -e; ip link set lo up; ip link add d0 type veth peer name d1; ip addr add 10.9.9.1/24 dev d0; \
                         ip addr add fd09::1/64 dev d0 nodad; ip link set d0 up; ip link set d1 up; exec \"$@\"";

/// Whether the test runs in a namespace; otherwise it is run in one, and has been when this returns.
fn in_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["-rn", "sh", "-c", INTERFACE, "sh"]);
        command
    };
    if !unshare().arg("true").output().is_ok_and(|output| output.status.success()) {
        eprintln!("{test}: NOT TESTED, no network namespaces (or no `unshare`, `ip`) here");
        return false;
    }
    let own = std::env::current_exe().unwrap();
    let name = format!("net::tests::discovered::{test}");
    let output = unshare().arg(own).args(["--exact", &name, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    false
}

#[tokio::test]
async fn members_find_each_other_over_both_families_and_transports() {
    if !in_namespace("members_find_each_other_over_both_families_and_transports") {
        return;
    }
    for listen in ANY {
        let mut one = Running::start_with_mdns(1, &cluster(2), &[listen]).await;
        let mut two = Running::start_with_mdns(2, &cluster(2), &[listen]).await;
        two.connected(one.id).await;
        one.connected(two.id).await;
        let diagnosis = two.diagnose().await;
        assert_eq!(diagnosis.discovery, "on");
        let cable = diagnosis.interfaces.iter().find(|seen| seen.interface.name == "d0").unwrap();
        assert!(cable.own > 0 && cable.failed.is_empty(), "{cable:?}");
        let (one_id, _) = (one.id, one.stop().await);
        two.disconnected(one_id).await;
        two.stop().await;
    }
}

#[tokio::test]
async fn a_node_of_another_cluster_hears_noise() {
    if !in_namespace("a_node_of_another_cluster_hears_noise") {
        return;
    }
    let other = Membership::new(found_cluster(&[50; 32], "other", "other", NOW_MS)).unwrap();
    let stranger = Running::start_with_mdns(50, &other, &ANY).await;
    let one = Running::start_with_mdns(1, &cluster(2), &ANY).await;
    soon("foreign packets", async {
        while !stranger.diagnose().await.interfaces.iter().any(|seen| seen.foreign > 2) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for running in [&stranger, &one] {
        let diagnosis = running.diagnose().await;
        assert!(diagnosis.failures.is_empty() && diagnosis.peers.is_empty(), "nobody was dialed: {diagnosis:?}");
        assert!(diagnosis.interfaces.iter().all(|seen| seen.heard.is_empty()));
    }
}

#[tokio::test]
async fn in_a_flood_of_forged_packets_members_still_find_each_other() {
    if !in_namespace("in_a_flood_of_forged_packets_members_still_find_each_other") {
        return;
    }
    let mut one = Running::start_with_mdns(1, &cluster(2), &ANY).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    // The other end of the cable: packets of the right size, to the right place, as fast as the machine can.
    let flood = tokio::task::spawn_blocking(move || {
        let socket = UdpSocket::bind("10.9.9.1:0").unwrap();
        for number in 0u64.. {
            let _ = socket.send_to(&[number as u8; crate::net::beacon::PACKET_BYTES], "224.0.0.251:7482");
            if number % 16 == 0 && stopped.load(Ordering::Relaxed) {
                return;
            }
        }
    });
    soon("the flood to be noticed", async {
        while !one.diagnose().await.interfaces.iter().any(|seen| seen.dropped > 1_000) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut two = Running::start_with_mdns(2, &cluster(2), &ANY).await;
    two.connected(one.id).await;
    one.connected(two.id).await;
    stop.store(true, Ordering::Relaxed);
    flood.await.unwrap();
    let flooded = one.diagnose().await.findings;
    assert!(flooded.iter().any(|line| line.check == "interface d0" && line.found.contains("a flood")), "{flooded:?}");
}
