//! See `src/session_review.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirrord_fuzz::session_review(data));
