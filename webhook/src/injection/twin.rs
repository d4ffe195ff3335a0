//! The containers and volumes that are added: the copy step, the twins, the binary's volume and the identity.
//!
//! A twin is the application container with another command and no rights: same image, environment, working
//! directory, mounts and identity, so that what it sees is what the application sees, on any image. The copy step
//! brings the agent's binary as another user than the application's (see [`super::settings::COPY_USER`]).

use std::borrow::Cow;

use mirrord_telemetry::log;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    choose::{Chosen, MountError, copied_mounts},
    names::{
        AGENT, AGENT_IN_IMAGE, API_TOKEN_PATH, BIN_PATH, BIN_VOLUME, COPY, IDENTITY_PATH, IDENTITY_VOLUME,
        NAMESPACE_SHARED,
    },
    pod::{Container, Identity, Pod},
    raw::RawObject,
    resources::OurResources,
    secrets::secret_mounts,
    settings::{PullPolicy, Settings},
    status::ProcessNamespace,
};

/// An init container of ours: the copy step or a twin.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OurContainer<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_pull_policy: Option<Either<'a, PullPolicy>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart_policy: Option<&'a str>,
    command: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<Cow<'a, RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    env_from: Option<&'a RawValue>,
    volume_mounts: Vec<AnyMount<'a>>,
    #[serde(skip_serializing_if = "OurResources::is_empty")]
    resources: OurResources,
    security_context: SecurityContext<'a>,
}

/// Copied from the application, or ours.
#[derive(Serialize)]
#[serde(untagged)]
enum Either<'a, T> {
    Copied(&'a RawValue),
    Ours(T),
}

#[derive(Serialize)]
#[serde(untagged)]
enum AnyMount<'a> {
    Copied(RawObject<'a>),
    Ours(Mount),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    name: &'static str,
    mount_path: &'static str,
    read_only: bool,
}

/// What Pod Security `restricted` asks for, and the identity of whom we act as.
///
/// The runtime's seccomp profile is named even beside a profile of the application's own, which was made for other
/// system calls than the agent's; `restricted` allows both.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SecurityContext<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    run_as_user: Option<Either<'a, u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_as_group: Option<Either<'a, u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_as_non_root: Option<Either<'a, bool>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    se_linux_options: Option<&'a RawValue>,
    allow_privilege_escalation: bool,
    read_only_root_filesystem: bool,
    capabilities: Capabilities,
    seccomp_profile: SeccompProfile,
}

#[derive(Serialize)]
struct Capabilities {
    drop: [&'static str; 1],
}

#[derive(Serialize)]
struct SeccompProfile {
    r#type: &'static str,
}

impl<'a> SecurityContext<'a> {
    fn of(application: &Identity<'a>) -> Self {
        Self {
            run_as_user: application.run_as_user.map(Either::Copied),
            run_as_group: application.run_as_group.map(Either::Copied),
            run_as_non_root: application.run_as_non_root.map(Either::Copied),
            se_linux_options: application.se_linux_options,
            allow_privilege_escalation: false,
            read_only_root_filesystem: true,
            capabilities: Capabilities { drop: ["ALL"] },
            seccomp_profile: SeccompProfile { r#type: "RuntimeDefault" },
        }
    }
}

/// The init container that brings the agent's binary, before all twins. It runs once, for the first of them.
pub(super) fn copy_step<'a>(
    pod: &Pod<'a>,
    settings: &'a Settings,
    application: &Container<'a>,
    resources: OurResources,
) -> OurContainer<'a> {
    let user = settings.copy_user.map(|user| other_than_theirs(pod, user));
    let identity = SecurityContext {
        run_as_user: user.map(Either::Ours),
        run_as_group: user.map(Either::Ours),
        run_as_non_root: Some(Either::Ours(true)),
        ..SecurityContext::of(&application.security_context)
    };
    OurContainer {
        name: COPY,
        image: Some(&settings.agent_image),
        image_pull_policy: Some(Either::Ours(settings.pull_policy)),
        restart_policy: None,
        command: [AGENT_IN_IMAGE, "copy", BIN_PATH].map(Cow::Borrowed).into(),
        working_dir: None,
        env: None,
        env_from: None,
        volume_mounts: vec![
            AnyMount::Ours(Mount { name: BIN_VOLUME, mount_path: BIN_PATH, read_only: false }),
            // Where something is mounted already, the API server mounts no token.
            AnyMount::Ours(Mount { name: BIN_VOLUME, mount_path: API_TOKEN_PATH, read_only: true }),
        ],
        resources,
        security_context: identity,
    }
}

/// The user of the copy step, moved aside where a container of the pod states the same uid.
fn other_than_theirs(pod: &Pod<'_>, user: u32) -> u32 {
    let contexts = pod.all_containers().map(|container| &container.security_context);
    let stated: Vec<&str> = contexts
        .chain([&pod.spec.security_context])
        .filter_map(|context| context.run_as_user.map(RawValue::get))
        .collect();
    (user..user.saturating_add(1000)).find(|user| !stated.contains(&&*user.to_string())).unwrap_or(user)
}

