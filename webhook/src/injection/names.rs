//! Every name that injection gives or looks for, and the mount paths that it shares with the agent.

/// Where the agent's binary is mounted.
pub const BIN_PATH: &str = "/.mirrord/bin";
/// Where the sidecar's own token and the pod's name, namespace and uid are mounted.
pub const IDENTITY_PATH: &str = "/.mirrord/identity";
/// The agent inside the sidecar.
pub const AGENT: &str = "/.mirrord/bin/mirrord-agent";
/// The agent inside its image.
pub const AGENT_IN_IMAGE: &str = "/mirrord-agent";

/// Tells the agent that it sees the application's processes.
pub const NAMESPACE_SHARED: &str = "--namespace-shared";

/// The first sidecar. Further ones are called `mirrord-<container>`.
pub const SIDECAR: &str = "mirrord";
/// The init container that brings the agent's binary.
pub const COPY: &str = "mirrord-copy";
/// The emptyDir with the binary.
pub const BIN_VOLUME: &str = "mirrord-bin";
/// The projected volume with the token.
pub const IDENTITY_VOLUME: &str = "mirrord-identity";

/// What was injected, as JSON: [`super::Status`].
pub const STATUS_ANNOTATION: &str = "mirrord.dev/status";
/// The autoscaler's list of volumes that don't keep a node alive.
pub const EVICTABLE_ANNOTATION: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";

/// Where the API server mounts a pod's token, unless something is mounted there
/// (k8s.io/kubernetes/plugin/pkg/admission/serviceaccount).
pub(super) const API_TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Namespaces that are never injected.
pub(super) const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

/// The longest name of a container (RFC 1123 label).
const NAME_BYTES: usize = 63;

/// The name of a further sidecar. Where the plain name is too long or means something else, a hash tells it apart.
pub(super) fn further_sidecar(container: &str) -> String {
    let plain = format!("{SIDECAR}-{container}");
    if plain.len() <= NAME_BYTES && plain != COPY {
        return plain;
    }
    let kept: String = plain.chars().take(NAME_BYTES - 9).collect();
    format!("{kept}-{:08x}", fnv1a(&[container]) >> 32)
}

/// FNV-1a, 64 bits: spreads names, promises nothing else.
pub(super) fn fnv1a(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use mirrord_protocol::DOMAIN;

    use super::*;

    #[test]
    fn names_of_further_sidecars_are_labels_and_tell_apart() {
        let long = "a".repeat(63);
        let longer = format!("{}b", "a".repeat(62));
        for container in ["web", "copy", &long, &longer] {
            let name = further_sidecar(container);
            assert!(name.len() <= NAME_BYTES && name != COPY && name.starts_with("mirrord-"), "{name}");
        }
        assert_eq!(further_sidecar("web"), "mirrord-web");
        assert_ne!(further_sidecar(&long), further_sidecar(&longer));
    }

    #[test]
    fn names_are_in_our_domain_and_below_our_path() {
        assert_eq!(STATUS_ANNOTATION, format!("{DOMAIN}/status"));
        assert_eq!(AGENT, format!("{BIN_PATH}{AGENT_IN_IMAGE}"));
    }
}
