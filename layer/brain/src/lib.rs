//! What decides, inside a user's program, what is local and what is remote, and what talks to the proxy.
//!
//! No libc function is replaced here: a *front* (the preload library now, a seccomp supervisor later) catches the
//! program's calls and asks this crate. Nothing here calls a libc function that a front may have replaced: the
//! kernel is asked directly (see [`sys`]), so that a front never meets itself.
//!
//! | module | what it holds |
//! |---|---|
//! | [`layer`] | the layer of one process, and what its operations answer |
//! | [`files`] [`network`] [`names`] [`exec`] | the operations |
//! | [`real_path`] | what realpath(3) gives where a path's parts are on both sides |
//! | [`rules`] | which paths are remote |
//! | [`descriptors`] | what the program's remote descriptors are |
//! | [`proxy`] | asks the proxy, over a connection per thread |
//! | [`streams`] | reading a remote folder entry by entry |
//! | [`paths`] | paths by their letters |
//! | [`settings`] | what `mirrord exec` tells the layer, in one environment variable |
//! | [`conversation`] | what layer and proxy say to each other (both ends use it) |
//! | [`listing`] | how a remote folder's entries lie in its descriptor (both ends use it) |
//! | [`program`] | which programs a preload front can enter, and the message for those it can't |
//! | [`text`] | text from elsewhere, as it may be shown on a terminal |
//! | [`sys`] | the kernel's calls that the layer itself makes |

pub mod conversation;
pub mod descriptors;
pub mod exec;
pub mod files;
pub mod layer;
pub mod listing;
pub mod names;
pub mod network;
pub mod paths;
pub mod program;
pub mod proxy;
pub mod real_path;
pub mod rules;
pub mod settings;
pub mod streams;
pub mod sys;
pub mod text;
