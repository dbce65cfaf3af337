//! What connections may cost before anybody is known: a rate, for each address and for all.
//!
//! Invariant: pure table plus a thin behaviour; bounded in memory. One flooding machine uses up its own share, so members
//! on other machines still get in. Refused connections are dropped before any encryption. The machine itself has no
//! share of its own: many nodes may run there. Callers: behaviour.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Instant;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    dummy,
};
use libp2p::{Multiaddr, PeerId};

use super::key::is_relayed;
use super::rate::{Rate, TooMany, Used};

const PER_ADDRESS: Rate = Rate { burst: 10, interval_ms: 200 };
const ALL: Rate = Rate { burst: 20, interval_ms: 50 };
/// Connections of one address that have not passed the gate yet.
const PENDING_PER_ADDRESS_MAX: usize = 4;
const ADDRESSES_MAX: usize = 256;

/// Attempts of late, by address.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    all: Used,
    by_address: BTreeMap<IpAddr, Used>,
    pending: BTreeMap<ConnectionId, IpAddr>,
}

impl Attempts {
    fn begin(&mut self, connection: ConnectionId, address: IpAddr, now_ms: u64) -> Result<(), TooMany> {
        if !address.is_loopback() {
            if self.pending.values().filter(|pending| **pending == address).count() >= PENDING_PER_ADDRESS_MAX {
                return Err(TooMany);
            }
            if self.by_address.len() >= ADDRESSES_MAX && !self.by_address.contains_key(&address) {
                self.by_address.retain(|_, used| !used.is_idle(now_ms));
            }
            // So many addresses at once are a flood: the common rate bounds it.
            if self.by_address.len() < ADDRESSES_MAX || self.by_address.contains_key(&address) {
                self.by_address.entry(address).or_default().take(PER_ADDRESS, now_ms)?;
            }
            self.all.take(ALL, now_ms)?;
        }
        self.pending.insert(connection, address);
        Ok(())
    }

    fn end(&mut self, connection: ConnectionId) {
        self.pending.remove(&connection);
    }
}

/// [`Attempts`] as a behaviour of the swarm.
#[derive(Debug)]
pub(crate) struct Behaviour {
    attempts: Attempts,
    started: Instant,
}

impl Behaviour {
    pub(crate) fn new() -> Behaviour {
        Behaviour { attempts: Attempts::default(), started: Instant::now() }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let now_ms = self.started.elapsed().as_millis() as u64;
        // Over a relay, which is a member: it has no address of its own, and counts among all.
        if is_relayed(local) {
            return self.attempts.all.take(ALL, now_ms).map_err(ConnectionDenied::new);
        }
        let address = match remote.iter().next() {
            Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
            Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
            _ => return Err(ConnectionDenied::new(TooMany)),
        };
        self.attempts.begin(connection, address, now_ms).map_err(ConnectionDenied::new)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        _peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.attempts.end(connection);
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        _peer: PeerId,
        _address: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ListenFailure(failure) = event {
            self.attempts.end(failure.connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, never: THandlerOutEvent<Self>) {
        match never {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from(0x0a00_0000 + number))
    }

    /// How many of `tries` attempts in one second get in, each refused by the gate at once.
    fn admitted(attempts: &mut Attempts, tries: u64, from: impl Fn(u64) -> IpAddr, start_ms: u64) -> usize {
        let try_one = |number: &u64| {
            let connection = ConnectionId::new_unchecked(*number as usize);
            let result = attempts.begin(connection, from(*number), start_ms + number * 1000 / tries);
            attempts.end(connection);
            result.is_ok()
        };
        (0..tries).filter(try_one).count()
    }

    #[test]
    fn one_flooding_machine_uses_up_its_own_share_only() {
        let mut attempts = Attempts::default();
        let flood = admitted(&mut attempts, 5000, |_| address(1), 0);
        assert!((10..=16).contains(&flood), "{flood}");
        assert!(attempts.begin(ConnectionId::new_unchecked(1), address(2), 1000).is_ok(), "others still get in");
        assert!(attempts.begin(ConnectionId::new_unchecked(2), address(1), 4000).is_ok(), "and so does it, later");
    }

    #[test]
    fn a_flood_from_everywhere_is_bounded_in_rate_and_memory() {
        let mut attempts = Attempts::default();
        let flood = admitted(&mut attempts, 5000, |number| address(number as u32), 0);
        assert!((20..=40).contains(&flood), "{flood} handshakes in the first second");
        assert!(attempts.by_address.len() <= ADDRESSES_MAX);
        admitted(&mut attempts, 5000, |number| address(number as u32), 60_000);
        assert!(attempts.by_address.len() <= ADDRESSES_MAX);
    }

    #[test]
    fn slow_strangers_hold_few_places_and_the_machine_itself_is_free() {
        let mut attempts = Attempts::default();
        let hold = |attempts: &mut Attempts, number, from| attempts.begin(ConnectionId::new_unchecked(number), from, 0);
        for number in 0..PENDING_PER_ADDRESS_MAX {
            assert_eq!(hold(&mut attempts, number, address(1)), Ok(()));
        }
        assert_eq!(hold(&mut attempts, 90, address(1)), Err(TooMany));
        assert_eq!(hold(&mut attempts, 91, address(2)), Ok(()));
        attempts.end(ConnectionId::new_unchecked(0));
        assert_eq!(hold(&mut attempts, 92, address(1)), Ok(()));
        for number in 100..200 {
            assert_eq!(hold(&mut attempts, number, IpAddr::from([127, 0, 0, 1])), Ok(()));
        }
    }
}
