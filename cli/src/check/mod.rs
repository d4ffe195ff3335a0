//! `mirrord check`: what an admin should know of an installation, as a list of findings, each with its fix.
//!
//! Objects are read once ([`read`]), pods are created in dry runs ([`dry_run`]), and pure functions judge what came of
//! it, with time as an argument. Nothing is changed, but with `--probe` a Session is made and removed.
//!
//! | module | what it judges |
//! |---|---|
//! | [`finding`] | – : what a finding is |
//! | [`found`], [`read`] | – : the objects, and how they are read |
//! | [`workload`], [`dry_run`] | – : pods as a workload would make them, and what the API server says to them |
//! | [`platform`] | Kubernetes, the resource Session, the chart's objects, versions |
//! | [`webhook`], [`authority`] | whether the API server reaches the webhook and trusts it |
//! | [`ingress`], [`probe`] | whether clients reach the ingress |
//! | [`opted_in`] | labels that mean nothing |
//! | [`injection`] | whether every opted-in workload can be injected |
//! | [`sidecars`] | pods without a sidecar, or with an old one |
//! | [`policies`] | NetworkPolicies that keep sessions from sidecars |
//! | [`process_namespace`] | what sharing processes means for workloads |
//! | [`rules`], [`subjects`] | RBAC: rules that grant nothing or more than thought, and subjects without half of what they need |

pub mod authority;
pub mod dry_run;
pub mod finding;
pub mod found;
pub mod ingress;
pub mod injection;
pub mod opted_in;
pub mod platform;
pub mod policies;
pub mod probe;
pub mod process_namespace;
pub mod read;
pub mod rules;
pub mod sidecars;
pub mod subjects;
pub mod webhook;
pub mod workload;
