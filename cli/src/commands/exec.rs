//! `mirrord exec`: everything that has to be so, then execve(2) in place.
//!
//! The program takes over this very process: its pid, terminal, descriptors, signals and exit code are those of the
//! command. What must go on beside it is in the proxy's process, which the next `exec` finds warm.

use std::{
    ffi::{OsStr, OsString},
    io::ErrorKind,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use mirrord_layer_brain::settings::{self, FileMode, Settings};
use mirrord_protocol::feature::Feature;
use mirrord_session::{Target, TargetError};

use super::{
    Choice, block_on, directory, home, ls,
    report::{self, Coverage},
};
use crate::{
    arguments::Exec,
    config::Config,
    environment::{self, Rules, Variables, drop_too_long, parse},
    exit::{Exit, Problem},
    kubernetes::{
        access::{Access, Place},
        api::Wanted,
    },
    layer_file, program,
    progress::Progress,
    proxy::{
        client::{self, Found, short},
        folder::Folder,
        job::{self, Job},
    },
    variables::TARGET,
};

/// The variable that says how long a proxy lingers, in seconds.
pub const LINGER: &str = "MIRRORD_LINGER_SECONDS";
/// How long it does so by default.
const LINGER_SECONDS: u64 = 600;
/// How long a list of targets may take that nobody asked for.
const SUGGESTION: Duration = Duration::from_secs(3);

/// Runs a program; comes back only with a reason why not.
pub fn exec(arguments: &Exec, progress: &Progress) -> Problem {
    match prepare(arguments, progress) {
        // Sets SIGPIPE back to what it was before Rust's runtime; the signal mask was never touched.
        Ok(mut command) => {
            let error = command.exec();
            let program = command.get_program().display().to_string();
            let problem = Problem::new(Exit::CannotExecute, format!("{program} can't be executed: {error}"));
            match error.kind() {
                ErrorKind::ArgumentListTooLong => {
                    problem.help("leave variables out by \"feature.env.exclude\" in the configuration")
                }
                _ => problem,
            }
        }
        Err(problem) => problem,
    }
}

fn prepare(arguments: &Exec, progress: &Progress) -> Result<Command, Problem> {
    let directory = directory()?;
    let choice = Choice::new(&arguments.cluster, &directory)?;
    let linger_seconds = linger()?;
    let name = arguments.command.first().map(OsString::as_os_str).unwrap_or_default();
    let file = program::find(name, std::env::var_os("PATH").as_deref())
        .map_err(|error| misplaced_target(name).unwrap_or_else(|| error.into()))?;
    if let Err(refused) = program::admit(&file) {
        if std::env::var_os(settings::ALLOW_LOCAL).as_deref() != Some(OsStr::new("1")) {
            return Err(refused.into());
        }
        progress.warning(&format!(
            "{} runs without mirrord: {} is set",
            file.display(),
            settings::ALLOW_LOCAL
        ));
    }
    let place = choice.place();
    let Choice { config, access, .. } = choice;
    let Some(target) = target(arguments)?.or(config.target.clone()) else {
        return Err(late_target(arguments).unwrap_or_else(|| no_target(&access, place.ok().as_ref())));
    };
    let place = place?;
    let own = environment::file::of(config.environment.as_ref())?;
    let folder = Folder::of_user()?;
    let layer = layer_file::find(&folder)?;
    let job = job(&config, &target, access, &place, linger_seconds);
    let found = client::attach(&folder, &job, &|step| progress.step(step))
        .map_err(|error| place.explain(error.into()))?;
    announce(&found, &job.wanted, progress);

    let settings = settings(&config, &found, layer, directory);
    let mut variables = variables(config.environment.as_ref(), (&found.environment, own), &settings)?;
    for name in drop_too_long(&mut variables) {
        progress.warning(&format!("{} is left out: it is longer than the kernel takes", name.display()));
    }
    let mut command = Command::new(&file);
    command.arg0(name).args(arguments.command.iter().skip(1)).env_clear().envs(variables);
    Ok(command)
}

/// `kubectl exec` takes a target in the program's place; who is used to that gets the line.
fn misplaced_target(word: &OsStr) -> Option<Problem> {
    let word = word.to_str().filter(|word| word.contains('/'))?;
    let target: Target = word.parse().ok()?;
    let problem = Problem::new(Exit::Usage, format!("{word} is a target, where the program belongs"));
    Some(problem.help(format!("mirrord exec -t {target} -- PROGRAM")))
}

/// What stands behind the program is the program's.
fn late_target(arguments: &Exec) -> Option<Problem> {
    let is_target = |word: &OsString| word == "-t" || word == "--target";
    arguments.command.iter().skip(1).any(is_target).then(|| {
        Problem::new(Exit::Usage, "there is no target: -t behind the program is the program's own")
            .help("mirrord's options stand first: mirrord exec -t deployment/NAME -- PROGRAM")
    })
}

/// The target of the command line, else of the environment.
fn target(arguments: &Exec) -> Result<Option<Target>, Problem> {
    if arguments.target.is_some() {
        return Ok(arguments.target.clone());
    }
    let Some(value) = std::env::var_os(TARGET).filter(|value| !value.is_empty()) else { return Ok(None) };
    value.to_string_lossy().parse().map(Some).map_err(|error: TargetError| {
        Problem::new(Exit::Usage, format!("{TARGET}: {error}")).help("-t wins over it; `unset` removes it")
    })
}

fn job(config: &Config, target: &Target, access: Access, place: &Place, linger_seconds: u64) -> Job {
    let (mut features, mut optional) = (Vec::new(), Vec::new());
    if config.environment.is_some() {
        features.push(Feature::Env);
    }
    if config.files {
        features.push(Feature::Files);
        optional.push(Feature::Secrets);
    }
    if config.outgoing {
        features.push(Feature::Outgoing);
    }
    let wanted = Wanted::new(target, features, optional);
    Job {
        name: job::name(place, &wanted),
        access,
        namespace: place.namespace.clone(),
        wanted,
        linger_seconds,
    }
}

/// In CI there is no next `exec` that would be glad of a warm tunnel, but somebody who waits for the machine.
fn linger() -> Result<u64, Problem> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    match set(LINGER) {
        Some(value) => value.to_str().and_then(|value| value.parse().ok()).ok_or_else(|| {
            Problem::new(Exit::Usage, format!("{LINGER} can't be {value:?}")).help("give whole seconds")
        }),
        None if set("CI").is_some_and(|value| value != "false") => Ok(0),
        None => Ok(LINGER_SECONDS),
    }
}

