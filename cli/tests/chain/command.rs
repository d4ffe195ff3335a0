//! The command line by itself: what it prints where, and with which code it ends.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use mirrord_cli::{config::keys::KEYS, exit::TABLE, variables::VARIABLES};

/// Nobody is there.
const KUBECONFIG: &str = "{apiVersion: v1, kind: Config, current-context: c, \
    clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], contexts: [{name: c, context: {cluster: c, user: u}}], \
    users: [{name: u, user: {token: t}}]}";

fn mirrord(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mirrord"));
    command
        .env_clear()
        .current_dir(folder)
        .env("PATH", "/usr/bin:/bin")
        .env("XDG_RUNTIME_DIR", folder)
        .env("HOME", folder);
    command
}

/// Runs to its end: code, stdout, stderr.
fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn help_fits_a_screen_and_documents_every_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["-h"][..], &["exec", "-h"], &["ls", "-h"], &["session", "stop", "-h"]] {
        let (code, help, _) = run(mirrord(folder.path()).args(arguments));
        assert_eq!(code, 0);
        assert!(help.lines().count() <= 24, "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
    let (_, help, _) = run(mirrord(folder.path()).arg("--help"));
    for (_, number, meaning) in TABLE {
        assert!(help.contains(&format!("{number}  {meaning}")), "{help}");
    }
    let (_, help, _) = run(mirrord(folder.path()).args(["exec", "--help"]));
    assert!(VARIABLES.iter().all(|(name, _)| help.contains(name)), "{help}");
    let (_, help, _) = run(mirrord(folder.path()).args(["verify-config", "--help"]));
    assert!(KEYS.iter().all(|key| help.contains(key.path)), "{help}");
}

#[test]
fn a_wrong_command_line_ends_with_64() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["exec"][..], &["nonsense"], &["exec", "-t", "shop", "--", "true"]] {
        let (code, out, err) = run(mirrord(folder.path()).args(arguments));
        assert_eq!((code, out.as_str()), (64, ""));
        assert!(err.starts_with("error: "), "{err}");
    }
    let (code, _, err) = run(mirrord(folder.path()).args(["ls"]).env("MIRRORD_PROGRESS_MODE", "loud"));
    assert_eq!(code, 64);
    assert!(
        err.contains("MIRRORD_PROGRESS_MODE can't be \"loud\"") && err.contains("help: use standard"),
        "{err}"
    );
}

#[test]
fn a_wrong_configuration_is_told_with_its_place_by_every_command_that_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".mirrord")).unwrap();
    fs::write(folder.path().join(".mirrord/mirrord.json"), "{\n  \"trget\": \"pod/a\"\n}").unwrap();
    let expected = "error: .mirrord/mirrord.json:2:3: unknown key \"trget\", did you mean \"target\"?\n";
    for arguments in
        [&["verify-config"][..], &["exec", "--", "true"], &["ls"], &["session", "ls"], &["check"]]
    {
        let (code, out, err) = run(mirrord(folder.path()).args(arguments));
        assert_eq!((code, out.as_str()), (65, ""));
        assert!(err.starts_with(expected), "{err}");
    }
    let (code, out, _) = run(mirrord(folder.path()).args(["verify-config", "-o", "json"]));
    let verdict: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 65);
    assert_eq!(verdict["valid"], false);
    assert_eq!((&verdict["problems"][0]["line"], &verdict["problems"][0]["column"]), (&2.into(), &3.into()));
}

#[test]
fn a_broken_file_of_variables_is_told_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".mirrord")).unwrap();
    let config = r#"{"target": "pod/a", "feature": {"env": {"env_file": ".env"}}}"#;
    fs::write(folder.path().join(".mirrord/mirrord.json"), config).unwrap();
    fs::write(folder.path().join(".env"), "A=1\n'B\n").unwrap();
    fs::write(folder.path().join("kubeconfig"), KUBECONFIG).unwrap();
    for arguments in [&["verify-config"][..], &["exec", "--kubeconfig", "kubeconfig", "--", "true"]] {
        let (code, _, err) = run(mirrord(folder.path()).args(arguments));
        assert!(code == 65 && err.contains("/.env:2:"), "{err}");
    }
}

