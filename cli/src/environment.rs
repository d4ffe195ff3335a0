//! The program's environment: the local one, the pod's over it, then the user's wishes.
//!
//! Some variables describe this machine and stay local unless asked for; others would make a pod run code here, and
//! are never taken. Both kinds are in one table, [`LOCAL`], with their reasons. Pure: environments come in as lists.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

/// An environment.
pub type Variables = BTreeMap<OsString, OsString>;

/// The user's wishes. In names `*` stands for any characters and `?` for one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Only these of the pod's.
    pub include: Option<Vec<String>>,
    /// None of these of the pod's.
    pub exclude: Vec<String>,
    /// Values of the user's own.
    pub set: Vec<(String, String)>,
    /// Gone in the end.
    pub unset: Vec<String>,
}

/// Variables that aren't taken from a pod.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    /// Names; `*` stands for any characters.
    pub names: &'static [&'static str],
    /// Not even where they are included by name.
    pub never: bool,
    /// Why.
    pub reason: &'static str,
}

const fn never(names: &'static [&'static str], reason: &'static str) -> Local {
    Local { names, never: true, reason }
}

const fn local(names: &'static [&'static str], reason: &'static str) -> Local {
    Local { names, never: false, reason }
}

/// The table.
pub const LOCAL: &[Local] = &[
    never(&["MIRRORD_*"], "mirrord's own"),
    never(&["PATH"], "names the folders that programs are run from"),
    never(
        &["LD_*", "GCONV_PATH", "LOCPATH", "GLIBC_TUNABLES"],
        "the dynamic linker and glibc load code by them",
    ),
    never(
        &["OPENSSL_CONF", "OPENSSL_ENGINES", "OPENSSL_MODULES", "GTK_MODULES", "QT_PLUGIN_PATH"],
        "libraries load modules by them",
    ),
    never(
        &[
            "BASH_ENV",
            "ENV",
            "BASH_FUNC_*",
            "PROMPT_COMMAND",
            "PS0",
            "PS1",
            "PS2",
            "PS4",
            "IFS",
            "SHELLOPTS",
            "BASHOPTS",
            "ZDOTDIR",
        ],
        "shells run or split text by them",
    ),
    never(
        &[
            "PYTHONHOME",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PYTHONBREAKPOINT",
            "PYTHONWARNINGS",
            "PYTHONEXECUTABLE",
            "PYTHONUSERBASE",
            "PYTHONPLATLIBDIR",
            "PYTHONPYCACHEPREFIX",
            "PYTHONINSPECT",
            "PYTEST_*",
        ],
        "Python imports code by them",
    ),
    never(&["NODE_OPTIONS", "NODE_PATH", "NPM_CONFIG_*", "npm_config_*"], "Node.js loads code by them"),
    never(
        &[
            "JAVA_TOOL_OPTIONS",
            "JDK_JAVA_OPTIONS",
            "_JAVA_OPTIONS",
            "*_JAVA_OPTIONS",
            "CLASSPATH",
            "MAVEN_OPTS",
            "MAVEN_ARGS",
            "GRADLE_OPTS",
        ],
        "Java loads agents and classes by them",
    ),
    never(&["PERL5OPT", "PERL5LIB", "PERLLIB", "PERL5DB"], "Perl loads code by them"),
    never(&["RUBYOPT", "RUBYLIB", "GEM_*", "BUNDLE_*"], "Ruby loads code by them"),
    never(
        &[
            "DOTNET_STARTUP_HOOKS",
            "DOTNET_ADDITIONAL_DEPS",
            "DOTNET_GCName",
            "DOTNET_GCPath",
            "CORECLR_*",
            "COR_*",
        ],
        ".NET loads code by them",
    ),
    never(
        &[
            "PHPRC",
            "PHP_INI_SCAN_DIR",
            "LUA_INIT*",
            "LUA_PATH*",
            "LUA_CPATH*",
            "ERL_*",
            "ELIXIR_ERL_OPTIONS",
            "R_PROFILE*",
            "R_ENVIRON*",
            "R_LIBS*",
        ],
        "other languages load code by them",
    ),
    never(&["GIT_*"], "git runs commands by them"),
    never(
        &[
            "EDITOR",
            "VISUAL",
            "PAGER",
            "*_PAGER",
            "MANPAGER",
            "BROWSER",
            "LESSOPEN",
            "LESSCLOSE",
            "SHELL",
            "SSH_ASKPASS",
            "SUDO_ASKPASS",
            "VIMINIT",
            "EXINIT",
            "HGRCPATH",
        ],
        "name commands that tools run",
    ),
    never(
        &[
            "CC",
            "CXX",
            "MAKEFLAGS",
            "GNUMAKEFLAGS",
            "MAKEFILES",
            "GOFLAGS",
            "CARGO_*",
            "TAR_OPTIONS",
            "RSYNC_RSH",
            "RUSTC",
            "RUSTC_*",
            "RUSTFLAGS",
            "RUSTDOC",
        ],
        "build tools run commands by them",
    ),
    never(
        &["KUBECONFIG", "AWS_CONFIG_FILE", "DOCKER_CONFIG"],
        "these files name commands that give credentials",
    ),
    local(
        &["HOME", "USER", "LOGNAME", "PWD", "OLDPWD", "SHLVL", "_"],
        "who and where the user is on this machine",
    ),
    local(
        &[
            "TERM",
            "TERMINFO",
            "COLORTERM",
            "COLUMNS",
            "LINES",
            "DISPLAY",
            "WAYLAND_DISPLAY",
            "XAUTHORITY",
            "DBUS_*",
        ],
        "this terminal and desktop",
    ),
    local(&["LANG", "LANGUAGE", "LC_*"], "locales are those installed on this machine"),
    local(&["TMPDIR", "TMP", "TEMP", "XDG_*"], "folders of this machine"),
    local(&["SSH_*", "GPG_*"], "agents and connections of this machine"),
    local(
        &[
            "JAVA_HOME",
            "GOPATH",
            "GOROOT",
            "RUSTUP_HOME",
            "DOTNET_ROOT",
            "VIRTUAL_ENV",
            "CONDA_*",
            "NVM_*",
            "PYENV_*",
            "RBENV_*",
        ],
        "tool chains are those of this machine",
    ),
];

