//! See `src/pod_review.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mirrord_fuzz::pod_review(data));
