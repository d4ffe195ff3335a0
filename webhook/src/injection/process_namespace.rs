//! Whether the containers of a pod share their process namespace.
//!
//! Sharing gives sessions the live view (variables that an entrypoint exports, files written at run time) and
//! hand-over of incoming traffic. It changes one thing for the application: it is no longer PID 1. So `auto` shares
//! except where that is known to hurt, and the annotation `mirrord.dev/process-namespace` has the last word.

use super::{
    pod::{Container, Pod},
    status::ProcessNamespace,
};

/// What was decided and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// What the sidecars are told.
    pub namespace: ProcessNamespace,
    /// Which rule decided.
    pub why: Why,
    /// Whether the pod's specification has to be changed.
    pub(super) add_field: bool,
    /// Whether the annotation holds something else than `auto`, `shared` or `isolated`.
    pub(super) unknown_mode: bool,
}

/// Which rule decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing speaks against sharing.
    Default,
    /// The annotation says so.
    Annotation,
    /// The pod's own `shareProcessNamespace` says so.
    PodSpec,
    /// Kubernetes refuses sharing beside `hostPID`, and the node's processes are not the application's.
    HostPid,
    /// Stateful applications keep pid files and are signalled by pid.
    StatefulSet,
    /// A container starts an init system, which has to be PID 1.
    InitSystem,
}

impl Why {
    /// For Events, `mirrord check` and logs.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Default => "sharing is the default; the application is not PID 1",
            Self::Annotation => "the annotation mirrord.dev/process-namespace says so",
            Self::PodSpec => "the pod's shareProcessNamespace says so",
            Self::HostPid => "hostPID excludes a shared process namespace",
            Self::StatefulSet => "pods of StatefulSets are not shared by default",
            Self::InitSystem => "an init system of the pod has to be PID 1",
        }
    }
}

/// Decides for one pod.
pub(super) fn decide(pod: &Pod<'_>) -> Sharing {
    let mode = pod.annotation(|annotations| &annotations.process_namespace);
    let field = pod.spec.share_process_namespace;
    let (shared, why) = match (mode, field) {
        _ if pod.spec.host_pid => (false, Why::HostPid),
        (Some("shared"), _) => (true, Why::Annotation),
        (Some("isolated"), _) => (false, Why::Annotation),
        (_, Some(shared)) => (shared, Why::PodSpec),
        (_, None) => default(pod),
    };
    Sharing {
        namespace: if shared { ProcessNamespace::Shared } else { ProcessNamespace::Isolated },
        why,
        add_field: shared && field != Some(true),
        unknown_mode: mode.is_some_and(|mode| !["auto", "shared", "isolated"].contains(&mode)),
    }
}

fn default(pod: &Pod<'_>) -> (bool, Why) {
    if pod.metadata.owner_references.iter().any(|owner| *owner.kind == *"StatefulSet") {
        (false, Why::StatefulSet)
    } else if pod.all_containers().any(starts_init_system) {
        (false, Why::InitSystem)
    } else {
        (true, Why::Default)
    }
}

/// Programs that refuse to run as anything but PID 1, by base name.
const INIT_PROGRAMS: [&str; 6] =
    ["systemd", "s6-svscan", "s6-overlay-suexec", "runit-init", "openrc-init", "s6-linux-init"];
/// The same, by path: `init` alone is too common a name.
const INIT_PATHS: [&str; 5] =
    ["/init", "/sbin/init", "/usr/sbin/init", "/bin/init", "/usr/lib/systemd/systemd"];
/// Publishers whose images have such an entrypoint (s6-overlay's `/init`), which the pod doesn't show.
const INIT_IMAGES: [&str; 2] = ["linuxserver/", "home-assistant/"];
/// Programs that start another one, named after their options. (tini and its kind are content not to be PID 1.)
const WRAPPERS: [&str; 9] =
    ["sh", "bash", "ash", "dash", "env", "tini", "dumb-init", "catatonit", "docker-init"];

fn starts_init_system(container: &Container<'_>) -> bool {
    let image = container.image.as_deref().unwrap_or_default();
    if container.command.is_empty() && INIT_IMAGES.iter().any(|publisher| image_is_by(image, publisher)) {
        return true;
    }
    started_program(container)
        .is_some_and(|program| INIT_PROGRAMS.contains(&base_name(program)) || INIT_PATHS.contains(&program))
}

