//! The Kubernetes API server, as the user's kubeconfig reaches it. The identity in it is used here and nowhere else.
//!
//! | module | what it holds |
//! |---|---|
//! | [`access`] | kubeconfig, context, impersonation → a client |
//! | [`api`] | Sessions: create, renew, list, delete, and the dry run that lists targets |
//! | [`refusal`] | what the API server's errors mean, and the next step |
//! | [`server`] | the client with the name it is told by; how long it is waited for |

pub mod access;
pub mod api;
pub mod refusal;
pub mod server;
