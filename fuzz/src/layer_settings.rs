//! What the layer reads at a program's start, and where it then says that paths are.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use mirrord_layer_brain::{
    paths::{below, climbs, is_plain, join, join_real, normal},
    rules::{Rules, Side},
    settings::{FileMode, PRELOAD, Settings, VARIABLE},
};

/// Up to the first line feed the variable of a program's environment, and then paths, a line each.
pub fn layer_settings(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let variable = lines.next().unwrap_or_default();
    let settings = Settings::decode(OsStr::from_bytes(variable)).ok();
    let rules = settings.as_ref().map(|settings| {
        survive(settings);
        Rules::new(settings)
    });
    for path in lines.filter(|path| path.starts_with(b"/")) {
        letters(path);
        if let (Some(rules), Some(settings)) = (&rules, &settings) {
            decided(rules, settings, path);
        }
    }
}

fn survive(settings: &Settings) {
    let written = settings.encode();
    assert_eq!(Settings::decode(&written).as_ref(), Ok(settings));
    assert!(written.as_bytes().iter().all(u8::is_ascii_graphic), "{written:?}");
    let layer = settings.layer.as_os_str().as_bytes();
    match settings.variables(Some(OsStr::new("/a.so:/b.so"))) {
        Ok([(VARIABLE, value), (PRELOAD, list)]) => {
            assert_eq!(value, written);
            assert_eq!(list.as_bytes().split(|byte| *byte == b':').next(), Some(layer));
        }
        Ok(other) => panic!("{other:?}"),
        Err(_) => assert!(layer.iter().any(|byte| *byte == b':' || byte.is_ascii_whitespace())),
    }
}

/// Paths by their letters agree with one another.
fn letters(path: &[u8]) {
    let normal_form = normal(path);
    assert!(is_plain(&normal_form) && normal(&normal_form) == normal_form);
    let same = path.strip_suffix(b"/").filter(|rest| !rest.is_empty()).unwrap_or(path);
    assert!(!is_plain(path) || same == normal_form, "a plain path means what it says");
    assert!(below(&normal_form, b"/").is_some());
    let relative = &path[1..];
    assert_eq!(normal(&join_real(b"/srv/data", relative)), normal(&join(b"/srv/data", relative)));
    assert!(climbs(relative) || below(&normal(&join(b"/w", relative)), b"/w").is_some());
}

fn decided(rules: &Rules, settings: &Settings, path: &[u8]) {
    let side = rules.decide(path);
    assert_eq!(side, rules.decide(&normal(path)), "dots neither hide nor fake a row");
    assert!(!rules.is_all_local() || side == Side::Local);
    assert!(settings.files != FileMode::Local || side == Side::Local);
    let folder = normal(path);
    if rules.is_local_throughout(&folder) {
        assert_eq!(side, Side::Local);
        assert_eq!(rules.decide(&join(&folder, b"any/file")), Side::Local);
    }
    for mount in &settings.remote_mounts {
        let mount = normal(mount.as_os_str().as_bytes());
        if settings.files == FileMode::LocalWithOverrides && below(&folder, &mount).is_some() {
            assert!(side == Side::Remote || mount == b"/");
        }
    }
}