/// The sidecar of one container.
pub(super) fn twin<'a>(
    pod: &Pod<'_>,
    chosen: &'a Chosen<'_, 'a>,
    authorities: &'a str,
    namespace: ProcessNamespace,
    log_format: log::Format,
    resources: OurResources,
) -> Result<OurContainer<'a>, MountError> {
    let application = chosen.container;
    let copied = copied_mounts(application)?;
    let secrets = secret_mounts(pod, &copied);
    let mut mounts: Vec<_> = copied.into_iter().map(AnyMount::Copied).collect();
    mounts.extend([
        AnyMount::Ours(Mount { name: BIN_VOLUME, mount_path: BIN_PATH, read_only: true }),
        AnyMount::Ours(Mount { name: IDENTITY_VOLUME, mount_path: IDENTITY_PATH, read_only: true }),
    ]);
    Ok(OurContainer {
        name: &chosen.sidecar,
        image: application.image.as_deref(),
        image_pull_policy: application.image_pull_policy.map(Either::Copied),
        restart_policy: Some("Always"),
        command: serve(chosen, authorities, namespace, log_format, secrets),
        working_dir: application.working_dir,
        env: copied_env(application)?,
        env_from: application.env_from,
        volume_mounts: mounts,
        resources,
        security_context: SecurityContext::of(&application.security_context),
    })
}

/// The agent's command line. Its settings can't come by the environment, which is the application's.
fn serve<'a>(
    chosen: &'a Chosen<'_, 'a>,
    authorities: &'a str,
    namespace: ProcessNamespace,
    log_format: log::Format,
    secret_mounts: Vec<String>,
) -> Vec<Cow<'a, str>> {
    let port = chosen.port.to_string();
    let mut command: Vec<Cow<'a, str>> = [AGENT, "serve", "--container", &chosen.container.name, "--port"]
        .into_iter()
        .map(Cow::Borrowed)
        .chain([Cow::Owned(port)])
        .chain(["--identity", IDENTITY_PATH, "--ca", authorities].map(Cow::Borrowed))
        .collect();
    if namespace == ProcessNamespace::Shared {
        command.push(Cow::Borrowed(NAMESPACE_SHARED));
    }
    // The default is left out: sidecars of releases before this flag don't know it.
    if log_format == log::Format::Json {
        command.extend(["--log-format", "json"].map(Cow::Borrowed));
    }
    for mount in secret_mounts {
        command.extend([Cow::Borrowed("--secret-mount"), Cow::Owned(mount)]);
    }
    command
}

/// The application's variables. Resources without a container's name mean the container that they stand in: in the
/// twin they have to name the application's.
fn copied_env<'a>(application: &Container<'a>) -> serde_json::Result<Option<Cow<'a, RawValue>>> {
    let Some(env) = application.env else { return Ok(None) };
    if !env.get().contains("resourceFieldRef") {
        return Ok(Some(Cow::Borrowed(env)));
    }
    let variables: Vec<RawObject<'_>> = serde_json::from_str(env.get())?;
    let variables: Vec<RawObject<'_>> = variables
        .into_iter()
        .map(|variable| {
            variable.map("valueFrom", |from| {
                from.map("resourceFieldRef", |field| {
                    field.with_text_if_unset("containerName", &application.name)
                })
            })
        })
        .collect::<Result<_, _>>()?;
    to_raw_value(&variables).map(|env| Some(Cow::Owned(env)))
}

/// A volume of ours.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Volume<'a> {
    name: &'static str,
    #[serde(flatten)]
    source: Source<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Source<'a> {
    #[serde(rename_all = "camelCase")]
    EmptyDir {
        size_limit: &'static str,
    },
    Projected {
        sources: [Projection<'a>; 2],
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Projection<'a> {
    #[serde(rename_all = "camelCase")]
    ServiceAccountToken { audience: &'a str, expiration_seconds: u32, path: &'static str },
    #[serde(rename = "downwardAPI")]
    DownwardApi { items: [Item; 3] },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    path: &'static str,
    field_ref: FieldRef,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FieldRef {
    field_path: &'static str,
}

/// The volumes of a pod's sidecars.
pub(super) fn volumes(settings: &Settings) -> [Volume<'_>; 2] {
    let item = |path, field_path| Item { path, field_ref: FieldRef { field_path } };
    let token = Projection::ServiceAccountToken {
        audience: &settings.audience,
        expiration_seconds: settings.token_seconds,
        path: "token",
    };
    let items =
        [item("uid", "metadata.uid"), item("name", "metadata.name"), item("namespace", "metadata.namespace")];
    [
        Volume { name: BIN_VOLUME, source: Source::EmptyDir { size_limit: "16Mi" } },
        Volume {
            name: IDENTITY_VOLUME,
            source: Source::Projected { sources: [token, Projection::DownwardApi { items }] },
        },
    ]
}

/// The autoscaler's list with our volume in it: what it holds can be copied again.
pub(super) fn evictable_volumes(existing: Option<&str>) -> String {
    let names: Vec<&str> = existing.into_iter().flat_map(|list| list.split(',')).collect();
    match existing {
        Some(list) if names.iter().any(|name| name.trim() == BIN_VOLUME) => list.to_owned(),
        Some(list) if !list.trim().is_empty() => format!("{list},{BIN_VOLUME}"),
        _ => BIN_VOLUME.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_autoscalers_list_is_extended_once() {
        for (before, after) in [
            (None, "mirrord-bin"),
            (Some(""), "mirrord-bin"),
            (Some("cache,tmp"), "cache,tmp,mirrord-bin"),
            (Some("cache, mirrord-bin"), "cache, mirrord-bin"),
        ] {
            assert_eq!(evictable_volumes(before), after);
        }
    }
}
