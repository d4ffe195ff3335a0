//! `mirrord ls`: the workloads that the caller can use, by a dry run that stores nothing.

use mirrord_session::TargetReport;

use super::{Choice, block_on, directory, print, print_json, report::Coverage, table};
use crate::{
    arguments::{Format, List},
    exit::Problem,
    kubernetes::{access::Access, api::Sessions},
    progress::Progress,
};

/// Lists targets.
///
/// # Errors
/// Those of the API server.
pub fn ls(arguments: &List, progress: &Progress) -> Result<(), Problem> {
    let choice = Choice::new(&arguments.cluster, &directory()?)?;
    let place = choice.place()?;
    let namespace = &place.namespace;
    let targets = block_on(targets(&choice.access, namespace, |step| progress.step(step)))
        .map_err(|problem| place.explain(problem))?;
    if arguments.output == Format::Json {
        return print_json(&targets);
    }
    if targets.is_empty() {
        progress.step(&format!("there is nothing in namespace {namespace} that you may use"));
        return Ok(());
    }
    let rows: Vec<[String; 6]> = targets.iter().map(row).collect();
    print(&table::layout(["TARGET", "CONTAINERS", "PODS", "WITH SIDECAR", "PROCESSES", "FEATURES"], &rows));
    for report in &targets {
        let coverage = Coverage { running: report.pods, injected: report.injected };
        if let Some(sentence) = coverage.sentence(&report.target, namespace, &report.without_sidecar) {
            progress.warning(&sentence);
        }
    }
    Ok(())
}

/// Asks for the targets of a namespace.
pub(super) async fn targets(
    access: &Access,
    namespace: &str,
    say: impl Fn(&str),
) -> Result<Vec<TargetReport>, Problem> {
    let server = access.server(&say).await?;
    let sessions = Sessions::new(server.clone(), Some(namespace));
    Ok(server.patiently(say, sessions.targets()).await?)
}

fn row(report: &TargetReport) -> [String; 6] {
    [
        report.target.clone(),
        table::words(&report.containers),
        report.pods.to_string(),
        if report.opted_out { "opted out".to_owned() } else { report.injected.to_string() },
        table::word(&report.process_namespace),
        table::words(&report.features),
    ]
}
