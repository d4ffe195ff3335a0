//! What can be set, with its default and reason.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use mirrord_telemetry::log;

use crate::flows::Bounds;

/// Forwards QUIC packets of mirrord's clients to the sidecars of their Sessions.
#[derive(Clone, Debug, Parser)]
#[command(name = "mirrord-ingress", version)]
pub struct Settings {
    /// Where clients' packets arrive, UDP.
    #[arg(long, default_value = "[::]:4433")]
    pub listen: SocketAddr,
    /// Where /livez, /readyz and /metrics are answered, plain HTTP.
    #[arg(long, default_value = "[::]:8080")]
    pub health_listen: SocketAddr,
    /// Folder with the keys of gate tokens: `current`, and while they change `next` and `previous`; 32 bytes each.
    #[arg(long, default_value = "/etc/mirrord/gate")]
    pub gate_keys: PathBuf,
    /// How many flows (a client's address with a sidecar) may stand at once; each has a socket.
    #[arg(long, default_value_t = 16_384)]
    pub flows: usize,
    /// How many of them one IPv4 address or IPv6 /64 may have. Raise it where clients come through one NAT, or where
    /// the Service hides their addresses (externalTrafficPolicy: Cluster).
    #[arg(long, default_value_t = 2048)]
    pub flows_per_client: u32,
    /// How lines of the log look.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: log::Format,
}

/// Descriptors kept for everything that is no flow.
const OTHER_DESCRIPTORS: usize = 64;

impl Settings {
    /// The bounds of flows, given how many descriptors there may be.
    #[must_use]
    pub fn bounds(&self, descriptors: usize) -> Bounds {
        let total = self.flows.min(descriptors.saturating_sub(OTHER_DESCRIPTORS));
        if total < self.flows {
            tracing::warn!(
                asked = self.flows,
                granted = total,
                "fewer flows than set: the limit of open files is low"
            );
        }
        Bounds { total, per_client: self.flows_per_client }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_never_exceed_what_descriptors_allow() {
        let settings = Settings::parse_from(["mirrord-ingress"]);
        assert_eq!(settings.bounds(1_048_576).total, 16_384);
        assert_eq!(settings.bounds(1024).total, 960);
        assert_eq!(settings.bounds(10).total, 0);
    }
}
