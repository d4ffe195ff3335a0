//! Raw values → [`Config`]: defaults, and what no single value can show to be wrong.

use std::path::Path;

use mirrord_session::{Target, TargetKind};

use super::{
    Config, Mistake, Mistakes,
    text::{self, Given, Values},
};
use crate::environment::{LOCAL, Mapping, Rules};

/// Reads and resolves the text of a file; `base` is what relative paths in it start from.
///
/// # Errors
/// All mistakes in it.
pub fn resolve(text: &str, file: &Path, base: &Path) -> Result<Config, Mistakes> {
    let mut values = text::read(text);
    let mut mistakes = std::mem::take(&mut values.mistakes);
    let outgoing = outgoing(&values, &mut mistakes);
    let config = Config {
        target: target(&values, &mut mistakes),
        namespace: values.text("target.namespace").map(|(name, _)| name.to_owned()),
        kubeconfig: values.text("kubeconfig").map(|(path, _)| base.join(path)),
        context: values.text("kube_context").map(|(name, _)| name.to_owned()),
        environment: environment(&values, base, &mut mistakes),
        files: files(&values),
        outgoing,
    };
    if mistakes.is_empty() {
        return Ok(config);
    }
    mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    Err(Mistakes { file: file.to_owned(), mistakes })
}

/// How the peer spells kinds in `target.path`.
const KINDS: [(&str, TargetKind); 7] = [
    ("deployment", TargetKind::Deployment),
    ("stateful_set", TargetKind::StatefulSet),
    ("daemon_set", TargetKind::DaemonSet),
    ("replica_set", TargetKind::ReplicaSet),
    ("job", TargetKind::Job),
    ("cron_job", TargetKind::CronJob),
    ("pod", TargetKind::Pod),
];

fn target(values: &Values, mistakes: &mut Vec<Mistake>) -> Option<Target> {
    let mut found: Option<Target> = None;
    let mut keep = |target: Result<Target, String>, place: text::Place| match (target, &found) {
        (Err(message), _) => mistakes.push(place.mistake(message)),
        (Ok(_), Some(other)) => mistakes.push(place.mistake(format!("there is a target already: {other}"))),
        (Ok(target), None) => found = Some(target),
    };
    for path in ["target", "target.path"] {
        if let Some((text, place)) = values.text(path) {
            keep(text.parse().map_err(|error: mirrord_session::TargetError| error.to_string()), place);
        }
        for (word, kind) in KINDS {
            if let Some((name, place)) = values.text(&format!("{path}.{word}")) {
                keep(Ok(Target { kind, name: name.to_owned(), container: None }), place);
            }
        }
    }
    for path in ["target.container", "target.path.container"] {
        match (values.text(path), &mut found) {
            (Some((name, _)), Some(target)) => target.container = Some(name.to_owned()),
            (Some((_, place)), None) => mistakes.push(place.mistake("a container of which target?")),
            (None, _) => {}
        }
    }
    found
}

fn environment(values: &Values, base: &Path, mistakes: &mut Vec<Mistake>) -> Option<Rules> {
    if let Some((false, _)) = values.switch("feature.env") {
        return None;
    }
    let (include, exclude) = ("feature.env.include", "feature.env.exclude");
    if let (Some(_), Some((_, place))) = (values.get(include), values.get(exclude)) {
        mistakes.push(place.mistake(format!("{include:?} and {exclude:?} can't stand together")));
    }
    if let Some((Given::Words(words), place)) = values.get(include) {
        for word in words {
            if let Some(rule) = LOCAL.iter().find(|rule| rule.never && rule.fits(word.as_bytes())) {
                mistakes.push(place.mistake(format!(
                    "{word:?} is never taken from a pod: {}; \"feature.env.override\" can set it",
                    rule.reason
                )));
            }
        }
    }
    let rows = values.rows("feature.env.override");
    Some(Rules {
        include: values.get(include).map(|_| values.words(include)),
        exclude: values.words(exclude),
        mapping: mapping(values, mistakes),
        file: values.text("feature.env.env_file").map(|(path, _)| base.join(path)),
        set: rows.iter().map(|row| (row.name.clone(), row.value.clone())).collect(),
        unset: values.words("feature.env.unset"),
    })
}

