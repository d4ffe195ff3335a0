//! The program's environment: the local one, the pod's over it, then the user's wishes.
//!
//! Some variables describe this machine and stay local unless asked for; others would make a pod run code here, and
//! are never taken. Both kinds are in one table, [`LOCAL`], with their reasons. Pure: environments come in as lists.

pub mod file;
mod local;
mod mapping;

pub use local::{LOCAL, Local};
pub use mapping::Mapping;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
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
    /// Values that the pod's get.
    pub mapping: Vec<Mapping>,
    /// More variables, over the pod's: see [`file`].
    pub file: Option<PathBuf>,
    /// Values of the user's own.
    pub set: Vec<(String, String)>,
    /// Gone in the end.
    pub unset: Vec<String>,
}

impl Rules {
    /// Whether a variable of the pod is taken.
    #[must_use]
    pub fn takes(&self, name: &OsStr) -> bool {
        let name = name.as_bytes();
        let asked = self.include.as_ref().map(|names| fits_any(names, name));
        match LOCAL.iter().find(|rule| rule.fits(name)) {
            Some(Local { never: true, .. }) => false,
            // Included by its name, not only by a `*`.
            Some(_) => self.include.iter().flatten().any(|asked| asked.as_bytes() == name),
            None => asked.unwrap_or(true) && !fits_any(&self.exclude, name),
        }
    }

    /// The program's environment; `file` is what stands in the user's file of variables.
    #[must_use]
    pub fn merge(&self, local: Variables, pod: Variables, file: Variables) -> Variables {
        let mut taken: Variables = pod.into_iter().filter(|(name, _)| self.takes(name)).collect();
        mapping::apply(&self.mapping, &mut taken);
        let mut merged = local;
        merged.extend(taken);
        merged.extend(file);
        merged.extend(self.set.iter().map(|(name, value)| (name.into(), value.into())));
        merged.retain(|name, _| !fits_any(&self.unset, name.as_bytes()));
        merged
    }
}

