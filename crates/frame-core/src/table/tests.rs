use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::{FrameLayout, PhysFrames, VirtAddr};

const FRAMES: usize = 2048;

/// Host memory, handed out in order; counts the frames that live.
struct Hal;

#[repr(align(4096))]
struct Memory(UnsafeCell<[[u8; FRAME_SIZE]; FRAMES]>);
// SAFETY: the memory is reached through frames, each owned once.
unsafe impl Sync for Memory {}
static MEMORY: Memory = Memory(UnsafeCell::new([[0xff; FRAME_SIZE]; FRAMES]));
static NEXT: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: frame n lies at MEMORY[n - 1] and is handed out once.
unsafe impl FrameHal for Hal {
    fn alloc_frame() -> Option<PhysAddr> {
        Self::alloc_frames(FrameLayout::SINGLE).ok()
    }
    unsafe fn dealloc_frame(_: PhysAddr) {
        LIVE.fetch_sub(1, Ordering::Relaxed);
    }
    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from(MEMORY.0.get() as usize + paddr.as_usize() - FRAME_SIZE)
    }
    fn alloc_frames(layout: FrameLayout) -> Result<PhysAddr, AllocError> {
        let first = NEXT.fetch_add(layout.count(), Ordering::Relaxed);
        if first + layout.count() > FRAMES {
            return Err(AllocError::NoMemory);
        }
        LIVE.fetch_add(layout.count(), Ordering::Relaxed);
        Ok(PhysAddr::from((first + 1) * FRAME_SIZE))
    }
}

/// Tests that look at what lives, or make some of it, run one after the other.
struct Turn;
static TAKEN: AtomicBool = AtomicBool::new(false);

fn turn() -> Turn {
    while TAKEN.swap(true, Ordering::Acquire) {
        core::hint::spin_loop();
    }
    Turn
}

