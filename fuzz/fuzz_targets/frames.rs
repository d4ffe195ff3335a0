//! See `src/frames.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirrord_fuzz::frames(data));
