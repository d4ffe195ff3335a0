//! A pod's environment, and what of it gets into a program's.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use mirrord_cli::environment::{LOCAL, Rules, Variables, parse};

/// Three lines of patterns (included, excluded, removed; separated by `;`), then an environment.
pub fn environment(data: &[u8]) {
    let mut lines = data.splitn(4, |byte| *byte == b'\n');
    let mut words = || -> Vec<String> {
        let line = String::from_utf8_lossy(lines.next().unwrap_or_default());
        line.split(';').filter(|word| !word.is_empty()).take(8).map(str::to_owned).collect()
    };
    let (include, exclude, unset) = (words(), words(), words());
    let include = Some(include).filter(|include| !include.is_empty());
    let set = vec![("SET".into(), "own".into())];
    let rules = Rules { include, exclude, set, unset, ..Rules::default() };
    let bytes = lines.next().unwrap_or_default();
    let pod = parse(bytes);
    read(&pod, bytes);

    let local: Variables =
        [("PATH", "/bin"), ("A", "local")].map(|(name, value)| (name.into(), value.into())).into();
    let merged = rules.merge(local.clone(), pod.clone(), Variables::new());
    for (name, value) in &pod {
        let takes = taken(&rules, name.as_bytes());
        assert_eq!(rules.takes(name), takes, "{name:?} by {rules:?}");
        let gone = any(&rules.unset, name.as_bytes());
        let expected = match (gone, name.to_str()) {
            (true, _) => None,
            (false, Some("SET")) => Some(OsStr::new("own")),
            _ if takes => Some(value.as_os_str()),
            _ => local.get(name).map(|value| value.as_os_str()),
        };
        assert_eq!(merged.get(name).map(|value| value.as_os_str()), expected, "{name:?}");
    }
    assert!(merged.keys().all(|name| name == "SET" || pod.contains_key(name) || local.contains_key(name)));
}

/// Names are there, once, with their first value, and nothing of another variable.
fn read(variables: &Variables, bytes: &[u8]) {
    for (name, value) in variables {
        assert!(!name.is_empty() && !name.as_bytes().contains(&b'='));
        let pair = [name.as_bytes(), b"=", value.as_bytes()].concat();
        let prefix = &pair[..=name.len()];
        let first = bytes.split(|byte| *byte == 0).find(|other| other.starts_with(prefix));
        assert_eq!(first, Some(&pair[..]));
    }
    let pairs = |(name, value): (&_, &_)| {
        [
            OsStrExt::as_bytes(AsRef::<OsStr>::as_ref(name)),
            b"=",
            OsStrExt::as_bytes(AsRef::<OsStr>::as_ref(value)),
            b"\0",
        ]
        .concat()
    };
    let written: Vec<u8> = variables.iter().flat_map(pairs).collect();
    assert_eq!(&parse(&written), variables);
}

/// As `Rules::takes` documents it.
fn taken(rules: &Rules, name: &[u8]) -> bool {
    match LOCAL.iter().find(|row| row.fits(name)) {
        Some(row) if row.never => false,
        Some(_) => rules.include.iter().flatten().any(|word| word.as_bytes() == name),
        None => rules.include.as_ref().is_none_or(|include| any(include, name)) && !any(&rules.exclude, name),
    }
}

fn any(patterns: &[String], name: &[u8]) -> bool {
    patterns.iter().any(|pattern| fits(pattern.as_bytes(), name))
}

/// Whether a name fits a pattern: which beginnings of the name fit a beginning of the pattern, letter by letter of it.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for letter in pattern {
        let before = reached.clone();
        for end in 0..=name.len() {
            reached[end] = match letter {
                b'*' => before[end] || end > 0 && reached[end - 1],
                _ => end > 0 && before[end - 1] && [b'?', name[end - 1]].contains(letter),
            };
        }
    }
    reached[name.len()]
}
