//! The configuration file, and targets as they are typed.

use std::path::Path;

use mirrord_cli::{
    config::{Config, Mistake, resolve::resolve},
    exit::Problem,
};

/// A file. Every mistake is in it, where the message says; and what is JSON by the book is JSON here.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let json = serde_json::from_str::<serde_json::Value>(text).is_ok();
    match resolve(text, Path::new("mirrord.json"), Path::new("/project")) {
        Ok(config) => resolved(&config),
        Err(found) => {
            assert!(!found.mistakes.is_empty());
            assert!(found.mistakes.is_sorted_by_key(|mistake| (mistake.line, mistake.column)));
            for mistake in &found.mistakes {
                assert!(is_within(mistake, text), "{mistake:?} isn't in {text:?}");
                assert!(!json || !mistake.message.starts_with("this is no JSON"), "{mistake:?}: {text:?}");
            }
            let message = Problem::from(found).message;
            assert!(message.starts_with("mirrord.json:"), "{message}");
        }
    }
}

/// At a character, or right behind the last one of a line.
fn is_within(Mistake { line, column, message }: &Mistake, text: &str) -> bool {
    let mut lines = text.split('\n').skip(line - 1);
    !message.is_empty() && lines.next().is_some_and(|line| *column <= line.chars().count() + 1)
}

fn resolved(config: &Config) {
    if let Some(target) = &config.target {
        assert!(target.resource_name().starts_with(target.kind.word()));
    }
    if let Some(rules) = &config.environment {
        assert!(rules.include.is_none() || rules.exclude.is_empty());
        assert!(!rules.takes("LD_PRELOAD".as_ref()) && !rules.takes("PATH".as_ref()));
    }
    if let Some(path) = &config.kubeconfig {
        assert!(path.is_absolute());
    }
}
