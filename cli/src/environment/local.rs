//! Which variables aren't taken from a pod: one table, each row with its reason.
//!
//! The first row that a name fits decides. Who writes a pod's environment could otherwise have the developer's machine run code:
//! by a variable that *is* code or a command, that names a file to run or load (the layer would even fetch it from
//! the pod), that chooses options of an interpreter, or that has a tool ask elsewhere for code. Variables that make a program
//! overwrite a file of the pod's choice count too. Sources are the programs' manuals, the list that ld.so drops in
//! secure mode (sysdeps/generic/unsecvars.h of glibc), sudo's, and published attacks by environment. Such a list is never
//! complete; [`super::Rules`] can leave out more.

/// Variables that aren't taken from a pod.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    /// Names, separated by white space; `*` stands for any characters.
    names: &'static str,
    /// Not even where they are included by name.
    pub never: bool,
    /// Whoever reads them doesn't mind their case; the names here are in capitals.
    any_case: bool,
    /// Why.
    pub reason: &'static str,
}

impl Local {
    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.names.split_ascii_whitespace()
    }

    #[cfg(test)]
    pub(super) fn any_case(&self) -> bool {
        self.any_case
    }

    /// Whether a name is one of them.
    #[must_use]
    pub fn fits(&self, name: &[u8]) -> bool {
        if !self.any_case {
            return self.names().any(|pattern| super::matches(pattern.as_bytes(), name));
        }
        let name = name.to_ascii_uppercase();
        self.names().any(|pattern| super::matches(pattern.as_bytes(), &name))
    }
}

const fn never(names: &'static str, reason: &'static str) -> Local {
    Local { names, never: true, any_case: false, reason }
}

const fn never_in_any_case(names: &'static str, reason: &'static str) -> Local {
    Local { names, never: true, any_case: true, reason }
}

const fn local(names: &'static str, reason: &'static str) -> Local {
    Local { names, never: false, any_case: false, reason }
}

