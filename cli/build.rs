//! Puts the preload library into the program where `MIRRORD_EMBED_LAYER` names it: a cdylib can't be a build
//! dependency on stable, so the release build makes it first and names it here.

use std::{env, fs, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed=MIRRORD_EMBED_LAYER");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let head =
        "/// The library inside this program, if it was built with one.\nconst EMBEDDED: Option<&[u8]> = ";
    let value = match env::var_os("MIRRORD_EMBED_LAYER").filter(|path| !path.is_empty()) {
        None => "None".to_owned(),
        Some(path) => {
            println!("cargo::rerun-if-changed={}", PathBuf::from(&path).display());
            if let Err(error) = fs::copy(&path, out.join("layer.so")) {
                println!("cargo::error=MIRRORD_EMBED_LAYER={}: {error}", PathBuf::from(&path).display());
                return ExitCode::FAILURE;
            }
            "Some(include_bytes!(concat!(env!(\"OUT_DIR\"), \"/layer.so\")))".to_owned()
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
