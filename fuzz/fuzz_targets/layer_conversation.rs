//! See `src/layer_conversation.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirrord_fuzz::layer_conversation(data));
