//! What decides, inside a user's program, what is local and what is remote, and what talks to the proxy.
//!
//! No libc function is replaced here: a *front* (the preload library now, a seccomp supervisor later) catches the
//! program's calls and asks this crate. Nothing here calls a libc function that a front may have replaced: the
//! kernel is asked directly (see [`sys`]), so that a front never meets itself.
//!
//! | module | what it holds |
//! |---|---|
//! | [`settings`] | what `mirrord exec` tells the layer, in one environment variable |
//! | [`conversation`] | what layer and proxy say to each other (both ends use it) |
//! | [`listing`] | how a remote folder's entries lie in its descriptor (both ends use it) |
//! | [`program`] | which programs a preload front can enter, and the message for those it can't |
//! | [`sys`] | the kernel's calls that the layer itself makes |

pub mod conversation;
pub mod listing;
pub mod program;
pub mod settings;
pub mod sys;
