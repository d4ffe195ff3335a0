//! The HTTPS server that the API server calls, and the plain one that the kubelet asks about health.
//!
//! | module | what it does |
//! |---|---|
//! | [`routes`] | `POST /inject/KEY`, `POST /sessions/KEY`: a fault on the pods' path never denies |
//! | [`intake`] | bodies, within a time and a budget of memory |
//! | [`https`] | TLS and HTTP/1.1 or HTTP/2 on each connection, bounded in time |
//! | [`connections`] | how many connections there may be, and who leaves for whom |
//! | [`health`] | `/livez`, `/readyz`, `/metrics` |

pub mod connections;
pub mod health;
pub mod https;
pub mod intake;
pub mod routes;
