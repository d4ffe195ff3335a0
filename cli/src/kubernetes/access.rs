//! Kubeconfig, context, impersonation → a client.
//!
//! What the user said is made absolute once, in the command's process, so that the proxy (another process, in another
//! folder, perhaps later) reads the very same. In a pod without kubeconfig the pod's own account is taken.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{
    Client, Config,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{
    refusal::credentials as credentials_failed,
    server::{Server, patiently},
};
use crate::exit::{Exit, Problem};

/// How long the way to the API server is tried: names, proxies, TCP and TLS.
pub(super) const CONNECT: Duration = Duration::from_secs(30);

/// How the API server is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Absolute; merged, the first wins. None: the pod's own account.
    pub kubeconfigs: Vec<PathBuf>,
    /// Instead of the current one.
    pub context: Option<String>,
    /// Act as this user.
    pub user: Option<String>,
    /// Act as a member of these groups.
    pub groups: Vec<String>,
}

/// What the kubeconfig says, as far as it matters before a connection is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where Sessions are made.
    pub namespace: String,
    /// Who chose it.
    pub chosen_by: ChosenBy,
    /// Of the cluster and of who asks there: differs where either does. A hash, as it covers credentials.
    pub fingerprint: [u8; 32],
}

/// Who chose a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenBy {
    /// The command line or the configuration file.
    User,
    /// The kubeconfig's context, or the pod that mirrord runs in.
    Context,
    /// Nobody: it is `default`.
    Nobody,
}

impl Place {
    /// Where something isn't found or allowed in a namespace that nobody named, the namespace is what to look at first.
    #[must_use]
    pub fn explain(&self, problem: Problem) -> Problem {
        let origin = match self.chosen_by {
            ChosenBy::User => return problem,
            ChosenBy::Context => "is the context's",
            ChosenBy::Nobody => "is taken where nothing names another",
        };
        if !matches!(problem.exit, Exit::Target | Exit::NotGranted) {
            return problem;
        }
        let first =
            format!("namespace {:?} {origin}: was another meant? -n NAMESPACE chooses it", self.namespace);
        let help = problem.help.iter().fold(first, |first, help| format!("{first}\n{help}"));
        Problem { help: Some(help), ..problem }
    }
}

/// Why the API server can't even be asked.
#[derive(Debug, Error)]
pub enum AccessError {
    /// Nothing says where it is.
    #[error("there is no kubeconfig: neither KUBECONFIG nor ~/.kube/config names a cluster")]
    None,
    /// The kubeconfig doesn't work out.
    #[error("kubeconfig {}: {}", .path.display(), reason(error))]
    Kubeconfig {
        /// Which, the first of several.
        path: PathBuf,
        /// What is wrong.
        error: Box<KubeconfigError>,
    },
    /// There is no such context in it.
    #[error("kubeconfig {}: there is no context {context:?}", .path.display())]
    Context {
        /// Which, the first of several.
        path: PathBuf,
        /// What was asked for.
        context: String,
        /// Those that are there.
        known: Vec<String>,
    },
    /// The client can't be made of it.
    #[error("the kubeconfig can't be used: {}", unusable(.0))]
    Client(#[from] kube::Error),
    /// What makes the client broke down.
    #[error("the kubeconfig can't be used: its credential plugin broke down")]
    Plugin,
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Self {
        let help = match &error {
            AccessError::None => "set KUBECONFIG or pass --kubeconfig FILE".to_owned(),
            AccessError::Context { known, .. } if !known.is_empty() => {
                format!("choose one with --context: {}", known.join(", "))
            }
            AccessError::Kubeconfig { .. } | AccessError::Context { .. } => {
                "`kubectl config get-contexts` shows what kubectl makes of it; choose with --kubeconfig and --context"
                    .to_owned()
            }
            AccessError::Client(_) | AccessError::Plugin => "see whether `kubectl version` works with it".to_owned(),
        };
        Self::new(Exit::Configuration, error.to_string()).help(help)
    }
}

impl Access {
    /// Where kubeconfigs are: the named one, else the list in `KUBECONFIG`, else the one at home.
    #[must_use]
    pub fn locate(
        named: Option<&Path>,
        list: Option<&OsStr>,
        home: Option<&Path>,
        directory: &Path,
    ) -> Vec<PathBuf> {
        if let Some(path) = named {
            return vec![directory.join(path)];
        }
        let listed = list.map(std::env::split_paths).into_iter().flatten();
        let listed: Vec<PathBuf> =
            listed.filter(|path| !path.as_os_str().is_empty()).map(|path| directory.join(path)).collect();
        if !listed.is_empty() {
            return listed;
        }
        home.map(|home| home.join(".kube/config")).filter(|path| path.exists()).into_iter().collect()
    }

