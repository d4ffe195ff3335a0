//! Real programs under the layer, against a proxy that serves a folder of this machine as "the pod".
//!
//! Each test has a proxy, a remote root and a home of its own, and runs the programs that developers run. Where it can,
//! a test compares with the same program run natively on the folder itself.
#![expect(unsafe_code, reason = "the table's test loads the library into itself, by dlopen(3)")]

mod descriptors;
mod exec;
mod files;
mod network;
mod proxy;
mod rows;
mod world;
