//! Processors to build tables for, old, new, and odd ones, and what the words of tables must be.
#![allow(dead_code)] // each test file uses a part

use frame_core::{FrameHal, PhysAddr};
use vmx_structs::capabilities::ControlCap;
use vmx_structs::{CpuModel, Ept, EptConfig, EptLevels, EptVpidCap, PageSize, VmxCapabilities};

/// A processor that has everything that EPT knows.
pub(crate) fn newest() -> VmxCapabilities {
    let mut caps = CpuModel::by_id("sandy_bridge").unwrap().capabilities();
    caps.ept_vpid = EptVpidCap::all();
    caps.secondary = ControlCap::from_raw(0xffff_ffff << 32);
    caps.cpu.physical_width = 52;
    caps
}

/// An old processor: 2 MiB pages, no accessed and dirty flags, 4 levels.
pub(crate) fn oldest() -> VmxCapabilities {
    CpuModel::by_id("sandy_bridge").unwrap().capabilities()
}

/// The configurations that tests of the tables run on: both depths, with and without each size, with everything on and
/// everything off.
pub(crate) fn configs() -> Vec<EptConfig> {
    let new = EptConfig::new(&newest()).unwrap();
    let mut no_2m = newest();
    no_2m.ept_vpid.remove(EptVpidCap::PAGE_2M); // no such processor, but the bits say so
    let mut only_4k = newest();
    only_4k.ept_vpid.remove(EptVpidCap::PAGE_2M | EptVpidCap::PAGE_1G | EptVpidCap::EXECUTE_ONLY);
    only_4k.ept_vpid.remove(EptVpidCap::INVEPT_SINGLE);
    let mut configs = vec![
        EptConfig::new(&oldest()).unwrap(),
        new,
        new.with_levels(EptLevels::Five).unwrap(),
        everything(EptLevels::Five),
        everything(EptLevels::Four),
        new.with_accessed_dirty(false).unwrap().with_largest_page(PageSize::Size2M).unwrap(),
        EptConfig::new(&no_2m).unwrap(),
        EptConfig::new(&only_4k).unwrap(),
    ];
    // And the processors that the crate knows, as they are.
    configs.extend(CpuModel::ALL.iter().filter_map(|model| EptConfig::new(&model.capabilities()).ok()));
    configs
}

/// The newest processor with all that can be switched on.
pub(crate) fn everything(levels: EptLevels) -> EptConfig {
    let config = EptConfig::new(&newest()).unwrap().with_levels(levels).unwrap();
    let config = config.with_mode_based_execute(true).unwrap().with_ve(true).unwrap();
    config.with_sub_page_write(true).unwrap().with_shadow_stack_control(true).unwrap()
}

/// What must be true of the words of tables in which none was edited, while no session is open: no table is empty, none is
/// noted by a session, and those that are marked as full are; words that map nothing are vacant.
pub(crate) fn check_words<H: FrameHal>(ept: &Ept<H>) {
    let user = if ept.config().mode_based_execute() { 1 << 10 } else { 0 };
    let tables = check_table::<H>(7 | user, ept.pointer().root(), ept.config().levels().count(), true);
    assert_eq!(tables, ept.table_frames());
}

/// Returns how many tables there are.
fn check_table<H: FrameHal>(present: u64, table: PhysAddr, level: u32, is_root: bool) -> usize {
    let words: *const [u64; 512] = H::phys_to_virt(table).as_ptr().cast();
    // SAFETY: the caller borrows the tables, of which this is one, and no processor uses them.
    let words = unsafe { &*words };
    let mut tables = 1;
    for &word in words.iter().filter(|&&word| word & present != 0) {
        if word >> 54 & 3 == 0 {
            assert!(level == 1 || level <= 3 && word & 0x80 != 0, "{word:#x} at level {level}");
            continue;
        }
        assert_eq!(word & 1 << 11, 0, "noted");
        let child = PhysAddr::from((word & 0x000f_ffff_ffff_f000) as usize);
        if word & 1 << 56 != 0 {
            let entries: *const [u64; 512] = H::phys_to_virt(child).as_ptr().cast();
            // SAFETY: as above.
            let is_full = unsafe { &*entries }.iter().all(|entry| entry & present != 0);
            assert!(level == 2 && is_full, "marked as full");
        }
        tables += check_table::<H>(present, child, level - 1, false);
    }
    let used = words.iter().filter(|&&word| word & present != 0).count();
    assert!(is_root || used > 0, "an empty table of level {level}");
    assert!(
        words.iter().all(|word| word & present != 0 || word & !(1 << 63) == 0),
        "neither present nor vacant"
    );
    tables
}