    /// Whether the pod's own account is all there is.
    fn in_cluster(&self) -> bool {
        self.kubeconfigs.is_empty() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
    }

    fn read(&self) -> Result<Kubeconfig, AccessError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| AccessError::Kubeconfig { path, error: Box::new(error) }
        };
        let mut merged = Kubeconfig::default();
        for path in &self.kubeconfigs {
            let next = Kubeconfig::read_from(path).map_err(failed(path))?;
            merged = merged.merge(next).map_err(failed(path))?;
        }
        match self.kubeconfigs.is_empty() {
            true => Err(AccessError::None),
            false => Ok(merged),
        }
    }

    /// The place that a namespace of the user's choice, or the context's, means.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub fn place(&self, namespace: Option<&str>) -> Result<Place, AccessError> {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
        };
        self.user.iter().chain(&self.groups).for_each(|text| part(text));
        let standard = if self.in_cluster() {
            part("in-cluster");
            Config::incluster().ok().map(|config| config.default_namespace)
        } else {
            let kubeconfig = self.read()?;
            let context = self.context(&kubeconfig)?;
            let cluster = kubeconfig.clusters.iter().find(|named| named.name == context.cluster);
            let user = kubeconfig.auth_infos.iter().find(|named| Some(&named.name) == context.user.as_ref());
            part(
                &serde_json::to_string(&cluster.and_then(|named| named.cluster.as_ref())).unwrap_or_default(),
            );
            part(&context.user.unwrap_or_default());
            part(&credentials(user.and_then(|named| named.auth_info.as_ref())));
            context.namespace
        };
        let (namespace, chosen_by) = match (namespace, standard) {
            (Some(chosen), _) => (chosen.to_owned(), ChosenBy::User),
            (None, Some(standard)) => (standard, ChosenBy::Context),
            (None, None) => ("default".to_owned(), ChosenBy::Nobody),
        };
        part(&namespace);
        Ok(Place { namespace, chosen_by, fingerprint: hash.finalize().into() })
    }

    fn context(&self, kubeconfig: &Kubeconfig) -> Result<kube::config::Context, AccessError> {
        let path = || self.kubeconfigs.first().cloned().unwrap_or_default();
        let wanted =
            self.context.as_ref().or(kubeconfig.current_context.as_ref()).cloned().unwrap_or_default();
        let named = kubeconfig.contexts.iter().find(|named| named.name == wanted);
        named.and_then(|named| named.context.clone()).ok_or_else(|| AccessError::Context {
            path: path(),
            context: wanted,
            known: kubeconfig.contexts.iter().map(|named| named.name.clone()).collect(),
        })
    }

    /// The API server. A credential plugin runs here, as long as it wants: it may ask its user to log in. Where it takes
    /// longer than people wait without a word, `say` is told of it.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub async fn server(&self, say: impl Fn(&str)) -> Result<Server, AccessError> {
        let mut context = String::new();
        let mut config = if self.in_cluster() {
            Config::incluster().map_err(|_| AccessError::None)?
        } else {
            let kubeconfig = self.read()?;
            self.context(&kubeconfig)?;
            if let Some(name) = self.context.as_ref().or(kubeconfig.current_context.as_ref()) {
                context = format!(" (context {name:?})");
            }
            let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
            let failed = |error| AccessError::Kubeconfig {
                path: self.kubeconfigs.first().cloned().unwrap_or_default(),
                error: Box::new(error),
            };
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)?
        };
        if self.user.is_some() {
            config.auth_info.impersonate.clone_from(&self.user);
            config.auth_info.impersonate_groups = Some(self.groups.clone());
        }
        // An answer of "unavailable" is told, not repeated in silence.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT);
        let name = format!("{}{context}", address(&config));
        // A plugin is waited for by the thread that makes the client.
        let made = tokio::task::spawn_blocking(move || Client::try_from(config));
        let waiting = || say("waiting for the kubeconfig's credential plugin");
        let client = patiently(waiting, made).await.map_err(|_| AccessError::Plugin)??;
        Ok(Server::new(client, name))
    }
}

/// Scheme, host, port and path, which tells clusters behind one gateway apart. Users and queries are nobody's business.
fn address(config: &Config) -> String {
    let url = &config.cluster_url;
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    let path = url.path().trim_end_matches('/');
    format!("{}://{}{port}{path}", url.scheme_str().unwrap_or("https"), url.host().unwrap_or_default())
}

