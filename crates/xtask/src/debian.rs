//! Compilers from Debian's archive, unpacked into a folder: installed, they would take the place of others.

use std::{fs, path::Path, process::Command};

use crate::command::run;

/// Fetches packages and unpacks them below `folder`.
pub(crate) fn unpack(folder: &Path, packages: &[String]) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let fetched = Command::new("apt-get").arg("download").args(packages).current_dir(folder).output();
    if !fetched.map_err(|error| format!("apt-get: {error}"))?.status.success() {
        return Err("apt-get has no such packages".into());
    }
    for file in fs::read_dir(folder).map_err(|error| error.to_string())?.flatten() {
        let path = file.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg").arg("-x").arg(&path).arg(folder))?;
        }
    }
    Ok(())
}

/// What a compiler says of itself, with its libraries in `libraries`; empty if it cannot be run.
pub(crate) fn version(compiler: &Path, libraries: &Path) -> String {
    let output = Command::new(compiler).arg("--version").env("LD_LIBRARY_PATH", libraries).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
