//! Extended page tables: what a guest takes for physical memory (SDM 28.3).
//!
//! A guest-physical address is translated by 4 or 5 levels of tables of 512 entries. An entry of level 1 maps a page
//! of 4 KiB; one of level 2 or 3 may map 2 MiB or 1 GiB itself, else it points to a table of the level below.
//!
//! ```text
//!  EPT pointer ─► level 4 (512 GiB/entry) ─► level 3 (1 GiB) ─► level 2 (2 MiB) ─► level 1 (4 KiB)
//!                                             └ maps 1 GiB       └ maps 2 MiB       └ maps 4 KiB
//! ```
//!
//! # What this promises
//!
//! - **All or nothing**: an operation that fails leaves the tables as they were, also as a processor sees them. Every
//!   operation first looks whether it can succeed and takes all the frames that it will need; then it changes.
//! - **Nothing leaks, nothing is reused early**: a table belongs to the entry that points to it. A table that becomes
//!   empty is unlinked and handed out in the [`Invalidation`], which frees it after the INVEPT.
//! - **No dirty flag is lost**: what [`Ept::unmap`] returns has the flag of a write that a processor made at that moment;
//!   [`EptSession::discard`] is for pages whose flag does not matter.
//! - **Only what the processor takes**: addresses, sizes and attributes are checked against the [`EptConfig`], so no
//!   operation (but [`edit_entry`](Ept::edit_entry), which is for tests of processors) makes a misconfiguration.
//!
//! # Invariants
//!
//! - an entry owns a table, or maps a page, or is *vacant*: not present, and equal to the configuration's vacant word;
//! - no table but the highest has vacant entries alone, outside a session;
//! - entries that own a table allow everything; the leaf decides.
//!
//! Many changes owe one INVEPT in a [session](EptSession); many lookups start further down in a [view](EptView).
//!
//! Entries are changed while processors may walk them: each change is one atomic store or exchange, and a table is
//! filled before it is linked.

mod access;
mod attributes;
mod change;
mod config;
mod dirty;
mod edit;
mod entry;
mod error;
mod fault;
mod format;
mod invalidation;
mod leaves;
mod lookup;
mod map;
mod merge;
mod page;
mod pointer;
mod protect;
mod qualification;
mod session;
mod vacancy;
mod view;
mod walk;

use core::fmt;

use frame_core::{FrameHal, FrameStack, FrameTable, FrameTree, TableMut, TableRef};

pub use access::{EptAccess, GuestPaging};
pub use attributes::{AttributeError, EptAttributes, EptFlags, EptMemoryType};
pub use config::{EptConfig, EptConfigError};
pub use entry::EptLeaf;
pub use error::EptError;
pub use fault::{EptFault, EptMisconfiguration, EptTranslation, EptViolation, MisconfigurationCause};
pub use invalidation::Invalidation;
pub use leaves::{EptLeaves, EptRun, EptRuns};
pub use pointer::{EPTPointer, EptLevels, EptPointer, EptPointerError};
pub use qualification::EptQualification;
pub use session::EptSession;
pub use view::EptView;
pub use walk::walk_ept;

use entry::{ENTRIES, LINE};
use format::Format;
use vacancy::{Suspects, Witnesses};

/// A tree of EPT tables, which it owns. The memory that it maps belongs to somebody else, to
/// [`GuestMemory`](crate::GuestMemory) for instance.
///
/// ```
/// # use frame_core::{FrameHal, FrameRange, PhysAddr};
/// # use vmx_structs::*;
/// fn two_pages<H: FrameHal>(caps: &VmxCapabilities) -> Result<(), Box<dyn core::error::Error>> {
///     let mut ept = Ept::<H>::new(EptConfig::new(caps)?)?;
///     ept.map(GuestPhysAddr::new(0), PhysAddr::from(0x20_0000), PageSize::Size2M, EptAttributes::RAM)?;
///     let device = GuestRange::new(GuestPhysAddr::new(0xfee0_0000), 1)?;
///     ept.map_range(device, PhysAddr::from(0xfee0_0000), EptAttributes::DEVICE)?;
///
///     let seen = ept.translate(GuestPhysAddr::new(0x1234), EptAccess::WRITE);
///     assert_eq!(seen.unwrap().host, PhysAddr::from(0x20_1234));
///
///     // A guest that ran may have left translations in processors' caches.
///     let invalidation = ept.unmap_range(device)?;
///     assert!(invalidation.is_needed());
///     invalidation.waive(); // here no guest has run
///     Ok(())
/// }
/// ```
pub struct Ept<H: FrameHal> {
    tree: FrameTree<H>,
    config: EptConfig,
    /// What `config` says, as masks.
    format: Format,
    /// Addresses below this are translated from level 4 on, by entries none of which was edited; see [`Format::near`].
    plain: u64,
    /// Whether an entry may be one that no operation makes: one was edited, or a table lies where no processor reaches.
    edited: bool,
    pointer: EptPointer,
    /// Tables in the tree, the root included.
    tables: usize,
    witnesses: Witnesses,
    /// Of sessions; none but while there is one, or after one that was forgotten.
    suspects: Suspects,
    /// Whether a session owes an INVEPT: the one that there is, or one that was not finished.
    session_owes: bool,
}