impl Rules {
    /// Whether a variable of the pod is taken.
    #[must_use]
    pub fn takes(&self, name: &OsStr) -> bool {
        let name = name.as_bytes();
        let asked = self.include.as_ref().map(|names| fits_any(names, name));
        match LOCAL.iter().find(|rule| fits_any(rule.names, name)) {
            Some(Local { never: true, .. }) => false,
            // Included by its name, not only by a `*`.
            Some(_) => self.include.iter().flatten().any(|asked| asked.as_bytes() == name),
            None => asked.unwrap_or(true) && !fits_any(&self.exclude, name),
        }
    }

    /// The program's environment.
    #[must_use]
    pub fn merge(&self, local: Variables, pod: Variables) -> Variables {
        let mut merged = local;
        merged.extend(pod.into_iter().filter(|(name, _)| self.takes(name)));
        merged.extend(self.set.iter().map(|(name, value)| (name.into(), value.into())));
        merged.retain(|name, _| !fits_any(&self.unset, name.as_bytes()));
        merged
    }
}

/// Reads `NAME=value` pairs separated by NUL, as the sidecar and environ(7) have them. Where a name stands twice,
/// getenv(3) finds the first.
#[must_use]
pub fn parse(bytes: &[u8]) -> Variables {
    let mut variables = Variables::new();
    for pair in bytes.split(|byte| *byte == 0) {
        if let Some(equals) = pair.iter().position(|byte| *byte == b'=').filter(|position| *position > 0) {
            let owned = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
            variables.entry(owned(&pair[..equals])).or_insert_with(|| owned(&pair[equals + 1..]));
        }
    }
    variables
}

fn fits_any<P: AsRef<str>>(patterns: &[P], name: &[u8]) -> bool {
    patterns.iter().any(|pattern| matches(pattern.as_ref().as_bytes(), name))
}

