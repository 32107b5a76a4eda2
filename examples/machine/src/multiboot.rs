//! What the boot loader tells: memory, command line, modules (Multiboot 1, section 3.3).
//!
//! The block lies wherever the loader put it, in memory that its own map calls usable:
//! [`BootInfo::in_use`] says what must be reserved for as long as a [`BootInfo`] is read.

use core::{ops::Range, ptr, slice};

const LOADER_MAGIC: u32 = 0x2bad_b002;
const HAS_COMMAND_LINE: u32 = 1 << 2;
const HAS_MODULES: u32 = 1 << 3;
const HAS_MEMORY_MAP: u32 = 1 << 6;

/// The information block, as the loader laid it out.
#[repr(C)]
#[derive(Debug)]
pub struct BootInfo {
    flags: u32,
    memory: [u32; 2],
    boot_device: u32,
    command_line: u32,
    module_count: u32,
    modules: u32,
    symbols: [u32; 4],
    map_bytes: u32,
    map: u32,
}

/// An entry of the firmware's memory map: any bytes, in any order.
#[derive(Clone, Copy, Debug)]
pub struct MapEntry {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub len: u64,
    /// 1 is usable RAM; everything else is not.
    pub kind: u32,
}

impl MapEntry {
    /// Whether this is RAM that a kernel may use.
    pub fn is_usable(&self) -> bool {
        self.kind == 1
    }
}

impl BootInfo {
    /// # Safety
    /// `magic` and `info` are what a boot loader left in eax and ebx, and what it laid into memory is untouched.
    pub(crate) unsafe fn read(magic: u32, info: u32) -> &'static Self {
        assert_eq!(magic, LOADER_MAGIC, "not started by a Multiboot 1 loader");
        // SAFETY: the magic number says that a block lies at `info`; all memory below 4 GiB is mapped; all of its
        // fields may have any value.
        let boot: &Self = unsafe { &*ptr::with_exposed_provenance(info as usize) };
        assert!(boot.flags & HAS_MEMORY_MAP != 0, "the boot loader gave no memory map");
        boot
    }

    /// The command line: the kernel's name, then its arguments. Empty if there is none or it is no UTF-8.
    pub fn command_line(&self) -> &'static str {
        core::str::from_utf8(&self.command_line_bytes()[..self.command_line_bytes().len().saturating_sub(1)])
            .unwrap_or_default()
    }

    /// The value of `key=value` on the command line.
    pub fn argument(&self, key: &str) -> Option<&'static str> {
        self.command_line().split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// The firmware's memory map.
    pub fn memory_map(&self) -> impl Iterator<Item = MapEntry> + use<> {
        // Each entry: its size without this word, base, length, kind; packed.
        let mut rest = bytes(self.map, self.map_bytes as usize);
        core::iter::from_fn(move || {
            let size = u32::from_le_bytes(*rest.first_chunk()?) as usize;
            let entry = rest.get(4..4 + size.max(20))?;
            rest = &rest[4 + entry.len()..];
            let word = |at: usize| u64::from_le_bytes(*entry[at..].first_chunk().expect("20 bytes"));
            Some(MapEntry { base: word(0), len: word(8), kind: word(12).wrapping_shr(32) as u32 })
        })
    }

    /// The modules that were loaded beside the kernel: their contents.
    pub fn modules(&self) -> impl Iterator<Item = &'static [u8]> + use<> {
        self.module_ranges().map(|range| bytes(range.start as u32, range.len()))
    }

    /// The bytes that hold this block and all that it refers to.
    pub fn in_use(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let block = ptr::from_ref(self).addr();
        let ranges = [
            block..block + 128, // the fields that this kernel does not read, too
            Self::range(self.command_line, self.command_line_bytes().len()),
            Self::range(self.map, self.map_bytes as usize),
            Self::range(self.modules, self.module_table().len()),
        ];
        ranges.into_iter().chain(self.module_ranges())
    }

    fn range(start: u32, len: usize) -> Range<usize> {
        start as usize..start as usize + len
    }

    /// With the closing zero.
    fn command_line_bytes(&self) -> &'static [u8] {
        if self.flags & HAS_COMMAND_LINE == 0 {
            return &[];
        }
        let text = bytes(self.command_line, 4096);
        let len = text.iter().position(|&byte| byte == 0).map_or(0, |at| at + 1);
        &text[..len]
    }

    /// 16 bytes for each module: start, end, name, reserved.
    fn module_table(&self) -> &'static [u8] {
        let count = if self.flags & HAS_MODULES == 0 { 0 } else { self.module_count as usize };
        bytes(self.modules, count * 16)
    }

    fn module_ranges(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        self.module_table().chunks_exact(16).map(|entry| {
            let word = |at: usize| u32::from_le_bytes(*entry[at..].first_chunk().expect("16 bytes"));
            Self::range(word(0), (word(4) - word(0)) as usize)
        })
    }
}

/// Memory that the loader filled.
fn bytes(start: u32, len: usize) -> &'static [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: all memory below 4 GiB is mapped at its own address, and the kernel keeps `in_use` untouched as long
    // as it uses what it got from here (it is told so by the module's documentation).
    unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(start as usize), len) }
}
