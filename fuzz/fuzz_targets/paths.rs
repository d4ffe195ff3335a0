//! See `src/paths/mod.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirrord_fuzz::paths(data));
