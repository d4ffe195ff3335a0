//! What to tell users who ask for what isn't there, with the line that mends it.

use mirrord_session::{INJECT_LABEL, restart_line};

use super::{
    denial::{Denial, DenialCode},
    lookup::Workload,
    sidecars::WhyNone,
};

/// Names this similar are worth suggesting.
const SIMILAR: f64 = 0.75;
/// How many suggestions help.
const SUGGESTIONS: usize = 3;

/// Nothing can serve. `labelled` says whether the namespace opted in, where that is known.
#[must_use]
pub fn nothing_serves(why: &WhyNone, workload: &Workload, namespace: &str, labelled: Option<bool>) -> Denial {
    let (code, message) = match why {
        WhyNone::NothingRuns => {
            (DenialCode::NoSidecar, format!("no pod of {workload} runs in namespace \"{namespace}\""))
        }
        WhyNone::NotStarted => (
            DenialCode::NoSidecar,
            format!("the mirrord sidecars of {workload} have not started yet: try again in a moment"),
        ),
        WhyNone::NoSidecar { opted_out: true } => (
            DenialCode::NoSidecar,
            format!(
                "the pods of {workload} opt out: remove the label {INJECT_LABEL}=disabled from its pod template"
            ),
        ),
        WhyNone::NoSidecar { opted_out: false } if labelled != Some(false) => (
            DenialCode::NoSidecar,
            format!(
                "no pod of {workload} has a mirrord sidecar: they are older than the namespace's label, or were \
                 created while mirrord's webhook could not serve. {}",
                restart(workload, namespace)
            ),
        ),
        WhyNone::NoSidecar { opted_out: false } => (
            DenialCode::NoSidecar,
            format!(
                "no pod of {workload} has a mirrord sidecar: namespace \"{namespace}\" has no label \
                 {INJECT_LABEL}=enabled. Label it once: kubectl label namespace {namespace} {INJECT_LABEL}=enabled. \
                 Then {}",
                restart(workload, namespace)
            ),
        ),
        WhyNone::OtherContainers(with) => (
            DenialCode::NoSidecar,
            format!(
                "that container of {workload} has no mirrord sidecar; these have one: {}. The annotation {} on its \
                 pod template chooses",
                with.join(", "),
                mirrord_session::CONTAINERS_ANNOTATION
            ),
        ),
        WhyNone::NoSuchContainer(all) => (
            DenialCode::NotFound,
            format!("{workload} has no container of that name, but these: {}", all.join(", ")),
        ),
    };
    Denial::new(code, message)
}

/// All that runs trusts another authority than this installation's.
#[must_use]
pub fn strangers(workload: &Workload, namespace: &str) -> Denial {
    let message = format!(
        "the mirrord sidecars of {workload} trust another certificate authority than this installation's, which was made anew \
         after they had started (its Secret mirrord-ca was deleted, or mirrord was installed elsewhere). Their pods run on \
         unharmed; to use them with mirrord, {}",
        restart(workload, namespace)
    );
    Denial::new(DenialCode::NoSidecar, message)
}

fn restart(workload: &Workload, namespace: &str) -> String {
    restart_line(workload.kind, &workload.name, namespace)
        .map_or_else(|| "recreate its pods once".to_owned(), |line| format!("restart it once: {line}"))
}

/// No such target.
#[must_use]
pub fn not_found(wanted: &Workload, namespace: &str, near: &[Workload]) -> Denial {
    let mut message = format!("there is no {wanted} in namespace \"{namespace}\"");
    if !near.is_empty() {
        let near: Vec<String> = near.iter().map(ToString::to_string).collect();
        message += &format!("; did you mean {}?", near.join(" or "));
    }
    Denial::new(DenialCode::NotFound, message)
}

/// Of the workloads that are there, those whose names are near to what was typed, nearest first.
#[must_use]
pub fn near(wanted: &Workload, there: impl IntoIterator<Item = Workload>) -> Vec<Workload> {
    let similarity = |workload: &Workload| strsim::jaro_winkler(&workload.name, &wanted.name);
    let mut near: Vec<(f64, Workload)> = there
        .into_iter()
        .map(|workload| (similarity(&workload), workload))
        .filter(|(similarity, _)| *similarity >= SIMILAR)
        .collect();
    near.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    near.into_iter().map(|(_, workload)| workload).take(SUGGESTIONS).collect()
}

#[cfg(test)]
mod tests {
    use mirrord_session::TargetKind;

    use super::*;

    fn deployment(name: &str) -> Workload {
        Workload { kind: TargetKind::Deployment, name: name.into() }
    }

    #[test]
    fn the_line_that_mends_it_can_be_pasted() {
        let why = WhyNone::NoSidecar { opted_out: false };
        let denial = nothing_serves(&why, &deployment("checkout"), "shop", Some(true));
        assert_eq!(denial.code, DenialCode::NoSidecar);
        assert!(denial.message.contains("kubectl rollout restart deployment/checkout -n shop"), "{denial}");
        let denial = nothing_serves(&why, &deployment("checkout"), "shop", Some(false));
        assert!(
            denial.message.contains("kubectl label namespace shop mirrord.dev/inject=enabled"),
            "{denial}"
        );
    }

    #[test]
    fn sidecars_of_another_authority_are_named_with_the_line_that_mends_them() {
        let denial = strangers(&deployment("checkout"), "shop");
        assert_eq!(denial.code, DenialCode::NoSidecar);
        assert!(denial.message.contains("another certificate authority"), "{denial}");
        assert!(denial.message.ends_with("kubectl rollout restart deployment/checkout -n shop"), "{denial}");
    }

    #[test]
    fn a_slip_of_the_finger_is_answered_with_what_was_meant() {
        let there = ["payment", "checkout", "checkout-worker"].map(deployment);
        let near = near(&deployment("chekout"), there);
        assert_eq!(near[0], deployment("checkout"));
        assert!(!near.contains(&deployment("payment")));
        assert!(
            not_found(&deployment("chekout"), "shop", &near)
                .message
                .contains("did you mean deployment/checkout")
        );
    }
}
