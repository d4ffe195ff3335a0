//! The control plane: puts sidecars into pods, decides who may open a session, tells sidecars which ones to serve.
//!
//! | module | what it does |
//! |---|---|
//! | [`injection`] | the mutating webhook on pods: pure, from a review's bytes to its answer's bytes |
#![forbid(unsafe_code)]

pub mod injection;
