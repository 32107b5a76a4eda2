//! The guests: what they run, in which state they start, and what they must say.

use alloc::{format, string::String, vec::Vec};
use core::{arch::global_asm, slice};

use vmx_structs::{GuestPhysAddr, VmxCapabilities, vmcs::GuestState};

global_asm!(include_str!("guests.s"));

unsafe extern "C" {
    static guest16: u8;
    static guest16_end: u8;
    static guest64: u8;
    static guest64_end: u8;
}

/// A guest, before it is a VM.
pub struct Guest {
    /// What it is called on the serial line.
    pub name: &'static str,
    /// What lies in its memory, and where.
    pub memory: Vec<(GuestPhysAddr, Vec<u8>)>,
    /// The state that it starts in.
    pub state: GuestState,
    /// What it prints.
    pub says: String,
    /// Whether it is to see a word of the hypervisor's memory, through a 1 GiB page.
    pub window: bool,
}

/// Where both programs lie.
const PROGRAM: u64 = 0x1_0000;

/// A guest in real mode, which asks for an unrestricted guest.
pub fn real_mode(caps: &VmxCapabilities) -> Guest {
    Guest {
        name: "real mode",
        memory: [(GuestPhysAddr::new(PROGRAM), program(&raw const guest16, &raw const guest16_end))].into(),
        state: GuestState::real_mode(caps, (PROGRAM >> 4) as u16, 0),
        says: "hello from real mode: the 20th Fibonacci number is 6765\n".into(),
        window: false,
    }
}

/// The word that a guest sees through its window.
pub static WINDOW_WORD: u64 = 271_828_182_845;

/// A guest in 64-bit mode: VM `number`, which sees [`WINDOW_WORD`] if `window`.
pub fn long_mode(caps: &VmxCapabilities, number: u64, window: bool) -> Guest {
    let mut says = format!(
        "hello from 64-bit mode, this is VM {number}\n\
         the hypervisor calls itself {}\n\
         primes below 1000: 168, their sum: 76127\n\
         memory and FS base: fine fine fine fine\n",
        core::str::from_utf8(&SIGNATURE).expect("letters")
    );
    if window {
        says += &format!("the hypervisor's own memory says {WINDOW_WORD}\n");
    }
    Guest {
        name: "64-bit mode",
        memory: [
            (GuestPhysAddr::new(PROGRAM), program(&raw const guest64, &raw const guest64_end)),
            (GuestPhysAddr::new(PAGE_TABLES), page_tables()),
        ]
        .into(),
        state: GuestState::long_mode(caps, PAGE_TABLES, PROGRAM, STACK),
        says,
        window,
    }
}

/// What CPUID tells a guest in leaf 0x4000_0000.
pub const SIGNATURE: [u8; 12] = *b"frames & vmx";

const PAGE_TABLES: u64 = 0x1000;
const STACK: u64 = 0x8000;

/// The guest's own page tables, four frames: virtual = physical for 2 GiB, by pages of 2 MiB.
fn page_tables() -> Vec<u8> {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    let frame = |n: u64| PAGE_TABLES + n * 0x1000;
    let mut words = [const { 0_u64 }; 4 * 512].to_vec();
    words[0] = frame(1) | PRESENT_WRITABLE;
    words[512] = frame(2) | PRESENT_WRITABLE;
    words[513] = frame(3) | PRESENT_WRITABLE;
    for page in 0..1024 {
        words[1024 + page] = (page as u64) << 21 | LARGE | PRESENT_WRITABLE;
    }
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn program(start: *const u8, end: *const u8) -> Vec<u8> {
    // SAFETY: `guests.s` lays the program between the two symbols, which both come from there.
    unsafe { slice::from_raw_parts(start, end.addr() - start.addr()) }.to_vec()
}
