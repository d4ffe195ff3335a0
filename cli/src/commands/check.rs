//! `mirrord check`: reads, asks, judges, prints. See [`crate::check`].

use std::time::{SystemTime, UNIX_EPOCH};

use kube::Client;
use serde::Serialize;

use super::{Choice, block_on, directory, print, print_json, table};
use crate::{
    arguments::{Check, Format},
    check::{
        dry_run::{self, Answer},
        finding::{Finding, Severity, Topic},
        found::{Found, excluded},
        ingress,
        injection::{self, Attempt, Verdict},
        opted_in, platform, policies, probe, process_namespace,
        read::Reader,
        rules, sidecars, subjects, webhook,
        workload::{Workload, canary, opted_out},
    },
    exit::{Exit, Problem},
    kubernetes::{api::Sessions, refusal::Refusal, server::Server},
    progress::Progress,
};

/// The list for machines.
#[derive(Serialize)]
struct Report {
    errors: usize,
    warnings: usize,
    notes: usize,
    /// What the caller may not read: verb and resource.
    forbidden: Vec<String>,
    findings: Vec<Finding>,
}

/// Checks an installation.
///
/// # Errors
/// [`Exit::Findings`] where something doesn't work; [`Exit::NotGranted`] where not everything could be looked at; else that
/// the cluster can't be asked.
pub fn check(arguments: &Check, progress: &Progress) -> Result<(), Problem> {
    let report = block_on(report(arguments, progress))?;
    match arguments.output {
        Format::Json => print_json(&report)?,
        Format::Table => print(&report.text()),
    }
    report.verdict(progress)
}

async fn report(arguments: &Check, progress: &Progress) -> Result<Report, Problem> {
    let Choice { access, .. } = Choice::new(&arguments.cluster, &directory()?)?;
    let place = access.place(arguments.cluster.namespace.as_deref())?;
    let server = access.server(|step| progress.step(step)).await?;
    progress.step("reading the cluster");
    let reader = Reader::new(server.clone(), arguments.cluster.namespace.clone());
    let (found, unread) = server.patiently(|step| progress.step(step), reader.read()).await?;
    if let Some(name) = &arguments.cluster.namespace
        && found.namespaces.as_ref().is_some_and(Vec::is_empty)
    {
        return Err(Refusal::NoNamespace(name.clone()).into());
    }
    let mut findings = platform::check(&found, env!("CARGO_PKG_VERSION"));
    findings.extend(unread.findings());
    if found.is_installed() == Some(false) {
        return Ok(Report::new(findings, unread.forbidden));
    }
    findings.extend(webhook::check(&found, now()));
    findings.extend(workloads(&server, &found, arguments, progress).await);
    findings.extend(way_in(&server, &found, &place.namespace, arguments, progress).await);
    findings.extend(found.rights.iter().flat_map(|rights| {
        let mut findings = rules::check(rights, found.workloads.as_deref());
        findings.extend(subjects::check(rights));
        findings
    }));
    Ok(Report::new(findings, unread.forbidden))
}

/// Everything that takes dry runs.
async fn workloads(server: &Server, found: &Found, arguments: &Check, progress: &Progress) -> Vec<Finding> {
    let mut findings = opted_in::check(found);
    let namespace = testing_ground(found, arguments.cluster.namespace.as_deref());
    let client = server.client();
    let answer = dry_run::create(client, &canary(&namespace)).await;
    let (reached, current) = webhook::canary(found, &namespace, &answer);
    let targets = Sessions::new(server.clone(), Some(&namespace)).targets().await;
    findings.extend([
        reached,
        webhook::session(&namespace, &targets.map(|targets| targets.len()).map_err(Problem::from)),
    ]);

    let mut workloads = opted_in::workloads(found);
    if let Some(more) = workloads.len().checked_sub(arguments.limit).filter(|more| *more > 0) {
        let what = format!("{more} opted-in workloads are not checked: --limit is {}", arguments.limit);
        findings.push(
            Topic::Injection
                .warning("this cluster", what)
                .fix("mirrord check -n NAMESPACE, or a higher --limit"),
        );
        workloads.truncate(arguments.limit);
    }
    progress.step(&format!("creating the pods of {} workloads in dry runs", workloads.len()));
    let attempts = attempts(client, &workloads).await;
    findings.extend(injection::check(&attempts, current.is_some()));
    findings.extend(process_namespace::check(&attempts));
    findings.extend(policies::check(found, &attempts));
    // Who can't have a sidecar isn't told to restart for one.
    let can: Vec<&Workload> = attempts
        .iter()
        .filter(|attempt| !matches!(attempt.verdict(), Verdict::Skipped(_)))
        .map(|attempt| attempt.workload)
        .collect();
    if let Some(pods) = &found.pods {
        findings.extend(sidecars::check(pods, &can, current.as_ref()));
    }
    findings
}

/// A namespace whose pods injection looks at: the one that is asked about, else a common one, else any that opted in.
fn testing_ground(found: &Found, asked: Option<&str>) -> String {
    const COMMON: &str = "default";
    let excluded = found.configuration().map(excluded).unwrap_or_default();
    let there =
        |name: &str| found.namespaces.iter().flatten().any(|it| it.metadata.name.as_deref() == Some(name));
    if there(COMMON) && !excluded.contains(COMMON) {
        return COMMON.to_owned();
    }
    let first = || opted_in::namespaces(found).into_iter().next();
    asked.map(str::to_owned).or_else(first).unwrap_or_else(|| COMMON.to_owned())
}

