//! `mirrord verify-config`: what a file means, or all that is wrong with it.

use serde::Serialize;
use serde_json::json;

use super::{directory, home, print, print_json};
use crate::{
    arguments::{Format, Verify},
    config::{Config, file},
    exit::{Exit, Problem},
    progress::Progress,
};

#[derive(Serialize)]
struct Verdict {
    valid: bool,
    file: Option<std::path::PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<crate::config::Mistake>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<serde_json::Value>,
}

/// Checks a configuration.
///
/// # Errors
/// All mistakes, or that there is no file.
pub fn verify(arguments: &Verify, progress: &Progress) -> Result<(), Problem> {
    let found = file::load(arguments.file.as_deref(), &directory()?, home().as_deref());
    let verdict = match &found {
        Ok((config, file)) => {
            Verdict { valid: true, file: file.clone(), problems: vec![], config: Some(resolved(config)) }
        }
        Err(file::FileError::Mistakes(found)) => Verdict {
            valid: false,
            file: Some(found.file.clone()),
            problems: found.mistakes.clone(),
            config: None,
        },
        Err(_) => Verdict { valid: false, file: arguments.file.clone(), problems: vec![], config: None },
    };
    if arguments.output == Format::Json {
        print_json(&verdict)?;
    }
    let (config, file) = found?;
    if arguments.output == Format::Table {
        match file {
            Some(file) => progress.step(&format!("{} is right", file.display())),
            None => progress.step(&format!("there is no {} up from here: defaults", file::NAME)),
        }
        let text = serde_json::to_string_pretty(&resolved(&config));
        print(&text.map_err(|error| Problem::new(Exit::Internal, error.to_string()))?);
    }
    Ok(())
}

/// The configuration with its defaults, under the keys it is written with.
fn resolved(config: &Config) -> serde_json::Value {
    let env = config.environment.as_ref().map_or(json!(false), |rules| {
        let mut env = serde_json::Map::new();
        if let Some(include) = &rules.include {
            env.insert("include".to_owned(), json!(include));
        }
        env.insert("exclude".to_owned(), json!(rules.exclude));
        let set: serde_json::Map<_, _> =
            rules.set.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        env.insert("override".to_owned(), json!(set));
        env.insert("unset".to_owned(), json!(rules.unset));
        json!(env)
    });
    json!({
        "target": {
            "path": config.target.as_ref().map(ToString::to_string),
            "namespace": config.namespace,
        },
        "kubeconfig": config.kubeconfig,
        "kube_context": config.context,
        "feature": {
            "env": env,
            "fs": if config.files { "read" } else { "local" },
            "network": { "outgoing": config.outgoing, "dns": config.outgoing },
        },
    })
}
