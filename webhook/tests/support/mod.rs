//! What the control plane talks to, played in this process over real sockets: an API server and sidecars.
#![expect(dead_code, reason = "each test file uses its part")]

pub(crate) mod api_server;
pub(crate) mod plane;
pub(crate) mod recorded;
pub(crate) mod twin;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Now, in seconds since 1970.
pub(crate) fn now() -> u64 {
    mirrord_webhook::clock::now()
}
