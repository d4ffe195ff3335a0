//! The definition in the chart is that of the code. `BLESS=1` writes it anew.

use std::path::Path;

use mirrord_session::definition;

#[test]
fn the_chart_installs_the_definition_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/mirrord/crds/sessions.mirrord.dev.yaml");
    let definition = serde_json::to_value(definition()).unwrap();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, serde_saphyr::to_string(&definition).unwrap()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    let written: serde_json::Value = serde_saphyr::from_str(&written).unwrap();
    assert!(written == definition, "{} is stale: run the test again with BLESS=1", path.display());
}

#[test]
fn status_is_an_ordinary_field_so_that_admission_can_fill_it_in() {
    let versions = definition().spec.versions;
    assert!(versions.iter().all(|version| version.subresources.is_none()));
}
