//! What every kernel's run is judged by.

use super::run::Ended;

/// How many checks passed, if the kernel's last line says exactly so many, none failed, and the emulator agrees.
pub(super) fn last_line(ended: &Ended, program: &str, checks: usize) -> Result<usize, String> {
    let last = format!("{program}: {checks} checks passed, 0 failed");
    if !ended.serial.lines().any(|line| line == last) {
        return Err(format!("the line {last:?} is missing; the emulator ended with {}", ended.how));
    }
    if !ended.succeeded {
        return Err(format!("the emulator ended with {}", ended.how));
    }
    Ok(checks)
}
