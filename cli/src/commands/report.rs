//! What a workload's sidecars can't do, in sentences with the line that changes it.

use mirrord_protocol::{
    control::{Obstacle, View},
    feature::Feature,
};
use mirrord_session::{Target, restart_line};

/// How many pods are named; the others are counted.
const NAMED: usize = 3;

/// How many of the running pods of a target have a sidecar.
#[derive(Clone, Copy, Debug)]
pub struct Coverage {
    /// That run.
    pub running: u32,
    /// That have one.
    pub injected: u32,
}

impl Coverage {
    /// What to say where only some have one: mostly the others are older than the webhook. (Where none has, the control
    /// plane says why.)
    #[must_use]
    pub fn sentence(self, target: &str, namespace: &str, without: &[String]) -> Option<String> {
        let missing = self.running.checked_sub(self.injected).filter(|missing| *missing > 0)?;
        if self.injected == 0 {
            return None;
        }
        let mut names = without.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let unnamed = usize::try_from(missing).unwrap_or(usize::MAX).saturating_sub(without.len().min(NAMED));
        if unnamed > 0 {
            names = format!("{names} and {unnamed} more");
        }
        let mends = target
            .parse()
            .ok()
            .and_then(|Target { kind, name, .. }| restart_line(kind, &name, namespace))
            .map_or_else(
                || "recreate them to give them one".to_owned(),
                |line| format!("to give them one: {line}"),
            );
        Some(format!("{missing} of {} pods of {target} have no sidecar ({names}); {mends}", self.running))
    }
}

/// What a session may do; what was wished for and withheld is told as well, as an error in mid-work would tell it too late.
#[must_use]
pub fn features(granted: &[String], wished: &[Feature]) -> String {
    let withheld = |feature: &&Feature| !granted.iter().any(|verb| verb == feature.verb());
    let without: Vec<&str> = wished.iter().filter(withheld).map(|feature| feature.verb()).collect();
    match without.as_slice() {
        [] => granted.join(", "),
        without => format!("{}; not granted: {}", granted.join(", "), without.join(", ")),
    }
}

/// What to say where environment and files aren't the running application's.
#[must_use]
pub fn sight(view: View, obstacle: Option<Obstacle>, container: &str) -> Option<String> {
    if view != View::Twin {
        return None;
    }
    let (why, change) = match obstacle {
        Some(Obstacle::Isolated) => (
            "the pod's containers don't share their processes".to_owned(),
            "the pod template's annotation mirrord.dev/process-namespace: shared changes that, except beside hostPID"
                .to_owned(),
        ),
        Some(Obstacle::NoProcess) => (
            format!("no program of container {container} was found"),
            "it is looked for again at each request".to_owned(),
        ),
        Some(Obstacle::User) => (
            "the program runs as another user than its container starts with".to_owned(),
            format!("securityContext.runAsUser of container {container}, set to that user, changes that"),
        ),
        Some(Obstacle::Group) => (
            "the program runs as another group than its container starts with".to_owned(),
            format!("securityContext.runAsGroup of container {container}, set to that group, changes that"),
        ),
        Some(Obstacle::Capabilities) => (
            "the program has capabilities, and the sidecar has none".to_owned(),
            format!("securityContext.capabilities.drop: [ALL] of container {container} changes that"),
        ),
        Some(Obstacle::Shielded) => (
            "the program shields its memory, as those do that change their user while they run".to_owned(),
            format!(
                "securityContext.runAsUser of container {container}, set to its last user, may change that"
            ),
        ),
        Some(Obstacle::Overwritten) => (
            "the program has written its title over its environment".to_owned(),
            "nothing in the pod's specification changes that".to_owned(),
        ),
        Some(Obstacle::Unknown) | None => (
            "the sidecar is of another release and doesn't say why".to_owned(),
            "pods that are created anew get the present one".to_owned(),
        ),
    };
    Some(format!("environment and files are those that the container starts with, for {why}; {change}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partial(running: u32, injected: u32, target: &str, without: &[&str]) -> Option<String> {
        let without: Vec<String> = without.iter().map(ToString::to_string).collect();
        Coverage { running, injected }.sentence(target, "shop", &without)
    }

    #[test]
    fn a_workload_of_which_some_pods_are_older_gets_its_restart_line() {
        assert_eq!(
            partial(2, 1, "deployment/checkout", &["checkout-a"]).unwrap(),
            "1 of 2 pods of deployment/checkout have no sidecar (checkout-a); to give them one: kubectl rollout \
             restart deployment/checkout -n shop"
        );
        let many = partial(70, 2, "statefulset/db", &["db-0", "db-1", "db-2", "db-3"]).unwrap();
        assert!(many.contains("68 of 70") && many.contains("(db-0, db-1, db-2 and 65 more)"), "{many}");
        let job = partial(2, 1, "job/nightly", &["nightly-a"]).unwrap();
        assert!(job.ends_with("recreate them to give them one"), "{job}");
    }

    #[test]
    fn nothing_is_said_where_all_or_none_have_one_or_nobody_counted() {
        for (running, injected) in [(2, 2), (2, 0), (0, 0)] {
            assert_eq!(partial(running, injected, "deployment/checkout", &["a"]), None);
        }
    }

    #[test]
    fn each_obstacle_comes_with_what_an_admin_would_change() {
        for (obstacle, word) in [
            (Some(Obstacle::Isolated), "mirrord.dev/process-namespace: shared"),
            (Some(Obstacle::NoProcess), "at each request"),
            (Some(Obstacle::User), "securityContext.runAsUser of container app"),
            (Some(Obstacle::Group), "securityContext.runAsGroup of container app"),
            (Some(Obstacle::Capabilities), "capabilities.drop: [ALL] of container app"),
            (Some(Obstacle::Shielded), "securityContext.runAsUser of container app"),
            (Some(Obstacle::Overwritten), "nothing in the pod's specification"),
            (None, "another release"),
        ] {
            let sentence = sight(View::Twin, obstacle, "app").unwrap();
            assert!(sentence.contains(word) && !sentence.contains('\n'), "{sentence}");
        }
        assert_eq!(sight(View::Live, None, "app"), None);
    }
}
