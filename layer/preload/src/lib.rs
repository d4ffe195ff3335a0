//! The preload front: libc functions replaced in the user's process, by symbol interposition (ld.so(8)).
//!
//! [`table`] names every function that is replaced, one row each. Behind a row is a shell of a few lines in one of the
//! modules below: it makes safe types of the call's pointers, asks [`mirrord_layer_brain`], and either returns its
//! answer or makes the program's original call. What isn't in the table isn't touched: read, write, mmap, poll, close
//! and dup work on real descriptors.
//!
//! | module | what it holds |
//! |---|---|
//! | [`table`] | the rows |
//! | [`hook`] | what a row is made of |
//! | [`front`] | the layer's start in a process, and how a shell asks it |
//! | [`files`] [`status`] [`folders`] | open, stat, readdir and their kin |
//! | [`changes`] | mkdir, unlink, rename, chmod and their kin |
//! | [`network`] [`names`] [`hosts`] | connect, getaddrinfo, gethostbyname and their kin |
//! | [`exec`] [`execl`] | execve, posix_spawn and their kin |
//! | [`direct`] | the same calls, made by number |
#![expect(unsafe_code, reason = "every function here is called by C, with C's pointers")]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "a shell and its original are one call of the program's: both rest on what the program promises of it"
)]

mod changes;
mod direct;
mod exec;
mod execl;
mod files;
mod folders;
mod front;
mod hook;
mod hosts;
mod names;
mod network;
mod status;
mod table;

use mirrord_layer_brain::sys::Heap;

/// Never the program's: see [`Heap`].
#[global_allocator]
static HEAP: Heap = Heap::new();
