//! Certificates, keys and gate tokens: issue, verify. No OpenSSL, no I/O, no clock: time comes in as an argument.
//!
//! | kind | issued by | key usage | name | proves |
//! |---|---|---|---|---|
//! | [`Authority`] | itself | keyCertSign | – ; may only sign the names below | – |
//! | [`Authority::supplied`] | a company's PKI, cert-manager | keyCertSign | – | – |
//! | serving | the authority | serverAuth | `*.svc` | the webhook to the API server |
//! | sidecar | the authority, from a CSR | serverAuth | `r<route>.sidecar.mirrord.dev` | a container's sidecar to clients |
//! | control plane | the authority | clientAuth | `boot.control.mirrord.dev` | the control plane to sidecars |
//! | [`SelfSigned`] | itself | – | – | nothing but its key: sessions, and sidecars before boot |
//!
//! One kind can't pass for another: the extended key usages differ, names of a kind lie below a domain of its own,
//! and verifiers ask for both.
#![forbid(unsafe_code)]

mod authority;
mod gate;
mod self_signed;
pub mod succession;
mod supply;
pub mod verify;

pub use authority::{Authority, AuthorityError, CONTROL_PLANE_NAME, Identity, request_key_hash};
pub use gate::{GATE_TOKEN_BYTES, GateError, GateKey, GateMaster};
pub use self_signed::{KEY_HASH_BYTES, KeyHash, SelfSigned, key_hash};
pub use supply::SupplyError;

/// A moment: seconds since 1970.
pub type UnixTime = u64;