async fn attempts<'a>(client: &Client, workloads: &[&'a Workload]) -> Vec<Attempt<'a>> {
    let pods = workloads.iter().map(|workload| workload.pod()).collect();
    let answers = dry_run::create_all(client, pods).await;
    let mut attempts: Vec<Attempt<'_>> = workloads
        .iter()
        .zip(answers)
        .map(|(workload, answer)| Attempt { workload, answer, opted_out: None })
        .collect();
    // Whose fault is it?
    let refused: Vec<&mut Attempt<'_>> =
        attempts.iter_mut().filter(|attempt| matches!(attempt.answer, Answer::Refused(_))).collect();
    let pods = refused.iter().map(|attempt| opted_out(attempt.workload.pod())).collect();
    for (attempt, answer) in refused.into_iter().zip(dry_run::create_all(client, pods).await) {
        attempt.opted_out = Some(answer);
    }
    attempts
}

/// The ingress: what is stored, what the network says, and a session where one is asked for.
async fn way_in(
    server: &Server,
    found: &Found,
    namespace: &str,
    arguments: &Check,
    progress: &Progress,
) -> Vec<Finding> {
    let knock = match ingress::address(found) {
        Some(address) => Some(ingress::knock(&address).await),
        None => None,
    };
    let mut findings = ingress::check(found, knock.as_ref());
    if let Some(target) = &arguments.probe {
        progress.step(&format!("opening a session on {target}"));
        // It tells more than silence.
        findings.retain(|finding| !(finding.topic == Topic::Ingress && finding.severity == Severity::Note));
        findings.push(probe::check(namespace, target, &probe::session(server, namespace, target).await));
    }
    findings
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl Report {
    fn new(mut findings: Vec<Finding>, forbidden: Vec<String>) -> Self {
        // The worst last, where a terminal's reader looks; of the same kind in the order of topics.
        findings.sort_by(|one, other| {
            (one.severity, one.topic, &one.place).cmp(&(other.severity, other.topic, &other.place))
        });
        findings.dedup();
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        Self {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            forbidden,
            findings,
        }
    }

    /// A table; each fix stands below its finding, in a line of its own that can be pasted.
    fn text(&self) -> String {
        let rows: Vec<[String; 4]> = self
            .findings
            .iter()
            .map(|finding| {
                [
                    finding.severity.to_string(),
                    finding.topic.to_string(),
                    finding.place.clone(),
                    finding.what.clone(),
                ]
            })
            .collect();
        let table = table::layout(["SEVERITY", "TOPIC", "WHERE", "WHAT"], &rows);
        let mut lines = table.lines();
        let mut text: Vec<String> = lines.next().map(str::to_owned).into_iter().collect();
        for (line, finding) in lines.zip(&self.findings) {
            text.push(line.to_owned());
            text.extend(finding.fix.iter().map(|fix| format!("  fix: {fix}")));
        }
        text.join("\n")
    }

    fn verdict(&self, progress: &Progress) -> Result<(), Problem> {
        let Self { errors, warnings, notes, .. } = self;
        let summary = format!("{errors} errors, {warnings} warnings, {notes} notes");
        if *errors > 0 {
            return Err(Problem::new(Exit::Findings, format!("not everything works: {summary}"))
                .help("each line `fix:` above says what to do"));
        }
        if !self.forbidden.is_empty() {
            let told = format!("not everything could be checked: {summary}");
            let rights = format!("run it as an admin of the cluster, who may {}", self.forbidden.join(", "));
            return Err(Problem::new(Exit::NotGranted, told).help(rights));
        }
        progress.step(&summary);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Mode;

    fn report() -> Report {
        Report::new(
            vec![
                Topic::Rights
                    .error("role/dev -n shop", "grants nothing")
                    .fix("kubectl edit role/dev -n shop"),
                Topic::Webhook.ok("deployment/mirrord-webhook -n mirrord", "2 of 2 replicas are available"),
            ],
            vec![],
        )
    }

    #[test]
    fn the_worst_comes_last_with_its_fix_below_it() {
        let text = report().text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("ok") && lines[2].starts_with("error"), "{text}");
        assert_eq!(lines[3], "  fix: kubectl edit role/dev -n shop");
    }

    #[test]
    fn errors_have_an_exit_code_of_their_own_and_warnings_none() {
        let progress = Progress::new(Mode::Off);
        let problem = report().verdict(&progress).unwrap_err();
        assert_eq!(problem.exit, Exit::Findings);
        assert!(problem.message.contains("1 errors, 0 warnings, 0 notes"), "{problem}");
        let warned = Report::new(vec![Topic::Rights.warning("x", "y")], vec![]);
        assert_eq!(warned.verdict(&progress), Ok(()));
        let blind = Report { forbidden: vec!["list pods".to_owned()], ..warned };
        assert_eq!(blind.verdict(&progress).unwrap_err().exit, Exit::NotGranted);
    }
}
