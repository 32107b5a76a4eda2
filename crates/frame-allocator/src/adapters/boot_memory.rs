/// What becomes of memory in which only the boot loader, or the firmware's boot services, left something.
///
/// In doubt, reserve it, and give it to the allocator later with `add_region`, when nothing of it is read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootMemory {
    /// It is reserved: the page tables, the stack and the boot information that the kernel runs on may lie there.
    Reserved,
    /// It is free: the kernel has left all that behind, or copied it.
    Usable,
}
