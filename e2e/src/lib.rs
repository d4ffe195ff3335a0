//! What tests, demo and benchmarks on the real cluster share.
//!
//! | module | what it holds |
//! |---|---|
//! | [`measure`] | figures of a benchmark |
//! | [`relay`] | a cluster that is far away, to count round trips |
//! | [`creation`] | what the API server takes for a pod's creation |
//! | [`run`] | commands: run to their end within a time limit, and what became of them |
//! | [`cluster`] | the test cluster, as its admin sees it |
//! | [`goldens`] | pods of every kind, as they can stand in this cluster |
//! | [`namespace`] | a namespace of a test's own, with a sample workload |
//! | [`shop`] | the sample shop |
//! | [`snapshot`] | whether anything moved in a namespace |
//! | [`developer`] | somebody with `mirrord`, a kubeconfig and few rights |
//! | [`outage`] | takes parts away from everybody, and gives them back |
//! | [`scene`] | a workload at work while a developer uses it, watched from both sides |
//! | [`story`] | how the demo speaks |
//!
//! The cluster is asked through `kubectl`, as a user would: nothing here depends on the code under test. Everything
//! panics with the whole story when the cluster isn't as it must be, since only tests are built on it.
#![forbid(unsafe_code)]

pub mod cluster;
pub mod creation;
pub mod developer;
pub mod goldens;
pub mod measure;
pub mod namespace;
pub mod outage;
pub mod relay;
pub mod run;
pub mod scene;
pub mod shop;
pub mod snapshot;
pub mod story;