/// Whether a name fits a pattern. Backtracks to the last `*` only, so the time is bounded by the product of lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => (p, n) = (p + 1, n + 1),
            _ => match &mut star {
                Some((position, eaten)) => {
                    *eaten += 1;
                    (p, n) = (*position + 1, *eaten);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn names(variables: &Variables) -> Vec<&str> {
        variables.keys().filter_map(|name| name.to_str()).collect()
    }

    #[test]
    fn the_pod_s_variables_lie_over_the_local_ones() {
        let local = variables(&[("A", "local"), ("B", "local"), ("HOME", "/home/me"), ("PATH", "/bin")]);
        let pod =
            variables(&[("B", "pod"), ("C", "pod"), ("HOME", "/root"), ("PATH", "/app"), ("HOSTNAME", "p")]);
        let expected = variables(&[
            ("A", "local"),
            ("B", "pod"),
            ("C", "pod"),
            ("HOME", "/home/me"),
            ("HOSTNAME", "p"),
            ("PATH", "/bin"),
        ]);
        assert_eq!(Rules::default().merge(local, pod), expected);
    }

    #[test]
    fn a_pod_can_t_run_code_here_even_if_the_configuration_asks_for_it() {
        let dangerous = [
            "LD_PRELOAD",
            "LD_AUDIT",
            "BASH_ENV",
            "BASH_FUNC_ls%%",
            "NODE_OPTIONS",
            "PYTHONSTARTUP",
            "GIT_SSH_COMMAND",
            "JAVA_TOOL_OPTIONS",
            "_JAVA_OPTIONS",
            "PERL5OPT",
            "RUBYOPT",
            "EDITOR",
            "PAGER",
            "PATH",
            "KUBECONFIG",
            "MIRRORD_LAYER_FILE",
            "PS4",
            "IFS",
            "DOTNET_STARTUP_HOOKS",
        ];
        let everything = Rules {
            include: Some(dangerous.iter().map(|name| (*name).to_owned()).chain(["*".to_owned()]).collect()),
            ..Rules::default()
        };
        let pod: Variables = dangerous.iter().map(|name| (name.into(), "evil".into())).collect();
        assert_eq!(everything.merge(Variables::new(), pod), Variables::new());
    }

    #[test]
    fn what_describes_this_machine_is_taken_only_by_its_name() {
        let pod = || variables(&[("HOME", "/root"), ("LANG", "C"), ("A", "1")]);
        let all = Rules { include: Some(vec!["*".to_owned()]), ..Rules::default() };
        assert_eq!(names(&all.merge(Variables::new(), pod())), ["A"]);
        let home = Rules { include: Some(vec!["HOME".to_owned()]), ..Rules::default() };
        assert_eq!(names(&home.merge(Variables::new(), pod())), ["HOME"]);
    }

    #[test]
    fn excluding_overriding_and_unsetting_come_in_this_order() {
        let rules = Rules {
            include: None,
            exclude: vec!["AWS_*".to_owned(), "?_X".to_owned()],
            set: vec![("AWS_REGION".to_owned(), "mine".to_owned()), ("GONE".to_owned(), "set".to_owned())],
            unset: vec!["GONE".to_owned(), "LOCAL_*".to_owned()],
        };
        let local = variables(&[("LOCAL_A", "1"), ("KEPT", "1")]);
        let pod = variables(&[("AWS_KEY", "k"), ("AWS_REGION", "pod"), ("A_X", "x"), ("AB_X", "x")]);
        let expected = variables(&[("AB_X", "x"), ("AWS_REGION", "mine"), ("KEPT", "1")]);
        assert_eq!(rules.merge(local, pod), expected);
    }

    #[test]
    fn an_environment_is_read_as_the_kernel_writes_it() {
        let parsed = parse(b"A=1\0EMPTY=\0A=2\0B==\xff\0nonsense\0=x\0\0");
        let expected = [("A", &b"1"[..]), ("B", b"=\xff"), ("EMPTY", b"")];
        let expected: Variables =
            expected.iter().map(|(name, value)| (name.into(), OsStr::from_bytes(value).into())).collect();
        assert_eq!(parsed, expected);
    }

    #[test]
    fn no_name_stands_in_two_rows() {
        for (index, rule) in LOCAL.iter().enumerate() {
            for name in rule.names {
                assert!(!LOCAL[index + 1..].iter().any(|other| other.names.contains(name)), "{name}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_pattern_made_from_a_name_fits_it(name in "[A-Z_]{1,12}", from in 0_usize..12, to in 0_usize..12) {
            let (from, to) = (from.min(to).min(name.len()), from.max(to).min(name.len()));
            let pattern = format!("{}*{}", &name[..from], &name[to..]);
            prop_assert!(matches(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn any_environment_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse(&bytes);
        }
    }
}
