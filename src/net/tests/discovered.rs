//! mDNS between two nodes. It skips loopback, so these need an interface with multicast, best in a namespace:
//!
//! ```sh
//! unshare -rn sh -c 'ip link set lo up; ip link add d0 type veth peer name d1; ip addr add 10.9.9.1/24 dev d0; \
//!   ip link set d0 up; ip link set d1 up; ip route add 224.0.0.0/4 dev d0; TEST_BINARY --ignored --test-threads 1 discovered'
//! ```

use super::*;

const ANY_TCP: &str = "/ip4/0.0.0.0/tcp/0";
const ANY_QUIC: &str = "/ip4/0.0.0.0/udp/0/quic-v1";

#[tokio::test]
#[ignore = "needs an interface with multicast"]
async fn members_find_each_other() {
    for listen in [ANY_TCP, ANY_QUIC] {
        let mut one = Running::start_with_mdns(1, &cluster(2), &[listen]).await;
        let mut two = Running::start_with_mdns(2, &cluster(2), &[listen]).await;
        two.connected(one.id).await;
        one.connected(two.id).await;
        assert_eq!(two.diagnose().await.discovery, "on");
        one.stop().await;
        two.stop().await;
    }
}

#[tokio::test]
#[ignore = "needs an interface with multicast"]
async fn a_flood_of_forged_peers_switches_discovery_off_and_static_peers_work_on() {
    let mut one = Running::start_with_mdns(1, &cluster(2), &[ANY_TCP]).await;
    let flood = tokio::task::spawn_blocking(|| {
        let socket = std::net::UdpSocket::bind("10.9.9.1:0").unwrap();
        for number in 0..3000u32 {
            let _ = socket.send_to(&forged(number), "224.0.0.251:5353");
            std::thread::sleep(Duration::from_micros(300));
        }
    });
    soon("the guard", async {
        while one.diagnose().await.discovery != "paused by a flood" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let mut two = Running::start(2, &cluster(2), &[ANY_TCP], &one.listening).await;
    two.connected(one.id).await;
    one.connected(two.id).await;
    flood.await.unwrap();
}

/// An answer to libp2p's discovery query that names a peer nobody has.
fn forged(number: u32) -> Vec<u8> {
    let mut seed = [200; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let peer = crate::net::key::keypair(&seed).public().to_peer_id();
    let service = [&b"\x04_p2p\x04_udp\x05local\0"[..]].concat();
    let name = format!("forged{number:026}");
    let mut full_name = vec![name.len() as u8];
    full_name.extend(name.as_bytes());
    full_name.extend(&service);
    let text = format!("dnsaddr=/ip4/10.9.9.1/tcp/{}/p2p/{peer}", 1 + number % 60_000);

    let mut packet = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 1];
    let record = |packet: &mut Vec<u8>, name: &[u8], kind: u8, data: &[u8]| {
        packet.extend(name);
        packet.extend([0, kind, 0, 1, 0, 0, 0, 120]);
        packet.extend((data.len() as u16).to_be_bytes());
        packet.extend(data);
    };
    record(&mut packet, &service, 12, &full_name);
    let mut content = vec![text.len() as u8];
    content.extend(text.as_bytes());
    record(&mut packet, &full_name, 16, &content);
    packet
}