impl Drop for Turn {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

#[test]
fn a_tree_owns_what_it_links_and_nothing_else_can_forge_it() {
    let _turn = turn();
    let mut root = FrameTable::<Hal>::new(!0).unwrap();
    assert!((0..WORDS).all(|i| root.words().word(i) == !OWNED), "no word is born an owner");
    for i in 0..WORDS {
        root.words_mut().set(i, 0).unwrap();
    }
    let leaf = FrameTable::<Hal>::new(0).unwrap();
    let at = leaf.start_paddr().as_usize() as u64;
    assert_eq!(root.words_mut().link(5, leaf, !0).unwrap(), 0);
    let mut words = root.words_mut();
    // Flags cannot disturb the address or the marks, at birth or later.
    assert_eq!(words.word(5), at | TABLE | !HELD);
    assert_eq!(words.words().clear_bits(5, !0), at | TABLE | !HELD);
    assert_eq!(words.word(5), at | TABLE);
    words.words().set_bits(5, !0);
    assert_eq!(words.word(5), at | TABLE | !HELD);
    words.words().set_bits(6, !0);
    assert_eq!(words.word(6), !HELD);
    // An owner cannot be overwritten, nor written.
    assert_eq!(words.set(5, 0), Err(OwnedWord));
    assert_eq!(words.swap(5, 0), Err(OwnedWord));
    assert_eq!(words.set(7, TABLE), Err(OwnedWord));
    assert_eq!(words.set(7, RUN), Err(OwnedWord));
    let other = FrameTable::<Hal>::new(0).unwrap();
    let other = words.link(5, other, 0).unwrap_err();
    assert_eq!(LIVE.load(Ordering::Relaxed), 3);
    drop(other);

    // Runs: only the sizes of pages; the length survives flags.
    let odd = PhysFrames::<Hal>::try_alloc(FrameLayout::contiguous(2).unwrap()).unwrap();
    drop(words.own_run(8, odd, 0).unwrap_err());
    let run = PhysFrames::<Hal>::try_alloc(FrameLayout::contiguous(512).unwrap()).unwrap();
    let range = run.range();
    words.own_run(8, run, !0).unwrap();
    assert_eq!(words.words().run(8), Some(range));
    assert!(words.words().child(8).is_none() && words.unlink(8, 0).is_none());
    let bytes = words.words().run_words(8).unwrap();
    assert_eq!(bytes.len(), 512 * 512);
    bytes[512 * 512 - 1].store(7, Ordering::Relaxed);

    // Down, change, up; then take one out and drop the rest.
    words.child(5).unwrap().set(511, 0x1000).unwrap();
    assert_eq!(words.words().child(5).unwrap().word(511 + 512), 0x1000, "indices count modulo 512");
    assert_eq!(LIVE.load(Ordering::Relaxed), 2 + 512);
    let leaf = words.unlink(5, !0).unwrap();
    assert_eq!(words.word(5), !OWNED);
    assert_eq!(leaf.words().word(511), 0x1000);
    drop(leaf);
    assert_eq!(LIVE.load(Ordering::Relaxed), 1 + 512);
    drop(root);
    assert_eq!(LIVE.load(Ordering::Relaxed), 0);
}

const UNMARKED: u64 = FrameTree::<Hal>::UNMARKED;

#[test]
fn a_bookmark_goes_back_to_the_root_before_a_table_above_it_can_change() {
    let _turn = turn();
    let mut middle = FrameTable::<Hal>::new(0).unwrap();
    for i in [1, 2] {
        middle.words_mut().link(i, FrameTable::new(i as u64).unwrap(), 7).unwrap();
    }
    let mut root = FrameTable::<Hal>::new(0).unwrap();
    root.words_mut().link(3, middle, 7).unwrap();
    let mut tree = FrameTree::new(root);
    assert_eq!((tree.label(), tree.marked().word(0)), (UNMARKED, 0));

    let mut walk = tree.walk();
    assert!(!walk.down(4) && walk.down(3) && !walk.down(3));
    walk.mark(9).set(100, 0x10).unwrap();
    assert_eq!((tree.label(), tree.marked().word(100)), (9, 0x10));
    // What lies below the marked table may go.
    let leaf = tree.marked_mut().unlink(1, 0).unwrap();
    assert_eq!(leaf.words().word(5), 1);
    drop(leaf);
    assert_eq!(tree.label(), 9);
    assert_eq!(tree.marked_mut().into_child(2).unwrap().word(5), 2);
    // A walk that is given up leaves the bookmark.
    assert!(tree.walk().down(3));
    assert_eq!(tree.label(), 9);
    // What lies above it is given out with the bookmark gone.
    let middle = tree.words_mut().unlink(3, 0).unwrap();
    assert_eq!((tree.label(), tree.marked().word(3)), (UNMARKED, 0));
    drop(middle);
    assert_eq!(tree.marked_mut().word(3), 0);
}

#[test]
fn the_base_lies_at_the_marked_table_or_above_it() {
    let _turn = turn();
    let mut middle = FrameTable::<Hal>::new(0).unwrap();
    middle.words_mut().link(1, FrameTable::new(11).unwrap(), 7).unwrap();
    let mut root = FrameTable::<Hal>::new(0).unwrap();
    root.words_mut().link(3, middle, 7).unwrap();
    let mut tree = FrameTree::new(root);
    assert_eq!(tree.base_label(), UNMARKED);
    assert!(tree.walk_from_base().down(3), "without a base, at the root");

    // The base and the marked table below it.
    let mut walk = tree.walk();
    assert!(walk.down(3));
    let mut walk = walk.base(5);
    assert!(walk.down(1));
    assert_eq!(walk.mark(6).word(0), 11);
    assert_eq!((tree.base_label(), tree.label()), (5, 6));
    // To give out the base takes the bookmark below it away: the table may go.
    let walk = tree.walk_from_base();
    drop(walk.mark(7).unlink(1, 0).unwrap());
    assert_eq!((tree.base_label(), tree.label(), tree.marked().word(1)), (5, 7, 0));
    // A base alone: the marked table does not lie above it.
    let mut walk = tree.walk();
    assert!(walk.down(3));
    walk.base(8);
    assert_eq!((tree.base_label(), tree.label()), (8, UNMARKED));
    // To give out a table above the base takes that away.
    drop(tree.walk().mark(9).unlink(3, 0).unwrap());
    assert_eq!((tree.base_label(), tree.label()), (UNMARKED, 9));
    assert_eq!(tree.walk_from_base().words().word(3), 0);
    tree.unmark();
    assert_eq!((tree.base_label(), tree.label()), (UNMARKED, UNMARKED));
}

#[test]
fn a_walk_comes_to_tables_and_to_words_that_can_be_changed() {
    let _turn = turn();
    let mut middle = FrameTable::<Hal>::new(0).unwrap();
    middle.words_mut().link(1, FrameTable::new(11).unwrap(), 7).unwrap();
    middle.words_mut().own_run(2, PhysFrames::alloc(FrameLayout::SINGLE).unwrap(), 0).unwrap();
    let mut root = FrameTable::<Hal>::new(0).unwrap();
    let link = root.words_mut().link(3, middle, 7).map(|_| root.words().word(3)).unwrap();
    let mut tree = FrameTree::new(root);

    let mut walk = tree.walk();
    assert!(matches!(walk.step(3), TableStep::Table(word) if word == link));
    match walk.step(0) {
        TableStep::Word(entry) => {
            assert_eq!((entry.word(), entry.table().word(1) & 7), (0, 7));
            assert_eq!(entry.set(PlainWord::of(9)), Ok(()));
        }
        TableStep::Table(_) => panic!("no table there"),
    }
    match walk.step(2) {
        TableStep::Word(run) => assert_eq!(run.swap(PlainWord::of(0)), Err(OwnedWord)),
        TableStep::Table(_) => panic!("a run is no table"),
    }
    assert_eq!(walk.word_mut(0).swap(PlainWord::of(8)), Ok(9));
    assert_eq!(walk.word_mut(1).set(PlainWord::of(0)), Err(OwnedWord), "it owns a table");
    assert_eq!(walk.words().word(0), 8);
    walk.mark(5);
    // From the mark on, which stays.
    let mut walk = tree.walk_from_mark();
    assert_eq!(walk.words().word(0), 8);
    assert!(walk.down(1) && !walk.down(1));
    assert_eq!((walk.word_mut(4).swap(PlainWord::of(12)), walk.words().word(4)), (Ok(11), 12));
    assert_eq!((tree.label(), tree.marked().word(0)), (5, 8));
    // Where none is marked, from the root.
    tree.unmark();
    assert_eq!(tree.walk_from_mark().words().word(3), link);
}

/// A table of this word, but for one at index 5 that owns a table; and that.
fn table_with_a_link(word: u64) -> (FrameTable<Hal>, u64) {
    let mut table = FrameTable::<Hal>::new(word).unwrap();
    table.words_mut().link(5, FrameTable::new(0).unwrap(), 0x307).unwrap();
    let link = table.words().word(5);
    (table, link)
}

#[test]
fn plain_words_are_written_over_plain_words() {
    let _turn = turn();
    let (mut table, link) = table_with_a_link(0xabcd);
    assert_eq!(table.words_mut().word_mut(5).set(PlainWord::of(0)), Err(OwnedWord));
    assert_eq!(table.words_mut().word_mut(5).swap(PlainWord::of(0)), Err(OwnedWord));
    assert_eq!(table.words().word(5), link);
    assert_eq!(table.words_mut().word_mut(4).swap(PlainWord::of(8)), Ok(0xabcd));
    assert_eq!(table.words_mut().word_mut(4).set(PlainWord::of(9)), Ok(()));
    assert_eq!(table.words().word(4), 9);
    assert_eq!((PlainWord::new(TABLE), PlainWord::of(TABLE | 7).get()), (Err(OwnedWord), 7));
    assert_eq!(PlainWord::new(7).map(PlainWord::get), Ok(7));
}

#[test]
fn low_bytes_of_a_range_change_and_nothing_else() {
    let _turn = turn();
    let (mut table, link) = table_with_a_link(0xabcd_ef12);
    table.words_mut().set_low_bytes(4..7, 0x34);
    assert_eq!(table.words().word(3), 0xabcd_ef12);
    assert_eq!((table.words().word(4), table.words().word(6)), (0xabcd_ef34, 0xabcd_ef34));
    assert_eq!(table.words().word(5), link & !0xff | 0x34);
    assert_eq!(table.words().gather(3..5), (0xabcd_ef12 & 0xabcd_ef34, 0xabcd_ef12 | 0xabcd_ef34));
    assert_eq!(table.words().gather(3..3), (u64::MAX, 0));
}
