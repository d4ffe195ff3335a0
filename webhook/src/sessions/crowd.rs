//! How many sessions one user has in a namespace, and how many may be.
//!
//! A sidecar serves so many sessions and no more ([`mirrord_protocol::limits::SESSIONS`]), and those that came first stay. So
//! that nobody takes all of that, each user has a share, which is kept twice. Admission refuses what exceeds it by what
//! this replica has seen stored: a clear answer, which a burst that is quicker than the watch gets around. What gets around
//! is stored and never announced: [`crate::boot::desired`] counts the stored Sessions themselves, oldest first, and all
//! replicas count alike.

use std::collections::HashMap;

use mirrord_session::Creator;

use super::denial::{Denial, DenialCode};

/// Sessions by namespace and user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crowd(HashMap<(String, String), usize>);

impl Crowd {
    /// One more; says how many they are with it.
    pub fn join(&mut self, namespace: &str, creator: &Creator) -> usize {
        let count = self.0.entry((namespace.to_owned(), creator.username.clone())).or_default();
        *count += 1;
        *count
    }

    /// Whether there is room for another one.
    ///
    /// # Errors
    /// [`DenialCode::TooMany`].
    pub fn room(&self, namespace: &str, creator: &Creator, most: usize) -> Result<(), Denial> {
        let user = &creator.username;
        let count = self.0.get(&(namespace.to_owned(), user.clone())).copied().unwrap_or_default();
        if count < most {
            return Ok(());
        }
        let message = format!(
            "user {user:?} has {count} sessions in namespace {namespace:?}, and may have {most}: end some (kubectl get \
             sessions -n {namespace}; kubectl delete session NAME -n {namespace}), or ask an admin for more (chart \
             value sessions.perUser)"
        );
        Err(Denial::new(DenialCode::TooMany, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_share_in_each_namespace() {
        let user = |name: &str| Creator { username: name.into(), uid: String::new() };
        let mut crowd = Crowd::default();
        assert_eq!([crowd.join("shop", &user("ann")), crowd.join("shop", &user("ann"))], [1, 2]);
        assert_eq!(crowd.room("shop", &user("ann"), 3), Ok(()));
        let denial = crowd.room("shop", &user("ann"), 2).unwrap_err();
        assert_eq!(denial.code, DenialCode::TooMany);
        for part in
            ["\"ann\" has 2 sessions", "namespace \"shop\"", "kubectl delete session", "sessions.perUser"]
        {
            assert!(denial.message.contains(part), "{denial}");
        }
        assert_eq!(crowd.room("shop", &user("bob"), 2), Ok(()), "another's");
        assert_eq!(crowd.room("office", &user("ann"), 2), Ok(()), "elsewhere");
    }
}