fn unusable(error: &kube::Error) -> String {
    match error {
        kube::Error::Auth(error) => credentials_failed(error),
        other => other.to_string(),
    }
}

/// What is wrong, without the path that stands before it already.
fn reason(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(error, _) => error.to_string(),
        other => other.to_string(),
    }
}

/// All that tells one user from another, for hashing only.
fn credentials(user: Option<&AuthInfo>) -> String {
    serde_json::to_string(&user).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: dev
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]
users: [{name: u, user: {token: TOKEN}}]
contexts:
- {name: dev, context: {cluster: c, user: u, namespace: shop}}
- {name: bare, context: {cluster: c, user: u}}
";

    fn access(folder: &Path, token: &str) -> Access {
        let path = folder.join("config");
        fs::write(&path, KUBECONFIG.replace("TOKEN", token)).unwrap();
        Access { kubeconfigs: vec![path], ..Access::default() }
    }

    #[test]
    fn kubeconfigs_are_found_in_the_order_of_kubectl() {
        let home = tempfile::tempdir().unwrap();
        let locate = |named: Option<&str>, list: Option<&str>| {
            Access::locate(named.map(Path::new), list.map(OsStr::new), Some(home.path()), Path::new("/here"))
        };
        assert_eq!(locate(Some("a"), Some("/b")), [Path::new("/here/a")]);
        assert_eq!(locate(None, Some("/b::c")), [Path::new("/b"), Path::new("/here/c")]);
        assert!(locate(None, Some("")).is_empty());
        fs::create_dir(home.path().join(".kube")).unwrap();
        fs::write(home.path().join(".kube/config"), "").unwrap();
        assert_eq!(locate(None, None), [home.path().join(".kube/config")]);
    }

    #[test]
    fn the_namespace_is_the_user_s_else_the_context_s_else_default() {
        let folder = tempfile::tempdir().unwrap();
        let mut access = access(folder.path(), "t");
        let namespace = |access: &Access, chosen| access.place(chosen).unwrap().namespace;
        assert_eq!(namespace(&access, Some("other")), "other");
        assert_eq!(namespace(&access, None), "shop");
        access.context = Some("bare".to_owned());
        assert_eq!(namespace(&access, None), "default");
    }

    #[test]
    fn where_nobody_named_the_namespace_it_is_what_to_look_at_first() {
        let folder = tempfile::tempdir().unwrap();
        let access = access(folder.path(), "t");
        let missing = Problem::new(Exit::Target, "no such workload").help("look");
        let told = access.place(None).unwrap().explain(missing.clone()).help.unwrap();
        assert_eq!(
            told,
            "namespace \"shop\" is the context's: was another meant? -n NAMESPACE chooses it\nlook"
        );
        let named = access.place(Some("shop")).unwrap();
        assert_eq!(named.explain(missing.clone()), missing);
        let elsewhere = Problem::new(Exit::Unreachable, "no way");
        assert_eq!(access.place(None).unwrap().explain(elsewhere.clone()), elsewhere);
    }

    #[test]
    fn another_user_cluster_or_namespace_is_another_place() {
        let folder = tempfile::tempdir().unwrap();
        let one = access(folder.path(), "one");
        let first = one.place(None).unwrap();
        assert_eq!(one.place(None).unwrap(), first);
        let other = Access { user: Some("admin".to_owned()), ..one.clone() };
        assert_ne!(other.place(None).unwrap().fingerprint, first.fingerprint);
        assert_ne!(one.place(Some("x")).unwrap().fingerprint, first.fingerprint);
        let two = access(folder.path(), "two");
        assert_ne!(two.place(None).unwrap().fingerprint, first.fingerprint);
    }

    #[test]
    fn what_is_missing_is_named_with_the_next_step() {
        let folder = tempfile::tempdir().unwrap();
        let mut access = access(folder.path(), "t");
        access.context = Some("prod".to_owned());
        let problem = Problem::from(access.place(None).unwrap_err());
        assert_eq!(problem.exit, Exit::Configuration);
        assert!(problem.message.ends_with("there is no context \"prod\""), "{problem}");
        assert_eq!(problem.help.as_deref(), Some("choose one with --context: dev, bare"));
        let missing = Access { kubeconfigs: vec!["/nowhere/config".into()], ..Access::default() };
        let problem = Problem::from(missing.place(None).unwrap_err());
        assert_eq!(problem.message, "kubeconfig /nowhere/config: No such file or directory (os error 2)");
    }
}