/// The program that a container's words start, as far as they tell: past shells, `exec` and options.
fn started_program<'p>(container: &'p Container<'_>) -> Option<&'p str> {
    let words = container.command.iter().chain(&container.args);
    let mut words = words.flat_map(|word| word.split_ascii_whitespace());
    words.find(|word| {
        let passes_on = *word == "exec" || WRAPPERS.contains(&base_name(word));
        // Options, and the assignments that env(1) and shells take.
        let is_option = word.starts_with('-') || word.contains('=');
        !passes_on && !is_option
    })
}

fn image_is_by(image: &str, publisher: &str) -> bool {
    image.find(publisher).is_some_and(|at| at == 0 || image[..at].ends_with('/'))
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;

    fn decided(pod: &Value) -> Sharing {
        decide(&Pod::read(&to_raw_value(pod).unwrap()).unwrap())
    }

    fn with_command(command: &[&str]) -> Value {
        json!({"metadata": {}, "spec": {"containers": [{"name": "app", "image": "shop/app", "command": command}]}})
    }

    #[test]
    fn an_ordinary_pod_is_shared_by_a_field() {
        let sharing = decided(&with_command(&[]));
        assert!(sharing.namespace == ProcessNamespace::Shared && sharing.add_field);
    }

    #[test]
    fn the_annotation_has_the_last_word_except_beside_host_pid() {
        for (mode, field, host_pid, namespace, add_field) in [
            ("shared", json!(false), false, ProcessNamespace::Shared, true),
            ("shared", json!(true), false, ProcessNamespace::Shared, false),
            ("isolated", json!(true), false, ProcessNamespace::Isolated, false),
            ("isolated", json!(null), false, ProcessNamespace::Isolated, false),
            ("auto", json!(false), false, ProcessNamespace::Isolated, false),
            ("auto", json!(true), false, ProcessNamespace::Shared, false),
            ("shared", json!(null), true, ProcessNamespace::Isolated, false),
        ] {
            let sharing = decided(&json!({
                "metadata": {"annotations": {"mirrord.dev/process-namespace": mode}},
                "spec": {"shareProcessNamespace": field, "hostPID": host_pid, "containers": [{"name": "app"}]},
            }));
            assert_eq!(
                (sharing.namespace, sharing.add_field),
                (namespace, add_field),
                "{mode} {field} {host_pid}"
            );
        }
    }

    #[test]
    fn an_unknown_mode_counts_as_auto_and_is_told() {
        let sharing =
            decided(&json!({"metadata": {"annotations": {"mirrord.dev/process-namespace": "yes"}}}));
        assert!(sharing.namespace == ProcessNamespace::Shared && sharing.unknown_mode);
    }

    #[test]
    fn pods_of_stateful_sets_are_isolated() {
        let owned = json!({"metadata": {"ownerReferences": [{"kind": "StatefulSet", "name": "db"}]}});
        assert_eq!(decided(&owned).why, Why::StatefulSet);
    }

    #[test]
    fn init_systems_stay_pid_1() {
        for command in [
            &["/init"][..],
            &["/sbin/init"],
            &["/lib/systemd/systemd", "--system"],
            &["s6-svscan", "/etc/services"],
            &["sh", "-c", "exec /init"],
            &["/usr/bin/env", "LANG=C", "/sbin/init"],
        ] {
            assert_eq!(decided(&with_command(command)).why, Why::InitSystem, "{command:?}");
        }
        let image = json!({"metadata": {}, "spec": {"containers": [{"name": "a", "image": "lscr.io/linuxserver/sonarr:4"}]}});
        assert_eq!(decided(&image).why, Why::InitSystem);
    }

    #[test]
    fn what_only_resembles_an_init_system_is_shared() {
        for command in [
            &["tini", "--", "/app/server"][..],
            &["dumb-init", "python", "/init"],
            &["/app/init"],
            &["sh", "-c", "migrate && serve"],
            &["sh", "-c"],
        ] {
            assert_eq!(decided(&with_command(command)).why, Why::Default, "{command:?}");
        }
        let image =
            json!({"metadata": {}, "spec": {"containers": [{"name": "a", "image": "notlinuxserver/app"}]}});
        assert_eq!(decided(&image).why, Why::Default);
    }
}
