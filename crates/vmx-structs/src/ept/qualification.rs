//! What a VM exit by an EPT violation says in its exit qualification (SDM Table 27-7).

use bitflags::bitflags;

bitflags! {
    /// The exit qualification of an EPT violation.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct EptQualification: u64 {
        /// The access was a data read.
        const READ = 1 << 0;
        /// The access was a data write. With accessed and dirty flags, accesses to guest paging structures count as
        /// writes and set [`READ`](Self::READ) too.
        const WRITE = 1 << 1;
        /// The access was an instruction fetch.
        const FETCH = 1 << 2;
        /// Every entry used allows reads.
        const READABLE = 1 << 3;
        /// Every entry used allows writes.
        const WRITABLE = 1 << 4;
        /// Every entry used allows fetches; with mode-based execute control, from supervisor-mode addresses.
        const EXECUTABLE = 1 << 5;
        /// With mode-based execute control: every entry used allows fetches from user-mode addresses.
        const USER_EXECUTABLE = 1 << 6;
        /// The guest linear-address field is valid.
        const LINEAR_ADDRESS = 1 << 7;
        /// The access was to the translation of a linear address, not to a paging structure on the way to it.
        const TRANSLATED = 1 << 8;
        /// Advanced information: the guest's paging makes it a user-mode linear address.
        const USER_ADDRESS = 1 << 9;
        /// Advanced information: the guest's paging allows writes.
        const GUEST_WRITABLE = 1 << 10;
        /// Advanced information: the guest's paging forbids fetches.
        const GUEST_EXECUTE_DISABLE = 1 << 11;
        /// The access came with NMIs unblocked by IRET.
        const NMI_UNBLOCKING = 1 << 12;
        /// The access was to a shadow stack.
        const SHADOW_STACK = 1 << 13;
        /// With supervisor shadow-stack control: bit 60 of the leaf.
        const SUPERVISOR_SHADOW_STACK = 1 << 14;
        /// The violation came from guest-paging verification.
        const PAGING_VERIFICATION = 1 << 15;
        /// The access was not the instruction's own (trace output, for one).
        const ASYNCHRONOUS = 1 << 16;
    }
}
