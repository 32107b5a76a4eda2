//! Processors to build tables for: old, new, and odd ones.
#![allow(dead_code)] // each test file uses a part

use vmx_structs::capabilities::ControlCap;
use vmx_structs::{CpuModel, EptConfig, EptLevels, EptVpidCap, PageSize, VmxCapabilities};

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
