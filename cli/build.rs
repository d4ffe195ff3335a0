//! Puts the preload library into the program where `MIRRORD_EMBED_LAYER` names it: a cdylib can't be a build
//! dependency on stable, so the release build makes it first and names it here. Its hash is taken here too: the
//! program starts too often to take it each time.

use std::{env, fmt::Write as _, fs, path::PathBuf, process::ExitCode};

use sha2::{Digest, Sha256};

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed=MIRRORD_EMBED_LAYER");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let head =
        "/// The library inside this program, if it was built with one.\nconst EMBEDDED: Option<Embedded> = ";
    let value = match env::var_os("MIRRORD_EMBED_LAYER").filter(|path| !path.is_empty()) {
        None => "None".to_owned(),
        Some(path) => {
            println!("cargo::rerun-if-changed={}", PathBuf::from(&path).display());
            let copied = fs::read(&path).and_then(|content| {
                fs::write(out.join("layer.so"), &content)?;
                Ok(content)
            });
            match copied {
                Ok(content) => embedded(&content),
                Err(error) => {
                    println!("cargo::error=MIRRORD_EMBED_LAYER={}: {error}", PathBuf::from(&path).display());
                    return ExitCode::FAILURE;
                }
            }
        }
    };
    match fs::write(out.join("embedded_layer.rs"), format!("{head}{value};\n")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error=the build folder can't be written: {error}");
            ExitCode::FAILURE
        }
    }
}

fn embedded(content: &[u8]) -> String {
    let hash = Sha256::digest(content).iter().take(8).fold(String::new(), |mut hash, byte| {
        let _ = write!(hash, "{byte:02x}");
        hash
    });
    format!(
        "Some(Embedded {{ content: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/layer.so\")), hash: \"{hash}\" }})"
    )
}
