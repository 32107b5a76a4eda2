//! `cargo xtask virtio`: boots `examples/virtio` in QEMU with a disk, and compares the disk with what it must be
//! afterwards, byte by byte.
//!
//! The host makes the disk, says on the command line which sectors to write, and works out from both, without a look at
//! the kernel, what every sector must hold in the end: what was to be written, and everything else as it was.

use std::{fmt::Write, fs, ops::Range, path::Path, time::Duration};

use super::{Outcome, image, packages, qemu::Qemu, verdict};
use crate::command::Failure;

/// Boots a kernel with a disk driver on our frames, and compares the disk afterwards.
#[derive(clap::Args, Debug)]
pub(crate) struct VirtioArgs {
    /// The allocator: percpu-tree or bitmap; both, if none is named
    #[arg(long)]
    backend: Option<String>,
}

impl VirtioArgs {
    /// What the tests run.
    pub(crate) const ALL: Self = Self { backend: None };

    /// On the kernel's own allocator.
    pub(super) fn one() -> Self {
        Self { backend: Some("percpu-tree".into()) }
    }
}

const LIMIT: Duration = Duration::from_secs(120);
const SECTOR: usize = 512;
/// 8 MiB and a bit: neither whole frames nor whole requests.
const SECTORS: usize = 16389;

/// Sizes of writes, in sectors: less than a frame, around whole frames, and up to a mebibyte.
const SIZES: [usize; 15] = [1, 2, 7, 8, 9, 16, 63, 64, 65, 255, 256, 257, 1000, 2047, 2048];
/// Sizes of the writes that are under way together.
const TOGETHER: [usize; 4] = [5, 256, 1, 72];

/// The kernel's checks, but for one for each write: 3 for each of 5 pieces of DMA memory and 1 for a piece that is too
/// large; 8 with the disk; 2 of the frames that came back.
const CHECKS: usize = 3 * 5 + 1 + 8 + 2;

pub(crate) fn virtio(args: &VirtioArgs) -> Result<Outcome, Failure> {
    if let Err(why) = packages::require(&[packages::QEMU]) {
        return Ok(Outcome::Skipped(why));
    }
    boot_all(args, &image::build("virtio", "virtio")?)
}

/// Boots the machines that the arguments name, with this kernel.
pub(super) fn boot_all(args: &VirtioArgs, kernel: &Path) -> Result<Outcome, Failure> {
    let backends = match &args.backend {
        Some(backend) => vec![backend.as_str()],
        None => vec!["percpu-tree", "bitmap"],
    };
    let (mut checks, mut failures) = (0, Vec::new());
    for &backend in &backends {
        match boot(kernel, backend) {
            Ok(passed) => checks += passed,
            Err(why) => {
                println!("QEMU with a disk, {backend}: FAILED: {why}");
                failures.push(format!("disk, {backend}: {why}"));
            }
        }
    }
    if failures.is_empty() {
        Ok(Outcome::Passed { runs: backends.len(), checks })
    } else {
        Err(failures.join("\n"))
    }
}

/// Boots the kernel; returns how many checks it made, if the disk is then what it must be.
fn boot(kernel: &Path, backend: &str) -> Result<usize, Failure> {
    let scratch = image::scratch()?;
    let path = scratch.join("disk");
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut disk: Vec<u8> = contents(false, 0..SECTORS).collect();
    fs::write(&path, &disk).map_err(failed)?;

    let (writes, together) = plan();
    let mut command_line = format!("backend={backend} sectors={SECTORS}");
    for (key, ranges) in [("writes", &writes), ("together", &together)] {
        let mut separator = format!(" {key}=");
        for range in ranges {
            let _ = write!(command_line, "{separator}{}:{}", range.start, range.len());
            separator = ",".into();
        }
    }
    let qemu =
        Qemu { cpus: 1, memory_mib: 256, command_line: &command_line, module: None, disk: Some(&path) };
    let ended = qemu.run(kernel, LIMIT)?;
    print!("{}", ended.serial);
    let passed = verdict::last_line(&ended, "virtio", CHECKS + writes.len())?;

    for range in writes.into_iter().chain(together) {
        let bytes = range.start * SECTOR..range.end * SECTOR;
        disk[bytes].iter_mut().zip(contents(true, range)).for_each(|(byte, new)| *byte = new);
    }
    let found = fs::read(&path).map_err(failed)?;
    if let Some(at) = (0..disk.len().max(found.len())).find(|&at| disk.get(at) != found.get(at)) {
        return Err(format!(
            "byte {at:#x} of the disk (sector {}) is {:02x?} and must be {:02x?}",
            at / SECTOR,
            found.get(at),
            disk.get(at)
        ));
    }
    println!(
        "QEMU with a disk, {backend}: {passed} checks passed, {} bytes are what they must be, in {:.1} s",
        disk.len(),
        ended.took.as_secs_f64()
    );
    let _ = fs::remove_dir_all(&scratch);
    Ok(passed)
}

/// What to write, one after the other and together: ranges that do not overlap, with gaps of 0 to 3 sectors between, and
/// the last sector of the disk.
fn plan() -> (Vec<Range<usize>>, Vec<Range<usize>>) {
    let mut next = 1;
    let mut place = |(i, size): (usize, &usize)| {
        let first = next + i % 4;
        next = first + size;
        first..next
    };
    let mut writes: Vec<_> = SIZES.iter().enumerate().map(&mut place).collect();
    let together: Vec<_> = TOGETHER.iter().enumerate().map(&mut place).collect();
    assert!(next < SECTORS, "the writes do not fit on the disk");
    writes.push(SECTORS - 1..SECTORS);
    (writes, together)
}

/// The bytes of these sectors, as the host made them or as the kernel writes them: words of 8 bytes, each its place in the
/// disk through the mixer of splitmix64.
fn contents(new: bool, sectors: Range<usize>) -> impl Iterator<Item = u8> {
    (sectors.start * SECTOR / 8..sectors.end * SECTOR / 8).flat_map(move |index| {
        let mut x = (index as u64 | u64::from(new) << 63).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ x >> 31).to_le_bytes()
    })
}
