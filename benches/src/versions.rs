//! The versions of what was measured, from the lock file that the program was built with.

const LOCK: &str = include_str!("../../Cargo.lock");

/// The version of a package that this one depends on; `None` where it does not.
pub fn version_of(package: &str) -> Option<&'static str> {
    version_in(LOCK, "frame-benches", package)
}

/// The lock file names a version in the list of dependencies only where there are several.
fn version_in<'l>(lock: &'l str, user: &str, package: &str) -> Option<&'l str> {
    let entry = |name: &str, version: &str| {
        let start = format!("\nname = \"{name}\"\nversion = \"{version}");
        lock.split("[[package]]").find(move |entry| entry.starts_with(&start))
    };
    let needed = entry(user, "")?.split('"').find(|word| word.split(' ').next() == Some(package))?;
    let found = entry(package, needed.split(' ').nth(1).unwrap_or_default())?;
    found.split("version = \"").nth(1)?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::{Kind, roster};

    #[test]
    fn every_peer_of_a_registry_has_a_version() {
        for entry in roster().iter().filter(|entry| entry.kind == Kind::Peer) {
            assert!(version_of(entry.package).is_some(), "{}: {}", entry.name, entry.package);
        }
        assert_eq!(version_of("nothing-of-the-kind"), None);
    }

    #[test]
    fn of_several_versions_the_one_that_is_used() {
        let lock = "
[[package]]
name = \"user\"
version = \"1.0.0\"
dependencies = [
 \"thing 0.4.6\",
 \"other\",
]

[[package]]
name = \"thing\"
version = \"0.2.1\"

[[package]]
name = \"thing\"
version = \"0.4.6\"

[[package]]
name = \"other\"
version = \"3.1.0\"
";
        assert_eq!(version_in(lock, "user", "thing"), Some("0.4.6"));
        assert_eq!(version_in(lock, "user", "other"), Some("3.1.0"));
        assert_eq!(version_in(lock, "user", "thin"), None);
    }
}
