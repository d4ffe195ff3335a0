//! Fuzz targets: what takes bytes from elsewhere, each with an oracle that says what must hold for any bytes.
//!
//! Plain functions, so that `cargo test` plays the corpora through them without a fuzzer (`tests/replay.rs`). Under libFuzzer
//! they are run by the programs of `fuzz_targets`, see TESTING.md.
#![forbid(unsafe_code)]

mod bytes;
mod certificates;
mod configuration;
mod environment;
mod frames;
mod gate;
mod layer_conversation;
mod layer_settings;
mod messages;
mod packets;
mod paths;
mod pod_review;
mod programs;
mod router;
mod session_review;
mod words;

pub use self::{
    certificates::certificates, configuration::configuration, environment::environment, frames::frames,
    gate::gate, layer_conversation::layer_conversation, layer_settings::layer_settings, messages::messages,
    packets::packets, paths::paths, pod_review::pod_review, programs::programs, router::router,
    session_review::session_review, words::words,
};

/// A target's name, which is also that of its program and of its folders of inputs, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("certificates", certificates),
    ("configuration", configuration),
    ("environment", environment),
    ("frames", frames),
    ("gate", gate),
    ("layer_conversation", layer_conversation),
    ("layer_settings", layer_settings),
    ("messages", messages),
    ("packets", packets),
    ("paths", paths),
    ("pod_review", pod_review),
    ("programs", programs),
    ("router", router),
    ("session_review", session_review),
    ("words", words),
];