fn announce(found: &Found, wanted: &Wanted, progress: &Progress) {
    let summary = &found.attached.summary;
    let warm = if found.warm { ", warm" } else { "" };
    progress.step(&format!(
        "session {} on {} in {} ({}) – pod {}, {} ms{warm}",
        short(&summary.session),
        summary.target,
        summary.namespace,
        report::features(&summary.features, &wanted.optional),
        summary.pod,
        progress.elapsed_ms()
    ));
    if found.warm {
        return;
    }
    let borrows_eyes = [Feature::Env, Feature::Files].map(Feature::verb);
    if summary.features.iter().any(|verb| borrows_eyes.contains(&verb.as_str()))
        && let Some(sentence) = report::sight(summary.view, summary.obstacle, &summary.container)
    {
        progress.step(&sentence);
    }
    let coverage = Coverage { running: summary.running, injected: summary.injected };
    if let Some(sentence) = coverage.sentence(&summary.target, &summary.namespace, &summary.without_sidecar) {
        progress.warning(&sentence);
    }
}

fn settings(config: &Config, found: &Found, layer: PathBuf, directory: PathBuf) -> Settings {
    let granted =
        |feature: Feature| found.attached.summary.features.iter().any(|verb| verb == feature.verb());
    Settings {
        proxy: found.attached.layer.clone(),
        layer,
        files: if config.files && granted(Feature::Files) { FileMode::Read } else { FileMode::Local },
        outgoing: config.outgoing && granted(Feature::Outgoing),
        remote_mounts: Vec::new(),
        local_trees: home().into_iter().chain([directory]).collect(),
    }
}

fn variables(
    rules: Option<&Rules>,
    (pod, own): (&[u8], Variables),
    settings: &Settings,
) -> Result<Variables, Problem> {
    let local: Variables = std::env::vars_os().collect();
    let mut variables = match rules {
        Some(rules) => rules.merge(local, parse(pod), own),
        None => local,
    };
    let preload = variables.get(OsStr::new(settings::PRELOAD)).cloned();
    let added = settings.variables(preload.as_deref()).map_err(|error| {
        Problem::new(Exit::Internal, error.to_string()).help("name a copy elsewhere with MIRRORD_LAYER_FILE")
    })?;
    variables.extend(added.map(|(name, value)| (OsString::from(name), value)));
    Ok(variables)
}

/// What could be meant is told, where that is known soon.
fn no_target(access: &Access, place: Option<&Place>) -> Problem {
    let namespace = place.map_or("default", |place| &place.namespace);
    let known = block_on(async {
        // Where not even the kubeconfig works there is nobody to ask.
        if place.is_none() {
            return Ok(Vec::new());
        }
        let asked = tokio::time::timeout(SUGGESTION, ls::targets(access, namespace, |_| ())).await;
        Ok(asked.ok().and_then(Result::ok).unwrap_or_default())
    });
    let names: Vec<String> = known
        .unwrap_or_default()
        .into_iter()
        .filter(|report| report.injected > 0)
        .map(|report| report.target)
        .collect();
    let help = match names.as_slice() {
        [] => "name one: mirrord exec -t deployment/NAME -- COMMAND, or \"target\" in .mirrord/mirrord.json; `mirrord ls` lists them".to_owned(),
        names => format!(
            "name one with -t, or \"target\" in .mirrord/mirrord.json; in namespace {namespace} there are {}",
            names.join(", ")
        ),
    };
    Problem::new(Exit::Usage, "there is no target").help(help)
}
