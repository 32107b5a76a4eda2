//! Pretending to be a machine with another firmware map.

use frame_allocator::MapError;

use crate::memory::Map;

/// Reserves what is not usable in another machine's firmware map: this machine then looks like that one, as far as its
/// RAM goes. `text` has a line for each range, `first-last usable` (or any other word), in hexadecimal, as Linux logs it.
pub fn look_like(map: &mut Map, text: &str) -> Result<(), MapError> {
    let mut other = Map::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((range, kind)) = line.trim().split_once(' ') else { continue };
        let Some((first, last)) = range.split_once('-') else { continue };
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16);
        let (Ok(first), Ok(last)) = (number(first), number(last)) else { continue };
        match kind.trim() {
            "usable" => other.add_usable(first, last - first + 1)?,
            _ => other.add_reserved(first, last - first + 1)?,
        }
    }
    let mut end = 0;
    for range in other.frames() {
        let start = range.start().as_usize() as u64;
        map.add_reserved(end, start - end)?;
        end = range.end().as_usize() as u64;
    }
    map.add_reserved(end, u64::MAX - end)
}
