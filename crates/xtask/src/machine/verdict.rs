//! What every kernel's run is judged by.

use super::run::Ended;

/// How many checks passed, if the kernel's last line says exactly so many, none failed, and the emulator agrees.
pub(super) fn last_line(ended: &Ended, program: &str, checks: usize) -> Result<usize, String> {
    let last = format!("{program}: {checks} checks passed, 0 failed");
    if !ended.serial.lines().any(|line| line == last) {
        if let Some(made) = made(&ended.serial, program) {
            return Err(format!(
                "{made} checks were made and passed, {checks} must be: if some were added, the number stands in \
                 crates/xtask/src/machine"
            ));
        }
        let missing = format!("the line {last:?} is missing; the emulator ended with {}", ended.how);
        return Err(with_complaint(missing, &ended.serial));
    }
    if !ended.succeeded {
        return Err(format!("the emulator ended with {}", ended.how));
    }
    Ok(checks)
}

/// How many checks the kernel's last line says, if none failed.
fn made<'a>(serial: &'a str, program: &str) -> Option<&'a str> {
    let of = |line: &'a str| {
        line.strip_prefix(program)?.strip_prefix(": ")?.strip_suffix(" checks passed, 0 failed")
    };
    serial.lines().find_map(of)
}

/// A verdict with the first thing that the kernel itself complains of, if it does.
pub(super) fn with_complaint(verdict: String, serial: &str) -> String {
    const KINDS: [&str; 9] = [
        "FAILED at ",
        "DIFFERENCE ",
        "PANIC",
        "NotFree: ",
        "NotHeld: ",
        "Misaligned: ",
        "Overwritten: ",
        "Refused: ",
        "NoMemory: ",
    ];
    let mut lines = serial.lines();
    let Some(line) = lines.find(|line| KINDS.iter().any(|kind| line.starts_with(kind))) else {
        return verdict;
    };
    // What a panic says is on the line behind the place.
    let more = if line.starts_with("PANIC") { lines.next().unwrap_or_default() } else { "" };
    format!("{verdict}; it said: {line} {more}").trim_end().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(succeeded: bool, serial: &str) -> Ended {
        let (how, took) = ("exit status: 33".into(), std::time::Duration::ZERO);
        Ended { succeeded, how, serial: serial.into(), took }
    }

    #[test]
    fn exactly_the_checks_that_must_be() {
        let good = "kernel: 12 checks passed, 0 failed\n";
        assert_eq!(last_line(&ended(true, good), "kernel", 12), Ok(12));
        let other = last_line(&ended(true, good), "kernel", 13).unwrap_err();
        assert!(other.starts_with("12 checks were made and passed, 13 must be"), "{other}");
        assert!(last_line(&ended(true, good), "virtio", 12).is_err());
        assert!(last_line(&ended(false, good), "kernel", 12).is_err());
        assert!(last_line(&ended(true, "kernel: 12 checks passed, 1 failed\n"), "kernel", 12).is_err());
        assert!(last_line(&ended(true, ""), "kernel", 0).is_err());
    }

    #[test]
    fn the_first_complaint_is_told() {
        let told = |serial: &str| with_complaint("no".into(), serial);
        assert_eq!(told("hello\nNotFree: 3 times\nFAILED at a.rs:1: b\n"), "no; it said: NotFree: 3 times");
        assert_eq!(
            told("\nPANIC on CPU 0: at a.rs\nb is not c\n"),
            "no; it said: PANIC on CPU 0: at a.rs b is not c"
        );
        assert_eq!(told("hello\n"), "no");
    }
}