/// Takes out what execve(2) wouldn't pass on: it takes strings of up to 32 pages, of which a pod's node may have larger ones.
/// Returns the names.
pub fn drop_too_long(variables: &mut Variables) -> Vec<OsString> {
    const LONGEST: usize = 32 * 4096;
    let fits = |name: &OsString, value: &OsString| name.len() + value.len() + "=\0".len() <= LONGEST;
    let (kept, dropped) = std::mem::take(variables).into_iter().partition(|(name, value)| fits(name, value));
    *variables = kept;
    let dropped: Variables = dropped;
    dropped.into_keys().collect()
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
        assert_eq!(Rules::default().merge(local, pod, Variables::new()), expected);
    }

    #[test]
    fn a_pod_can_t_run_code_here_even_if_the_configuration_asks_for_it() {
        let dangerous = [
            "LD_PRELOAD LD_AUDIT LD_LIBRARY_PATH GLIBC_TUNABLES GCONV_PATH MALLOC_TRACE SSLKEYLOGFILE OPENSSL_CONF",
            "BASH_ENV ENV BASH_FUNC_ls%% PROMPT_COMMAND PROMPT_COMMANDS PS4 IFS SHELLOPTS ZDOTDIR fish_function_path",
            "NODE_OPTIONS NODE_REPL_EXTERNAL_MODULE npm_config_script_shell Npm_Config_Node_Options",
            "PYTHONSTARTUP PYTHONPATH PYTHONWARNINGS COVERAGE_PROCESS_START PIP_INDEX_URL pip_index_url",
            "JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS JDK_JAVAC_OPTIONS _JAVA_OPTIONS OPENJ9_JAVA_OPTIONS JAVA_OPTS LOADER_PATH",
            "PERL5OPT PERL5LIB RUBYOPT XDEBUG_CONFIG PHPRC LUA_INIT_5_4 ERL_FLAGS R_PROFILE_USER JULIA_LOAD_PATH",
            "DOTNET_STARTUP_HOOKS dotnet_startup_hooks CORECLR_PROFILER_PATH aspnetcore_hostingstartupassemblies",
            "GIT_SSH_COMMAND GIT_CONFIG_COUNT GIT_EXTERNAL_DIFF EDITOR KUBE_EDITOR PAGER SYSTEMD_PAGER LESS LESSOPEN",
            "PSQLRC CURL_HOME WGETRC TAR_OPTIONS RSYNC_RSH MAKEFLAGS CONFIG_SITE GOFLAGS GOAUTH RUSTC_WRAPPER",
            "KUBECONFIG AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE DOCKER_HOST HELM_PLUGINS PATH MIRRORD_LAYER_FILE",
        ];
        let dangerous: Vec<&str> = dangerous.iter().flat_map(|line| line.split(' ')).collect();
        let everything = Rules {
            include: Some(dangerous.iter().map(|name| (*name).to_owned()).chain(["*".to_owned()]).collect()),
            ..Rules::default()
        };
        let pod: Variables = dangerous.iter().map(|name| (name.into(), "evil".into())).collect();
        assert_eq!(everything.merge(Variables::new(), pod, Variables::new()), Variables::new());
    }

    #[test]
    fn what_applications_are_configured_by_is_taken() {
        let usual = [
            "NODE_ENV PYTHONUNBUFFERED JAVA_VERSION SPRING_DATASOURCE_URL ASPNETCORE_URLS DOTNET_ENVIRONMENT RUST_LOG",
            "GOMAXPROCS GODEBUG MIX_ENV RAILS_ENV DJANGO_SETTINGS_MODULE PGHOST PGPASSWORD DATABASE_URL VAULT_ADDR TZ",
            "AWS_REGION AWS_WEB_IDENTITY_TOKEN_FILE GOOGLE_APPLICATION_CREDENTIALS HTTP_PROXY SSL_CERT_FILE env path",
            "KUBERNETES_SERVICE_HOST OTEL_EXPORTER_OTLP_ENDPOINT LOG_LEVEL HOSTNAME UV_THREADPOOL_SIZE SASL_PASSWORD",
        ];
        for name in usual.iter().flat_map(|line| line.split(' ')) {
            assert!(Rules::default().takes(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn what_describes_this_machine_is_taken_only_by_its_name() {
        let pod = || variables(&[("HOME", "/root"), ("LANG", "C"), ("A", "1")]);
        let all = Rules { include: Some(vec!["*".to_owned()]), ..Rules::default() };
        assert_eq!(names(&all.merge(Variables::new(), pod(), Variables::new())), ["A"]);
        let home = Rules { include: Some(vec!["HOME".to_owned()]), ..Rules::default() };
        assert_eq!(names(&home.merge(Variables::new(), pod(), Variables::new())), ["HOME"]);
    }

    #[test]
    fn excluding_mapping_the_file_overriding_and_unsetting_come_in_this_order() {
        let rules = Rules {
            exclude: vec!["AWS_*".to_owned(), "?_X".to_owned()],
            mapping: vec![Mapping::new("(AB|AC)_X|AWS_REGION|KEPT", "$1").unwrap()],
            set: vec![("AWS_REGION".to_owned(), "mine".to_owned()), ("GONE".to_owned(), "set".to_owned())],
            unset: vec!["GONE".to_owned(), "LOCAL_*".to_owned()],
            ..Rules::default()
        };
        let local = variables(&[("LOCAL_A", "1"), ("KEPT", "1")]);
        let pod = [("AWS_KEY", "k"), ("AWS_REGION", "pod"), ("A_X", "x"), ("AB_X", "x"), ("AC_X", "x")];
        let file = variables(&[("AC_X", "file"), ("AWS_REGION", "file"), ("FILE", "file")]);
        let merged = rules.merge(local, variables(&pod), file);
        let expected =
            [("AB_X", "AB"), ("AC_X", "file"), ("AWS_REGION", "mine"), ("FILE", "file"), ("KEPT", "1")];
        assert_eq!(merged, variables(&expected));
    }

    #[test]
    fn what_the_kernel_wouldn_t_take_is_left_out_and_named() {
        let long = |length: usize| "x".repeat(length);
        let mut variables = variables(&[("A", &long(32 * 4096 - 3)), ("B", &long(32 * 4096 - 2)), ("C", "")]);
        assert_eq!(drop_too_long(&mut variables), ["B"]);
        assert_eq!(names(&variables), ["A", "C"]);
        let passed = std::process::Command::new("/bin/true").env_clear().envs(variables).status();
        assert!(passed.unwrap().success());
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
            for name in rule.names() {
                assert!(!LOCAL[index + 1..].iter().any(|other| other.names().any(|it| it == name)), "{name}");
                assert!(!rule.any_case() || name.to_ascii_uppercase() == name, "{name}");
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
