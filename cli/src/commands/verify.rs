//! `mirrord verify-config`: what a file means, or all that is wrong with it.

use serde::Serialize;
use serde_json::{Value, json};

use super::{directory, home, print, print_json, table};
use crate::{
    arguments::{Format, Verify},
    config::{Config, file, keys},
    environment::{self, Mapping},
    exit::Problem,
    progress::Progress,
};

#[derive(Serialize)]
struct Verdict {
    valid: bool,
    file: Option<std::path::PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<crate::config::Mistake>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Value>,
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
    let (config, file) = found.map_err(|error| match error {
        // Its own advice would be to do what was just done.
        file::FileError::Mistakes(_) => {
            Problem::from(error).help("`mirrord verify-config --help` lists all keys")
        }
        other => other.into(),
    })?;
    environment::file::of(config.environment.as_ref())?;
    if arguments.output == Format::Table {
        match file {
            Some(file) => progress.step(&format!("{} is right", file.display())),
            None => progress.step(&format!("there is no {} up from here: defaults", file::NAME)),
        }
        let mut rows = Vec::new();
        flatten("", &resolved(&config), &mut rows);
        print(&table::layout(["KEY", "VALUE"], &rows));
    }
    Ok(())
}

/// Values by their keys' paths; what isn't set is told by its default.
fn flatten(path: &str, value: &Value, rows: &mut Vec<[String; 2]>) {
    let joined = |words: &[Value]| {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        if words.is_empty() { "-".to_owned() } else { words.join(";") }
    };
    let text = match value {
        // What is nested are keys, but for what the user names.
        Value::Object(inner) if keys::find(path).is_none_or(|key| !key.kinds.contains(&keys::Kind::Map)) => {
            for (name, value) in inner {
                flatten(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, value, rows);
            }
            return;
        }
        Value::Object(map) if map.is_empty() => "-".to_owned(),
        Value::Null => format!("({})", unset(path)),
        Value::Array(words) => joined(words),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    rows.push([path.to_owned(), text]);
}

/// What holds for a key that isn't set.
fn unset(path: &str) -> String {
    match keys::find(path).map(|key| key.default.replace('`', "")) {
        Some(default) if !default.is_empty() => default,
        _ => "-t".to_owned(),
    }
}

/// The configuration with its defaults, under the keys it is written with.
fn resolved(config: &Config) -> Value {
    let env = config.environment.as_ref().map_or(json!(false), |rules| {
        let mut env = serde_json::Map::new();
        if let Some(include) = &rules.include {
            env.insert("include".to_owned(), json!(include));
        }
        env.insert("exclude".to_owned(), json!(rules.exclude));
        if let Some(file) = &rules.file {
            env.insert("env_file".to_owned(), json!(file));
        }
        let mapping = rules.mapping.iter().map(Mapping::as_written);
        let mapping: serde_json::Map<_, _> =
            mapping.map(|(name, value)| (name.to_owned(), json!(value))).collect();
        env.insert("mapping".to_owned(), json!(mapping));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_a_table_of_keys() {
        let config = Config { kubeconfig: Some("/k".into()), ..Config::standard() };
        let mut rows = Vec::new();
        flatten("", &resolved(&config), &mut rows);
        let value = |key: &str| rows.iter().find(|[name, _]| name == key).map(|[_, value]| value.as_str());
        assert_eq!(value("kubeconfig"), Some("/k"));
        assert_eq!(value("kube_context"), Some("(current context)"));
        assert_eq!(value("target.path"), Some("(-t)"));
        assert_eq!(value("feature.env.override"), Some("-"));
        assert_eq!(value("feature.network.outgoing"), Some("true"));
    }
}
