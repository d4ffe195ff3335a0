//! The control plane: puts sidecars into pods, decides who may open a session, tells sidecars which ones to serve.
//!
//! | module | what it does |
//! |---|---|
//! | [`injection`] | the mutating webhook on pods: pure, from a review's bytes to its answer's bytes |
//! | [`sessions`] | the mutating webhook on Sessions: who may do what |
//! | [`boot`] | reads stored Sessions back and tells the sidecars |
//! | [`certificates`] | the installation's keys, the serving certificate, `caBundle` |
//! | [`server`] | HTTPS for the API server, health for the kubelet |
//! | [`limit_ranges`] | what injection knows of namespaces |
//! | [`events`] | what `kubectl describe` tells about sessions |
//! | [`metrics`] | all that is counted |
//! | [`self_test`] | what `helm test` runs |
//! | [`control_plane`], [`settings`] | how the parts are put together |
#![forbid(unsafe_code)]

pub mod boot;
pub mod certificates;
pub mod clock;
pub mod control_plane;
pub mod events;
pub mod injection;
pub mod limit_ranges;
pub mod metrics;
pub mod self_test;
pub mod server;
pub mod sessions;
pub mod settings;

mod back_off;
