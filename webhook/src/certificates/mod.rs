//! The installation's keys and the webhook's own certificate.
//!
//! | module | what it does |
//! |---|---|
//! | [`secrets`] | fills the two Secrets once, or reads what another replica put there |
//! | [`serving`] | this replica's serving certificate: issued from the authority, renewed while it serves |
//! | [`bundle`] | writes the authority into `caBundle` of our webhooks, and puts it back when others change it |

pub mod bundle;
pub mod secrets;
pub mod serving;
