//! System calls that no safe library wraps: the only unsafe code of this crate.
//!
//! | module | what it wraps |
//! |---|---|
//! | [`lookup`] | getaddrinfo(3) |
//! | [`process`] | prctl(2), fork(2), a socket option |
//! | [`signals`] | signalfd(2) |
#![expect(unsafe_code, reason = "each module wraps system calls in safe functions")]

pub(crate) mod lookup;
pub(crate) mod process;
pub(crate) mod signals;
