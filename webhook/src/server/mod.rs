//! The HTTPS server that the API server calls, and the plain one that the kubelet asks about health.
//!
//! | module | what it does |
//! |---|---|
//! | [`routes`] | `POST /inject`, `POST /sessions`: a fault on the pods' path never denies |
//! | [`https`] | TLS and HTTP/1.1 or HTTP/2 on each connection, bounded in number and time |
//! | [`health`] | `/livez`, `/readyz` |

pub mod health;
pub mod https;
pub mod routes;
