//! The whole chain on a real Kubernetes, as its users see it. `make test` deploys to the cluster first.
//!
//! | module | what it proves |
//! |---|---|
//! | [`exec`] | a command has the pod's environment, files, names and connections, and is otherwise itself |
//! | [`injection`] | the commonest kinds of pods are admitted and start with their sidecar |
//! | [`refusals`] | who asks for what isn't there or isn't theirs gets a sentence that helps |
//! | [`faults`] | every part may die: what happens then is soon, clear and never worse than without us |
//! | [`forgery`] | answers of the webhook are no authority |
//! | [`rights`] | what our ServiceAccounts may do, all of it |
//! | [`chart`] | the chart is well-formed, refuses unknown values, and passes its own test |
//! | [`check`] | an admin is told what is wrong, with the line that mends it |
//! | [`network_policies`] | the chart's policies cut what they don't list, and an opted-in namespace may deny the rest |
#![forbid(unsafe_code)]

mod chart;
mod check;
mod exec;
mod faults;
mod forgery;
mod injection;
mod network_policies;
mod refusals;
mod rights;
