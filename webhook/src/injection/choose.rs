//! Which containers get a sidecar, and what each sidecar is called and listens on.
//!
//! The containers of a pod share one network, so each sidecar has a UDP port of its own. It follows from the pod's
//! and the container's name and steps aside from every port that the pod declares: nobody has to configure it, and
//! the pods of one ReplicaSet agree on it.

use std::collections::BTreeSet;

use super::{
    names::{BIN_VOLUME, COPY, IDENTITY_VOLUME, SIDECAR, fnv1a, further_sidecar},
    pod::{Container, Pod},
    raw::RawObject,
    skip::SkipReason,
};

/// Below the ephemeral ports of Linux (32768) and the NodePorts (30000).
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 10_000;

/// A container and its sidecar to be.
pub(super) struct Chosen<'p, 'a> {
    pub(super) container: &'p Container<'a>,
    pub(super) sidecar: String,
    pub(super) port: u16,
}

/// What the choice came to.
pub(super) struct Choice<'p, 'a> {
    pub(super) chosen: Vec<Chosen<'p, 'a>>,
    /// Whether the annotation of kubectl names a container that the pod doesn't have.
    pub(super) unknown_default: bool,
}

/// Chooses containers, names and ports.
pub(super) fn choose<'p, 'a>(pod: &'p Pod<'a>) -> Result<Choice<'p, 'a>, SkipReason> {
    let (containers, unknown_default) = containers(pod)?;
    let mut taken = pod.declared_ports();
    let mut chosen = Vec::with_capacity(containers.len());
    for container in containers {
        let sidecar = if chosen.is_empty() { SIDECAR.to_owned() } else { further_sidecar(&container.name) };
        let port = free_port(port_seed(pod, &container.name), &taken).ok_or(SkipReason::NoFreePort)?;
        taken.insert(port.into());
        chosen.push(Chosen { container, sidecar, port });
    }
    names_are_free(pod, &chosen)?;
    Ok(Choice { chosen, unknown_default })
}

fn containers<'p, 'a>(pod: &'p Pod<'a>) -> Result<(Vec<&'p Container<'a>>, bool), SkipReason> {
    let named = |name: &str| pod.spec.containers.iter().find(|container| *container.name == *name);
    if let Some(list) = pod.annotation(|annotations| &annotations.containers) {
        let names: BTreeSet<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        // In the order of the pod: the same set makes the same names, however it is written.
        let chosen: Vec<_> =
            pod.spec.containers.iter().filter(|container| names.contains(&*container.name)).collect();
        let complete = !names.is_empty() && chosen.len() == names.len();
        return if complete { Ok((chosen, false)) } else { Err(SkipReason::UnknownContainer) };
    }
    let default = pod.annotation(|annotations| &annotations.default_container);
    let found = default.and_then(named);
    let container = found.or(pod.spec.containers.first()).ok_or(SkipReason::NoContainers)?;
    Ok((vec![container], default.is_some() && found.is_none()))
}

fn port_seed(pod: &Pod<'_>, container: &str) -> u64 {
    let metadata = &pod.metadata;
    let name = metadata.name.as_deref().filter(|name| !name.is_empty());
    fnv1a(&[name.or(metadata.generate_name.as_deref()).unwrap_or_default(), container])
}

/// The first port, from where the seed points, that isn't taken.
fn free_port(seed: u64, taken: &BTreeSet<i64>) -> Option<u16> {
    // The remainder is below PORTS, so it is a u16.
    let start = u16::try_from(seed % u64::from(PORTS)).ok()?;
    (0..PORTS).map(|step| FIRST_PORT + (start + step) % PORTS).find(|port| !taken.contains(&i64::from(*port)))
}

/// The API server refuses a pod with two containers, volumes or (below) mounts of one name.
fn names_are_free(pod: &Pod<'_>, chosen: &[Chosen<'_, '_>]) -> Result<(), SkipReason> {
    let ours = |name: &str| name == COPY || chosen.iter().any(|twin| twin.sidecar == name);
    let containers = pod.all_containers().map(|container| &*container.name);
    let ephemeral = pod.spec.ephemeral_containers.iter().map(|container| &*container.name);
    let mut volumes = pod.spec.volumes.iter().flatten().map(|volume| &*volume.name);
    if containers.chain(ephemeral).any(ours)
        || volumes.any(|name| [BIN_VOLUME, IDENTITY_VOLUME].contains(&name))
    {
        return Err(SkipReason::NameTaken);
    }
    Ok(())
}

/// The application's mounts, as the twin gets them: without propagation, which only privileged containers may ask for.
pub(super) fn copied_mounts<'a>(container: &Container<'a>) -> Result<Vec<RawObject<'a>>, MountError> {
    let Some(mounts) = container.volume_mounts else { return Ok(Vec::new()) };
    let mounts: Vec<RawObject<'a>> = serde_json::from_str(mounts.get())?;
    let ours = |mount: &RawObject<'_>| {
        let path = mount.text("mountPath");
        path.is_some_and(|path| path.trim_end_matches('/').split('/').nth(1) == Some(".mirrord"))
    };
    if mounts.iter().any(ours) {
        return Err(MountError::PathTaken);
    }
    Ok(mounts.into_iter().map(|mount| mount.without("mountPropagation")).collect())
}

/// Why mounts can't be copied.
pub(super) enum MountError {
    PathTaken,
    Unreadable,
}

impl From<serde_json::Error> for MountError {
    fn from(_: serde_json::Error) -> Self {
        Self::Unreadable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_steps_aside_and_wraps_around() {
        assert_eq!(free_port(9_999, &BTreeSet::new()), Some(29_999));
        assert_eq!(free_port(9_999, &BTreeSet::from([29_999, 20_000])), Some(20_001));
        assert_eq!(free_port(7, &(20_000..30_000).collect()), None);
        assert_eq!(free_port(7, &(20_000..30_000).filter(|port| *port != 20_003).collect()), Some(20_003));
    }
}
