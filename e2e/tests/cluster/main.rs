//! The whole chain on a real Kubernetes, as its users see it. `make test` deploys to the cluster first.
//!
//! | module | what it proves |
//! |---|---|
//! | [`exec`] | a command has the pod's environment, files, names and connections, and is otherwise itself |
//! | [`injection`] | every kind of pod is admitted as without us, starts, and lends what it has |
//! | [`pods`] | whose view sessions have, and which pods have no sidecar, as admins decide and developers read |
//! | [`refusals`] | who asks for what isn't there or isn't theirs gets a sentence that helps |
//! | [`faults`] | every part may die: what happens then is soon, clear and never worse than without us |
//! | [`forgery`] | answers of the webhook are no authority |
//! | [`hostile`] | the application beside a twin, and other users of a developer's machine, get nothing of it |
//! | [`neighbours`] | other users of the cluster get nothing of a session |
//! | [`rights`] | what our ServiceAccounts may do, all of it |
//! | [`observability`] | metrics, Events and audit lines of a session, and nothing of people in labels |
//! | [`chart`] | the chart is well-formed, refuses unknown values, and passes its own test |
//! | [`check`] | an admin is told what is wrong, with the line that mends it |
//! | [`network_policies`] | the chart's policies cut what they don't list, and an opted-in namespace may deny the rest |
#![forbid(unsafe_code)]

mod chart;
mod check;
mod exec;
mod faults;
mod forgery;
mod hostile;
mod injection;
mod neighbours;
mod network_policies;
mod observability;
mod pods;
mod refusals;
mod rights;
