//! Why datagrams are dropped: a closed set, counted.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// Why a datagram was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// In logs and metrics.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

reasons! {
    /// No QUIC packet.
    NotQuic = "not-quic",
    /// Its connection id is none of ours.
    ForeignId = "foreign-id",
    /// A boot connection: the control plane dials sidecars directly, nobody does so from outside.
    Boot = "boot",
    /// No session names the route.
    UnknownRoute = "unknown-route",
    /// An Initial without anything that looks like a gate token.
    NoToken = "no-token",
    /// A gate token of another route.
    TokenOfOtherRoute = "token-of-other-route",
    /// A gate token whose time is over.
    TokenExpired = "token-expired",
    /// A gate token by a key that isn't ours.
    TokenForged = "token-forged",
    /// A kind of packet that can't open a flow: a handshake's, or one of another QUIC version.
    NoFlow = "no-flow",
    /// All flows are taken.
    Full = "full",
    /// All flows of this client's network are taken.
    ClientFull = "client-full",
    /// All flows of this route are taken.
    RouteFull = "route-full",
    /// All flows for packets without a token are taken.
    UnvouchedFull = "unvouched-full",
    /// No socket towards the sidecar could be opened.
    NoSocket = "no-socket",
    /// The kernel didn't take it: a full send buffer.
    Congested = "congested",
    /// The kernel didn't take it: no way there, or too large for the network.
    Unsendable = "unsendable",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How much was forwarded and dropped since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Flows opened.
    pub flows_opened: AtomicU64,
    /// Flows that stand now.
    pub flows: AtomicU64,
    /// Bytes from clients to sidecars.
    pub bytes_in: AtomicU64,
    /// Bytes from sidecars to clients.
    pub bytes_out: AtomicU64,
    /// Routes that stand now.
    pub routes: AtomicU64,
    /// Sessions that are known now.
    pub sessions: AtomicU64,
    /// Keys that gate tokens are checked with now.
    pub gate_keys: AtomicU64,
    dropped: [AtomicU64; Reason::ALL.len()],
}

impl Counters {
    /// Counts datagrams dropped; returns whether this is a time to speak of it in the log: the first, the second, the
    /// fourth … so that no flood of packets becomes a flood of lines.
    pub fn count(&self, reason: Reason, datagrams: u64) -> bool {
        let before = self.dropped[reason as usize].fetch_add(datagrams, Relaxed);
        (before + datagrams).checked_ilog2() != before.checked_ilog2()
    }

    /// How many datagrams were dropped for a reason.
    #[must_use]
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.dropped[reason as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_hears_of_drops_at_powers_of_two() {
        let counters = Counters::default();
        let heard: Vec<u64> = (1..=20).filter(|_| counters.count(Reason::NoToken, 1)).collect();
        assert_eq!(heard, [1, 2, 4, 8, 16]);
        assert_eq!(counters.dropped(Reason::NoToken), 20);
        assert!(Reason::ALL.iter().all(|&reason| reason == Reason::NoToken || counters.dropped(reason) == 0));
    }

    #[test]
    fn every_reason_counts_for_itself() {
        for (place, &reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, place);
            assert!(Reason::ALL[..place].iter().all(|other| other.word() != reason.word()));
        }
    }
}