impl<H: FrameHal> Ept<H> {
    /// Tables that map nothing: one frame.
    ///
    /// # Errors
    /// No frame, or one that the processor cannot address.
    pub fn new(config: EptConfig) -> Result<Self, EptError> {
        let root = FrameTable::new(config.vacant())?;
        let pointer = config.pointer(root.start_paddr())?;
        let (tree, format) = (FrameTree::new(root), Format::new(&config));
        Ok(Self {
            tree,
            config,
            format,
            plain: format.near,
            edited: false,
            pointer,
            tables: 1,
            witnesses: Witnesses::new(),
            suspects: Suspects::NONE,
            session_owes: false,
        })
    }

    /// The EPT pointer, for the VMCS.
    pub const fn pointer(&self) -> EptPointer {
        self.pointer
    }

    /// How the tables are built and walked.
    pub const fn config(&self) -> &EptConfig {
        &self.config
    }

    /// Frames that the tables take.
    pub const fn table_frames(&self) -> usize {
        self.tables
    }

    /// The invalidation after a change of something that belongs to these tables.
    pub(crate) fn owed(&self, needed: bool, retired: FrameStack<H>) -> Invalidation<H> {
        Invalidation::new(self.pointer, &self.config, needed, retired)
    }

    /// From now on, entries may be such as no operation makes.
    fn distrust(&mut self) {
        self.plain = 0;
        self.edited = true;
    }

    fn levels(&self) -> u32 {
        self.config.levels().count()
    }
}

/// Gives every table of a tree to `sink`, the highest last.
fn take_apart<H: FrameHal>(
    mut table: FrameTable<H>,
    level: u32,
    sink: &mut impl FnMut(frame_core::PhysFrame<H>),
) {
    if level > 1 {
        take_children(table.words_mut(), level, sink);
    }
    sink(table.into_frame());
}

/// Gives every table below a table of this level to `sink`.
fn take_children<H: FrameHal>(
    mut table: TableMut<'_, H>,
    level: u32,
    sink: &mut impl FnMut(frame_core::PhysFrame<H>),
) {
    for start in (0..ENTRIES).step_by(LINE) {
        let line = start..start + LINE;
        if !TableRef::<H>::is_link(table.words().gather(line.clone()).1) {
            continue;
        }
        for i in line {
            // A processor that was not told yet may go on walking here: it finds what was there, or nothing.
            if let Some(child) = table.unlink(i, 0) {
                take_apart(child, level - 1, sink);
            }
        }
    }
}

impl<H: FrameHal> Drop for Ept<H> {
    fn drop(&mut self) {
        // What `FrameTable` does by itself, less the search for owners in tables that have none.
        let level = self.levels();
        take_children(self.tree.words_mut(), level, &mut drop);
    }
}

impl<H: FrameHal> fmt::Debug for Ept<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// One line for each run of pages that look alike.
        struct Runs<'a, H: FrameHal>(&'a Ept<H>);
        impl<H: FrameHal> fmt::Debug for Runs<'_, H> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(self.0.runs()).finish()
            }
        }
        f.debug_struct("Ept")
            .field("pointer", &self.pointer)
            .field("table_frames", &self.tables)
            .field("mapped", &Runs(self))
            .finish()
    }
}