fn mapping(values: &Values, mistakes: &mut Vec<Mistake>) -> Vec<Mapping> {
    let mut mappings = Vec::new();
    for row in values.rows("feature.env.mapping") {
        match Mapping::new(&row.name, &row.value) {
            Ok(mapping) => mappings.push(mapping),
            Err(why) => {
                let what = format!("{:?} is no regular expression: {why}", row.name);
                mistakes.push(row.place.mistake(what));
            }
        }
    }
    mappings
}

fn files(values: &Values) -> bool {
    let mode = values.text("feature.fs.mode").or_else(|| values.text("feature.fs"));
    mode.map_or_else(|| values.switch("feature.fs").is_none_or(|(on, _)| on), |(mode, _)| mode == "read")
}

fn outgoing(values: &Values, mistakes: &mut Vec<Mistake>) -> bool {
    let all = values.switch("feature.network").is_none_or(|(on, _)| on);
    let outgoing = values.switch("feature.network.outgoing").map_or(all, |(on, _)| on);
    if let Some((dns, place)) = values.switch("feature.network.dns")
        && dns != outgoing
    {
        mistakes.push(place.mistake(format!(
            "\"feature.network.dns\" can't differ from \"feature.network.outgoing\" ({outgoing}) in this release"
        )));
    }
    outgoing
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn config(text: &str) -> Config {
        resolve(text, Path::new("mirrord.json"), Path::new("/project")).unwrap()
    }

    fn mistakes(text: &str) -> String {
        let found = resolve(text, Path::new(".mirrord/mirrord.json"), Path::new("/")).unwrap_err();
        crate::exit::Problem::from(found).message
    }

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(config(""), Config::standard());
        assert_eq!(config("{ /* nothing yet */ }"), Config::standard());
    }

    #[test]
    fn a_target_can_be_written_as_at_the_peer() {
        for text in [
            r#"{"target": "deployment/shop/container/web"}"#,
            r#"{"target": {"path": "deployment/shop/container/web"}}"#,
            r#"{"target": {"path": {"deployment": "shop", "container": "web"}}}"#,
            r#"{"target": {"deployment": "shop", "container": "web"}}"#,
        ] {
            let target = config(text).target.map(|target| target.to_string());
            assert_eq!(target.as_deref(), Some("deployment/shop/container/web"), "{text}");
        }
    }

    #[test]
    fn everything_that_works_is_taken() {
        let text = r#"{
            "$schema": "x",
            "target": {"path": "pod/a", "namespace": "shop"},
            "kubeconfig": "k", "kube_context": "dev", // which cluster
            "feature": {
                "env": {
                    "include": "A;B_*", "override": {"C": "1"}, "unset": ["D"], "env_file": ".env", "mapping": {"E.": "2"},
                },
                "fs": {"mode": "local"},
                "network": {"outgoing": false, "dns": false},
            },
        }"#;
        let expected = Config {
            target: "pod/a".parse().ok(),
            namespace: Some("shop".to_owned()),
            kubeconfig: Some(PathBuf::from("/project/k")),
            context: Some("dev".to_owned()),
            environment: Some(Rules {
                include: Some(vec!["A".to_owned(), "B_*".to_owned()]),
                exclude: vec![],
                mapping: vec![Mapping::new("E.", "2").unwrap()],
                file: Some(PathBuf::from("/project/.env")),
                set: vec![("C".to_owned(), "1".to_owned())],
                unset: vec!["D".to_owned()],
            }),
            files: false,
            outgoing: false,
        };
        assert_eq!(config(text), expected);
    }

    #[test]
    fn switches_stand_for_whole_objects() {
        let off = config(r#"{"feature": {"env": false, "fs": false, "network": false}}"#);
        assert_eq!((off.environment, off.files, off.outgoing), (None, false, false));
        assert!(config(r#"{"feature": {"fs": "read"}}"#).files);
        assert!(!config(r#"{"feature": {"fs": "local"}}"#).files);
    }

    #[test]
    fn an_unknown_key_is_told_with_its_place_and_the_nearest_name() {
        assert_eq!(
            mistakes("{\n  \"trget\": \"pod/a\"\n}"),
            ".mirrord/mirrord.json:2:3: unknown key \"trget\", did you mean \"target\"?"
        );
        assert_eq!(
            mistakes("{\"feature\": {\"network\": {\"outgoin\": true}}}"),
            ".mirrord/mirrord.json:1:26: unknown key \"outgoin\" in \"feature.network\", did you mean \"outgoing\"?"
        );
        assert_eq!(
            mistakes("{\"ä\": 1, \"zzzzzzzz\": 1}").lines().last(),
            Some(
                ".mirrord/mirrord.json:1:10: unknown key \"zzzzzzzz\"; there are \"$schema\", \"feature\", \"kube_context\", \"kubeconfig\", \"target\""
            )
        );
    }

    #[test]
    fn a_pattern_that_is_none_is_told_with_its_place() {
        assert_eq!(
            mistakes("{\"feature\": {\"env\": {\"mapping\": {\n\"A\": \"1\", \"B(\": \"2\"}}}}"),
            ".mirrord/mirrord.json:2:11: \"B(\" is no regular expression: unclosed group"
        );
    }

    #[test]
    fn a_key_at_the_wrong_place_is_led_to_the_right_one() {
        for (wrong, meant) in [
            ("namespace", "\"namespace\" in \"target\""),
            ("target.namespace", "\"namespace\" in \"target\""),
            ("deployment", "\"deployment\" in \"target\""),
            ("exclude", "\"exclude\" in \"feature.env\""),
        ] {
            let told = mistakes(&format!("{{\"{wrong}\": 1}}"));
            assert_eq!(
                told,
                format!(".mirrord/mirrord.json:1:2: unknown key \"{wrong}\", did you mean {meant}?")
            );
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once_in_the_file_s_order() {
        let text = r#"{
  "feature": {
    "env": {"include": "A", "exclude": 7},
    "fs": "write",
    "network": {"dns": false}
  },
  "target": "shop",
  "target": "pod/a"
}"#;
        let expected = "\
.mirrord/mirrord.json:3:40: \"feature.env.exclude\" must be a string of words separated by \";\", or a list of strings
.mirrord/mirrord.json:4:11: \"feature.fs\" must be true or false, or \"read\" or \"local\", or an object
.mirrord/mirrord.json:5:24: \"feature.network.dns\" can't differ from \"feature.network.outgoing\" (true) in this release
.mirrord/mirrord.json:7:13: \"shop\" is no target: write kind/name or kind/name/container/container-name, as in deployment/checkout
.mirrord/mirrord.json:8:3: \"target\" stands here twice";
        assert_eq!(mistakes(text), expected);
    }

    #[test]
    fn broken_json_is_told_with_its_place() {
        let message = mistakes("{\n  \"target\": pod\n}");
        assert!(message.starts_with(".mirrord/mirrord.json:2:13: this is no JSON: "), "{message}");
        assert_eq!(mistakes("[]"), ".mirrord/mirrord.json:1:1: the configuration must be an object: {…}");
    }

    #[test]
    fn what_is_never_taken_can_t_be_asked_for() {
        let path = mistakes(r#"{"feature": {"env": {"include": ["PORT", "PATH"]}}}"#);
        assert!(path.contains(":1:33: \"PATH\" is never taken from a pod"), "{path}");
        assert!(config(r#"{"feature": {"env": {"include": "HOME;*"}}}"#).environment.is_some());
    }

    #[test]
    fn contradictions_are_mistakes() {
        let both = mistakes(r#"{"feature": {"env": {"include": "A", "exclude": "B"}}}"#);
        assert!(both.contains("can't stand together"), "{both}");
        let two = mistakes(r#"{"target": {"deployment": "a", "pod": "b"}}"#);
        assert!(two.contains("there is a target already: deployment/a"), "{two}");
        let none = mistakes(r#"{"target": {"container": "a"}}"#);
        assert!(none.contains("a container of which target?"), "{none}");
    }
}