#[test]
fn a_right_configuration_is_shown_with_its_defaults() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("m.json"), r#"{"target": {"path": "deploy/a", "namespace": "shop"}}"#)
        .unwrap();
    let (code, out, err) = run(mirrord(folder.path()).args(["verify-config", "m.json"]));
    assert_eq!((code, err.as_str()), (0, "mirrord: m.json is right\n"));
    let shown = |key: &str, value: &str| {
        out.lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == [key, value])
    };
    assert!(shown("target.path", "deployment/a") && shown("feature.fs", "read"), "{out}");
    let (_, out, _) = run(mirrord(folder.path()).args(["verify-config", "-o", "json", "m.json"]));
    let verdict: serde_json::Value = serde_json::from_str(&out).unwrap();
    let again = folder.path().join("again.json");
    fs::write(&again, verdict["config"].to_string()).unwrap();
    assert_eq!(
        run(mirrord(folder.path()).args(["verify-config", "again.json"])).0,
        0,
        "what is shown can be read"
    );
}

#[test]
fn a_program_that_can_t_be_run_is_told_before_anything_is_asked_of_the_cluster() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("plain"), "").unwrap();
    let exec = |program: &str| run(mirrord(folder.path()).args(["exec", "-t", "pod/a", "--", program]));
    let (code, _, err) = exec("no-such-program");
    assert_eq!(code, 127);
    assert!(err.contains("no-such-program: there is no such program in PATH"), "{err}");
    let (code, _, err) = exec("./plain");
    assert_eq!(code, 126);
    assert!(err.contains("help: a file is made a program by: chmod +x ./plain"), "{err}");
}

#[test]
fn without_kubeconfig_or_target_the_next_step_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (code, _, err) = run(mirrord(folder.path()).args(["ls"]));
    assert_eq!(code, 65);
    assert!(err.contains("there is no kubeconfig") && err.contains("help: set KUBECONFIG"), "{err}");
    let (code, _, err) =
        run(mirrord(folder.path()).args(["exec", "-t", "pod/a", "--kubeconfig", "none", "--", "true"]));
    assert_eq!(code, 65);
    assert!(err.contains("/none: "), "{err}");
}

#[test]
fn a_target_in_a_wrong_place_is_told_with_the_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let told = |arguments: &[&str], words: &[&str]| {
        let (code, _, err) = run(mirrord(folder.path()).arg("exec").args(arguments));
        assert_eq!(code, 64, "{err}");
        words.iter().for_each(|word| assert!(err.contains(word), "no {word:?} in {err}"));
    };
    let line = "mirrord exec -t deployment/checkout -- PROGRAM";
    told(&["deployment/checkout", "--", "true"], &["is a target, where the program belongs", line]);
    told(&["true", "-t", "deployment/checkout"], &["there is no target: -t behind the program"]);
    told(&["--", "true"], &["there is no target", "name one: mirrord exec -t deployment/NAME"]);
}

#[test]
fn a_mistyped_variable_of_ours_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = mirrord(folder.path());
    let (_, _, err) = run(command.args(["exec", "--", "true"]).env("MIRRORD_TARGT", "deployment/checkout"));
    assert!(err.contains("doesn't know the variable MIRRORD_TARGT, did you mean MIRRORD_TARGET?"), "{err}");
}

#[test]
fn a_credential_plugin_that_fails_is_told_by_its_own_words_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = r#"{apiVersion: v1, kind: Config, current-context: c,
        clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}],
        contexts: [{name: c, context: {cluster: c, user: u}}],
        users: [{name: u, user: {exec: {
            apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: sh,
            args: [-c, 'echo its-output; echo "SSO session expired" >&2; exit 3 # its-argument']}}}]}"#;
    fs::write(folder.path().join("kubeconfig"), kubeconfig).unwrap();
    let (code, _, err) = run(mirrord(folder.path()).args(["ls", "--kubeconfig", "kubeconfig"]));
    assert_eq!(code, 65, "{err}");
    assert!(err.contains("its plugin sh failed (exit status: 3), \"SSO session expired\""), "{err}");
    assert!(!err.contains("its-output") && !err.contains("its-argument"), "{err}");
}

#[test]
fn progress_off_still_tells_why_there_is_no_program_and_json_tells_it_to_programs() {
    let folder = tempfile::tempdir().unwrap();
    let (_, _, off) = run(mirrord(folder.path()).arg("ls").env("MIRRORD_PROGRESS_MODE", "off"));
    assert!(off.starts_with("error: there is no kubeconfig"), "{off}");
    let (_, _, json) = run(mirrord(folder.path()).arg("ls").env("MIRRORD_PROGRESS_MODE", "json"));
    let line: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&line["type"], &line["code"]), (&"error".into(), &65.into()));
    assert!(line["help"].as_str().unwrap().contains("KUBECONFIG"));
}
