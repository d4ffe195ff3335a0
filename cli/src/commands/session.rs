//! `mirrord session ls` and `session stop`.
//!
//! A session is known in two places: the Session object in the cluster, and the proxy on the machine of whoever made
//! it. Listing shows both; stopping ends the proxy where it is here, and deletes the object where it isn't.

use kube::Resource;
use mirrord_session::Session;
use serde::Serialize;

use super::{Choice, block_on, directory, print, print_json, table};
use crate::{
    arguments::{Cluster, Format, SessionCommand, SessionList, SessionStop},
    exit::{Exit, Problem},
    kubernetes::{access::Access, api::Sessions, server::Server},
    progress::Progress,
    proxy::{client, control::Status, folder::Folder},
};

/// Does what is to be done.
///
/// # Errors
/// Those of the API server.
pub fn session(command: &SessionCommand, progress: &Progress) -> Result<(), Problem> {
    match command {
        SessionCommand::Ls(arguments) => ls(arguments, progress),
        SessionCommand::Stop(arguments) => stop(arguments, progress),
    }
}

/// A session in the cluster.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    namespace: String,
    target: String,
    user: String,
    features: Vec<String>,
    created: Option<String>,
    local: bool,
}

#[derive(Debug, Serialize)]
struct Listing {
    sessions: Vec<Row>,
    /// This machine's proxies, wherever their sessions are.
    local: Vec<Status>,
}

fn ls(arguments: &SessionList, progress: &Progress) -> Result<(), Problem> {
    let local: Vec<Status> = client::all(&Folder::of_user()?).into_iter().map(|(_, status)| status).collect();
    let scope = Scope::new(&arguments.cluster, arguments.all_namespaces)?;
    let found = block_on(async {
        let (server, sessions) = scope.sessions(progress).await?;
        Ok(server.patiently(|step| progress.step(step), sessions.list()).await?)
    });
    let found = match found {
        Ok(found) => found,
        // What is known here is worth showing even so.
        Err(problem) if !local.is_empty() => {
            progress.warning(&format!("only this machine's sessions: {}", problem.message));
            Vec::new()
        }
        Err(problem) => return Err(problem),
    };
    let mut rows: Vec<Row> = found.iter().map(|session| row(session, &local)).collect();
    for status in local
        .iter()
        .filter(|status| scope.namespace.as_ref().is_none_or(|name| *name == status.summary.namespace))
    {
        if !rows.iter().any(|row| row.name == status.summary.session) {
            rows.push(local_row(status));
        }
    }
    if arguments.output == Format::Json {
        return print_json(&Listing { sessions: rows, local });
    }
    if rows.is_empty() {
        progress.step(&format!(
            "there are no sessions{}",
            scope.namespace.map_or_else(String::new, |name| format!(" in namespace {name}"))
        ));
        return Ok(());
    }
    let cells: Vec<[String; 6]> = rows.iter().map(cells).collect();
    print(&table::layout(["NAME", "NAMESPACE", "TARGET", "USER", "FEATURES", "HERE"], &cells));
    Ok(())
}

/// Where Sessions are listed; the namespace, unless all.
struct Scope {
    access: Access,
    namespace: Option<String>,
}

impl Scope {
    fn new(cluster: &Cluster, all: bool) -> Result<Self, Problem> {
        let choice = Choice::new(cluster, &directory()?)?;
        let namespace = match all {
            true => None,
            false => Some(choice.place()?.namespace),
        };
        Ok(Self { access: choice.access, namespace })
    }

    async fn sessions(&self, progress: &Progress) -> Result<(Server, Sessions), Problem> {
        let server = self.access.server(|step| progress.step(step)).await?;
        Ok((server.clone(), Sessions::new(server, self.namespace.as_deref())))
    }
}

