//! Somebody who listens on the switch: every packet into a file, and what can be read there.
//!
//! Invariant: sees each packet that a host sends, whole; texts are looked for in every packet and in every flow put
//! together (so one that lies across two packets is found), in clear and in hex. Does not verify: what a listener learns
//! from sizes and times. Callers: eavesdrop.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::host::{signal, tool};
use super::network::Bridge;
use super::outcome::Trouble;

const READY_WITHIN: Duration = Duration::from_secs(10);
/// Between the switch and the file.
const FLUSHED: Duration = Duration::from_millis(300);

/// Who to whom, protocol, ports.
type Flow = (Ipv4Addr, Ipv4Addr, u8, u16, u16);

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    file: PathBuf,
    said: PathBuf,
}

/// What was captured.
#[derive(Debug)]
pub struct Heard {
    /// Packets.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Payload by flow.
    flows: BTreeMap<Flow, Vec<u8>>,
    /// Packets of other kinds, whole.
    others: Vec<Vec<u8>>,
}

impl Capture {
    /// Starts to listen on a switch, and returns when it does.
    pub fn start(bridge: &Bridge, folder: &Path) -> Result<Capture, Trouble> {
        let tcpdump = tool("tcpdump", "tcpdump")?;
        let (file, said) = (folder.join("heard.pcap"), folder.join("tcpdump.txt"));
        let child = Command::new(tcpdump)
            .args(["-i", bridge.name(), "-s", "0", "-U", "-B", "16384", "-Z", "root", "-w"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&said)?)
            .spawn()?;
        let mut capture = Capture { child, file, said };
        let until = Instant::now() + READY_WITHIN;
        loop {
            let words = std::fs::read_to_string(&capture.said)?;
            if words.contains("listening on") {
                return Ok(capture);
            }
            if capture.child.try_wait()?.is_some() || Instant::now() > until {
                return Err(Trouble::wrong(format!("tcpdump does not listen: {}", words.trim())));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Stops, and reads what was heard. Packets that the capture itself lost make it worthless.
    pub fn stop(mut self) -> Result<Heard, Trouble> {
        std::thread::sleep(FLUSHED);
        signal(self.child.id(), "-INT")?;
        self.child.wait()?;
        let words = std::fs::read_to_string(&self.said)?;
        if !words.contains("\n0 packets dropped by kernel") {
            return Err(Trouble::wrong(format!("the capture is not whole: {}", words.trim().replace('\n', ", "))));
        }
        read(&std::fs::read(&self.file)?)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Ended already, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Takes a capture file apart (the classic format, this machine's byte order).
fn read(file: &[u8]) -> Result<Heard, Trouble> {
    let broken = || Trouble::wrong("the capture file is not one");
    let number =
        |at: usize| -> Option<usize> { Some(u32::from_ne_bytes(*file.get(at..at + 4)?.first_chunk()?) as usize) };
    if number(0) != Some(0xa1b2_c3d4) {
        return Err(broken());
    }
    let mut heard = Heard { packets: 0, bytes: 0, flows: BTreeMap::new(), others: Vec::new() };
    let mut at = 24;
    while let Some(length) = number(at + 8) {
        let packet = file.get(at + 16..at + 16 + length).ok_or_else(broken)?;
        heard.take(packet);
        at += 16 + length;
    }
    Ok(heard)
}

impl Heard {
    fn take(&mut self, packet: &[u8]) {
        self.packets += 1;
        self.bytes += packet.len() as u64;
        match flow(packet) {
            Some((flow, payload)) => self.flows.entry(flow).or_default().extend_from_slice(payload),
            None => self.others.push(packet.to_vec()),
        }
    }

    /// How often a text is in what was heard, in clear or in hex.
    pub fn finds(&self, text: &[u8]) -> usize {
        let hex = data_encoding::HEXLOWER.encode(text);
        [text, hex.as_bytes(), hex.to_uppercase().as_bytes()].iter().map(|text| self.count(text)).sum()
    }

    fn count(&self, text: &[u8]) -> usize {
        let all = self.flows.values().chain(&self.others);
        all.map(|bytes| bytes.windows(text.len()).filter(|window| *window == text).count()).sum()
    }

    /// Bytes behind the headers of UDP and TCP that one host sent to another.
    pub fn payload(&self, from: &str, to: &str) -> usize {
        let wanted = (from.parse::<Ipv4Addr>().ok(), to.parse::<Ipv4Addr>().ok());
        let flows = self.flows.iter().filter(|((from, to, ..), _)| (Some(*from), Some(*to)) == wanted);
        flows.map(|(_, bytes)| bytes.len()).sum()
    }
}

/// The flow of an IPv4 packet with TCP or UDP in an Ethernet frame, and what is behind the headers.
fn flow(frame: &[u8]) -> Option<(Flow, &[u8])> {
    let packet = frame.get(14..).filter(|_| frame[12..14] == [8, 0])?;
    let header = usize::from(packet.first()? & 15) * 4;
    let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
    let address = |at: usize| Some(Ipv4Addr::from(*packet.get(at..at + 4)?.first_chunk::<4>()?));
    let (from, to, protocol) = (address(12)?, address(16)?, *packet.get(9)?);
    let inner = packet.get(header..total.min(packet.len()))?;
    let port = |at: usize| Some(u16::from_be_bytes([*inner.get(at)?, *inner.get(at + 1)?]));
    let skip = match protocol {
        17 => 8,
        6 => usize::from(inner.get(12)? >> 4) * 4,
        _ => return None,
    };
    Some(((from, to, protocol, port(0)?, port(2)?), inner.get(skip..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend_from_slice(&[8, 0, 0x45, 0]);
        frame.extend_from_slice(&(28 + payload.len() as u16).to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0, 10, 77, 0, 1, 10, 77, 0, 2, 0, 9, 0, 10]);
        frame.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
        frame.extend_from_slice(&[0, 0]);
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn a_text_across_two_packets_and_one_in_hex_are_found() {
        let mut heard = Heard { packets: 0, bytes: 0, flows: BTreeMap::new(), others: Vec::new() };
        heard.take(&udp(b"xxMAR"));
        heard.take(&udp(b"KERyy4d41524b4552"));
        heard.take(b"an odd frame");
        assert_eq!(heard.finds(b"MARKER"), 2);
        assert_eq!(heard.finds(b"odd"), 1);
        assert_eq!(heard.finds(b"marker"), 0);
        assert_eq!(heard.payload("10.77.0.1", "10.77.0.2"), 22);
        assert_eq!(heard.payload("10.77.0.2", "10.77.0.1"), 0);
    }
}
