//! The QUIC packet router: the only part of mirrord that is reachable from outside. It has no key of the tunnel, reads
//! of packets what anybody on the path can read, and its only right in the cluster is to list and watch Sessions.
//!
//! | module | what it does |
//! |---|---|
//! | [`router`] | decides on one datagram |
//! | [`routes`] | which routes exist, from the Sessions |
//! | [`flows`] | the bounded table of flows |
//! | [`reason`] | why datagrams are dropped, counted |
//! | [`forward`] | moves datagrams |
//! | [`socket`] | UDP sockets with offloads |
//! | [`gate`] | the folder with the gate keys |
//! | [`watch`] | follows the Sessions |
//! | [`held`] | keeps first packets that came before their route |
//! | [`health`] | what kubelet asks |
//! | [`metrics`] | what Prometheus asks |
//! | [`settings`] | what can be set |
//! | [`mod@run`] | puts the parts together |
#![forbid(unsafe_code)]

pub mod flows;
pub mod forward;
pub mod gate;
pub mod health;
pub mod held;
pub mod metrics;
pub mod reason;
pub mod router;
pub mod routes;
pub mod run;
pub mod settings;
pub mod socket;
pub mod watch;