/// The table.
pub const LOCAL: &[Local] = &[
    never("MIRRORD_*", "mirrord's own"),
    never("PATH CDPATH", "name the folders that programs are run from"),
    never(
        "LD_* GCONV_PATH GETCONF_DIR GLIBC_TUNABLES LOCPATH NLSPATH",
        "the dynamic linker and glibc load code, or trust what they find, by them",
    ),
    never(
        "MALLOC_TRACE MALLOC_CONF *JEM_MALLOC_CONF CPUPROFILE HEAPPROFILE GMON_OUT_PREFIX LLVM_PROFILE_FILE GCOV_* \
         *SAN_OPTIONS *SAN_SYMBOLIZER_PATH SSLKEYLOGFILE RANDFILE",
        "libraries write to the files that they name, or run them",
    ),
    never(
        "OPENSSL_* GTK_* GTK2_* GDK_* GIO_* GI_TYPELIB_PATH QT_* QML_* QML2_* GST_PLUGIN* GST_REGISTRY* SASL_PATH \
         SASL_CONF_PATH KRB5_CONFIG NSS_* P11_KIT_* VK_ICD_FILENAMES VK_DRIVER_FILES VK_*LAYER* LIBGL_* LIBVA_* \
         CUDA_INJECTION* OCL_* MAGICK_* GS_LIB GS_OPTIONS ODBCINI ODBCINSTINI ODBCSYSINI LIBMYSQL_PLUGIN* ALSA_* \
         LADSPA_PATH LV2_PATH FREI0R_PATH OMPI_* PMIX_* I_MPI_* FAKECHROOT_* PROOT_* QEMU_* WINELOADER WINESERVER WINEDLL*",
        "libraries load modules by them",
    ),
    never(
        "ENV BASH_* BASHOPTS SHELLOPTS PROMPT_COMMAND* PS0 PS1 PS2 PS3 PS4 IFS ZDOTDIR FPATH \
         fish_* HISTFILE MAILPATH EXECIGNORE GLOBIGNORE INPUTRC FCEDIT",
        "shells run or split text, write files or load code by them",
    ),
    never(
        "PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONBREAKPOINT PYTHONWARNINGS PYTHONEXECUTABLE PYTHONUSERBASE \
         PYTHONPLATLIBDIR PYTHONPYCACHEPREFIX PYTHONINSPECT PYTHONCASEOK PYTHON_PRESITE PYTHON_HISTORY PYTHONDUMPREFS* \
         PYTEST_* COVERAGE_* IPYTHONDIR JUPYTER_* GUNICORN_CMD_ARGS UWSGI_* NOSE_*",
        "Python imports code by them",
    ),
    never_in_any_case(
        "PIP_* PIPX_* PIPENV_* UV_*INDEX* UV_FIND_LINKS UV_CONFIG_FILE UV_PYTHON* UV_TOOL_* POETRY_* CONDARC TWINE_* NPM_* YARN_* PNPM_* COREPACK_* NUGET_* COMPOSER_* BUNDLE_* \
         BUNDLER_* GEM_* HOMEBREW_*",
        "package managers fetch and run code by them",
    ),
    never(
        "NODE_OPTIONS NODE_PATH NODE_REPL_* NODE_CHANNEL_* NODE_UNIQUE_ID NODE_V8_COVERAGE NODE_REDIRECT_WARNINGS \
         NODE_COMPILE_CACHE TS_NODE_* BABEL_* ELECTRON_* DENO_* BUN_*",
        "JavaScript engines load code or write files by them",
    ),
    never(
        "JAVA_TOOL_OPTIONS JDK_JAVA*_OPTIONS _JAVA_OPTIONS *_JAVA_OPTIONS JAVA_OPTS *_JAVA_OPTS JVM_OPTS *_JVM_OPTS \
         JAVACMD CLASSPATH *_CLASSPATH LOADER_PATH LOADER_HOME LOADER_CONFIG_* LOADER_MAIN JPDA_* CATALINA_* MAVEN_* ANT_OPTS ANT_ARGS GRADLE_* SBT_OPTS LEIN_* \
         KAFKA_OPTS HADOOP_OPTS SPARK_*_OPTS JRUBY_OPTS LOG4J_CONFIGURATION_FILE",
        "Java loads agents and classes by them",
    ),
    never("PERL5* PERLLIB PERLIO* PERL_*", "Perl loads code or writes files by them"),
    never("RUBYOPT RUBYLIB RUBYSHELL IRBRC PRYRC RAKEOPT", "Ruby loads code by them"),
    never_in_any_case(
        "DOTNET_STARTUP_HOOKS DOTNET_ADDITIONAL_DEPS DOTNET_SHARED_STORE DOTNET_GCNAME DOTNET_GCPATH DOTNET_JITNAME \
         DOTNET_JITPATH DOTNET_ALTJIT* DOTNET_DIAGNOSTICPORTS COMPLUS_* CORECLR_* COR_* *_HOSTINGSTARTUPASSEMBLIES MSBUILD*",
        ".NET loads code by them",
    ),
    never(
        "PHPRC PHP_INI_SCAN_DIR XDEBUG_* LUA_INIT* LUA_PATH* LUA_CPATH* LUAROCKS_* ERL_* ELIXIR_* MIX_HOME MIX_EXS \
         MIX_ARCHIVES MIX_PATH MIX_DEPS_PATH MIX_BUILD_PATH REBAR_* R_PROFILE* R_ENVIRON* R_LIBS* R_HOME R_DEFAULT_PACKAGES JULIA_* \
         GHC* STACK_ROOT STACK_YAML STACK_CONFIG CABAL_* CAML_* OCAML* OPAM* TCLLIBPATH TCL_LIBRARY TK_LIBRARY GUILE_* SBCL_HOME CL_SOURCE_REGISTRY GROOVY_* DART_*",
        "other languages load code by them",
    ),
    never("GIT_*", "git runs commands by them"),
    never(
        "EDITOR VISUAL *_EDITOR PAGER *_PAGER MANPAGER MANOPT MANROFFOPT BROWSER LESS LESSOPEN LESSCLOSE LESSKEY* LESSEDIT SHELL \
         SUDO_* SSH_ASKPASS* SSH_SK_* SSH_PKCS11_HELPER VIM VIMINIT VIMRUNTIME NVIM_* GVIMINIT EXINIT EMACSLOADPATH EMACSPATH \
         EMACSDATA HGRCPATH HGMERGE HGEDITOR CVS_RSH SVN_* RSYNC_* QUILT_* KUBECTL_* VALGRIND_* FZF_* RIPGREP_CONFIG_PATH \
         BAT_CONFIG_PATH ACKRC ACK_OPTIONS MAILRC SCREENRC",
        "tools run the commands that they name or hold",
    ),
    never(
        "CURL_HOME WGETRC SYSTEM_WGETRC PSQLRC SQLPATH ORACLE_PATH MYSQL_HOME MYSQL_HISTFILE PSQL_HISTORY REDISCLI_* \
         SQLITE_HISTORY",
        "clients take commands from the files that they name, or write to them",
    ),
    never(
        "CC CXX CPP AR AS LD CFLAGS CXXFLAGS CPPFLAGS LDFLAGS CGO_* GCC_EXEC_PREFIX COMPILER_PATH LIBRARY_PATH CPATH \
         C_INCLUDE_PATH CPLUS_INCLUDE_PATH DEPENDENCIES_OUTPUT CCC_OVERRIDE_OPTIONS CCACHE_* SCCACHE_* DISTCC_* MAKE \
         MAKEFLAGS MFLAGS GNUMAKEFLAGS MAKEFILES MAKESHELL CMAKE_* CTEST_* NINJA_* MESON* PKG_CONFIG* ACLOCAL_PATH M4 M4PATH \
         CONFIG_SITE CONFIG_SHELL BAZEL* GOFLAGS GOENV GOPROXY GOSUMDB GONOSUMDB GOINSECURE GOPRIVATE GOTOOLCHAIN GOAUTH \
         GOVCS GOWORK GOBIN GOCACHEPROG CARGO_* RUSTC RUSTC_* RUSTFLAGS RUSTDOC* RUSTUP_* TAR_OPTIONS DEB_* DEBUILD_* DPKG_* \
         APT_CONFIG RPM_* NIX_* GUIX_*",
        "build and packaging tools run commands by them",
    ),
    never(
        "KUBECONFIG DOCKER_* REGISTRY_AUTH_FILE HELM_* TF_CLI_* TF_PLUGIN_* ANSIBLE_* VAGRANT_* PACKER_* VAULT_CONFIG_PATH \
         AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE BOTO_* CLOUDSDK_* GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES \
         AZURE_CONFIG_DIR AZURE_EXTENSION_DIR",
        "tools run plugins, or commands that give credentials, by them",
    ),
    local("HOME USER LOGNAME PWD OLDPWD SHLVL _ MAIL", "who and where the user is on this machine"),
    local(
        "TERM TERMINFO TERMINFO_DIRS TERMCAP TMUX TMUX_* COLORTERM COLUMNS LINES DISPLAY WAYLAND_DISPLAY XAUTHORITY DBUS_*",
        "this terminal and desktop",
    ),
    local("LANG LANGUAGE LC_*", "locales are those installed on this machine"),
    local("TMPDIR TMP TEMP XDG_*", "folders of this machine"),
    local("SSH_* GPG_* GNUPGHOME", "agents, keys and connections of this machine"),
    local(
        "JAVA_HOME GOPATH GOROOT DOTNET_ROOT* VIRTUAL_ENV CONDA_* NVM_* PYENV_* RBENV_* ASDF_*",
        "tool chains are those of this machine",
    ),
];
