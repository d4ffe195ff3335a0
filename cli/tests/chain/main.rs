//! The proxy and the command against a sidecar and an API server of the tests' own, which speak the real protocols
//! and fail when told to. What they can't show (the real sidecar, admission, RBAC) is shown in `e2e`.

mod api_server;
mod command;
mod conversation;
mod faults;
mod hostile;
mod in_place;
mod layer;
mod releases;
mod reports;
mod sidecar;