fn row(session: &Session, local: &[Status]) -> Row {
    let meta = session.meta();
    let name = meta.name.clone().unwrap_or_default();
    let status = session.status.clone().unwrap_or_default();
    Row {
        local: local.iter().any(|status| status.summary.session == name),
        name,
        namespace: meta.namespace.clone().unwrap_or_default(),
        target: status.workload.replacen('.', "/", 1),
        user: status.creator.username,
        features: status.features,
        created: meta.creation_timestamp.as_ref().map(|time| time.0.to_string()),
    }
}

/// A session that the cluster didn't list.
fn local_row(status: &Status) -> Row {
    Row {
        name: status.summary.session.clone(),
        namespace: status.summary.namespace.clone(),
        target: status.summary.target.clone(),
        user: String::new(),
        features: status.summary.features.clone(),
        created: None,
        local: true,
    }
}

fn cells(row: &Row) -> [String; 6] {
    [
        client::short(&row.name).to_owned(),
        row.namespace.clone(),
        row.target.clone(),
        if row.user.is_empty() { "-".to_owned() } else { row.user.clone() },
        table::words(&row.features),
        if row.local { "yes" } else { "" }.to_owned(),
    ]
}

fn stop(arguments: &SessionStop, progress: &Progress) -> Result<(), Problem> {
    if arguments.names.is_empty() && !arguments.all {
        return Err(Problem::new(Exit::Usage, "which session shall end?")
            .help("name one of `mirrord session ls`, or --all for all that this machine holds"));
    }
    let folder = Folder::of_user()?;
    let mut missing = Vec::new();
    let local = client::all(&folder);
    let mut ended = Vec::new();
    for (name, status) in &local {
        let session = &status.summary.session;
        if arguments.all || arguments.names.iter().any(|wanted| session.starts_with(wanted.as_str())) {
            client::stop(&folder, name).map_err(|error| {
                Problem::new(Exit::Internal, format!("the proxy of {session} doesn't answer: {error}"))
                    .help(format!("end its process: kill {}", status.pid))
            })?;
            progress.step(&format!("session {} is stopped", client::short(session)));
            ended.push(session.clone());
        }
    }
    for wanted in &arguments.names {
        if !ended.iter().any(|session| session.starts_with(wanted.as_str())) {
            missing.push(wanted.clone());
        }
    }
    if missing.is_empty() { Ok(()) } else { delete(arguments, &missing, progress) }
}

/// Deletes Sessions that no proxy here holds.
fn delete(arguments: &SessionStop, names: &[String], progress: &Progress) -> Result<(), Problem> {
    let scope = Scope::new(&arguments.cluster, false)?;
    block_on(async {
        let (server, sessions) = scope.sessions(progress).await?;
        let found = server.patiently(|step| progress.step(step), sessions.list()).await?;
        let all: Vec<String> = found.iter().filter_map(|session| session.meta().name.clone()).collect();
        for wanted in names {
            let name = choose(&all, wanted)?;
            sessions.delete(&name).await?;
            progress.step(&format!("session {} is deleted", client::short(&name)));
        }
        Ok(())
    })
}

/// The one name that begins so.
fn choose(all: &[String], wanted: &str) -> Result<String, Problem> {
    let mut fitting = all.iter().filter(|name| name.starts_with(wanted));
    match (fitting.next(), fitting.next()) {
        (Some(name), None) => Ok(name.clone()),
        (None, _) => Err(Problem::new(Exit::Target, format!("there is no session {wanted:?}"))
            .help("`mirrord session ls` lists those that are there; choose the namespace with -n")),
        (Some(_), Some(_)) => {
            Err(Problem::new(Exit::Usage, format!("several sessions begin with {wanted:?}"))
                .help("write more of the name, as `mirrord session ls -o json` shows it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_chosen_by_the_beginning_of_its_name() {
        let all = ["s-12ab".to_owned(), "s-12cd".to_owned(), "s-34".to_owned()];
        assert_eq!(choose(&all, "s-3").unwrap(), "s-34");
        assert_eq!(choose(&all, "s-12").unwrap_err().exit, Exit::Usage);
        assert_eq!(choose(&all, "s-9").unwrap_err().exit, Exit::Target);
    }
}
