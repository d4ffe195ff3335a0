//! The proxy: a process of its own that holds the session and its tunnel, and serves the layers of programs.
//!
//! | module | what it holds |
//! |---|---|
//! | [`job`] | what a proxy is started for, and the name that follows from it |
//! | [`folder`] | where its sockets, log and lock lie |
//! | [`control`] | what commands and proxy say to each other |
//! | [`client`] | the commands' end: find a proxy or start one |
//! | [`detach`] | how it becomes nobody's child |
//! | [`run`] | its life: session, tunnel, environment, doors, end |
//! | [`holds`] | who still needs it, and for how long it lingers |
//! | [`door`] | the commands' door |
//! | [`layer`] | the layers' door: one conversation after another |
//! | [`files`] | remote files and folders as sealed descriptors |
//! | [`outgoing`] | connections through the pod |
//! | [`log`] | a log of bounded size |

pub mod client;
pub mod control;
pub mod detach;
pub mod door;
pub mod files;
pub mod folder;
pub mod holds;
pub mod job;
pub mod layer;
pub mod log;
pub mod outgoing;
pub mod run;
