//! The installation's keys and the webhook's own certificate.
//!
//! | module | what it does |
//! |---|---|
//! | [`secrets`] | fills the two Secrets, or reads what another replica put there |
//! | [`keys`] | what they hold, as it is now |
//! | [`rotation`] | when keys are replaced, and by what: pure |
//! | [`keep`] | follows the Secrets and rotates when it is time |
//! | [`serving`] | this replica's serving certificate: issued from the authority, renewed while it serves |
//! | [`bundle`] | writes the authority into `caBundle` of our webhooks, and puts it back when others change it |

pub mod bundle;
pub mod keep;
pub mod keys;
pub mod rotation;
pub mod secrets;
pub mod serving;
