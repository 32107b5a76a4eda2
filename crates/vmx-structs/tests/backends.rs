//! A whole VM, on every backend: built, looked at as a processor would, and given back to the last frame.

mod common;

use core::alloc::Layout;

use common::{newest, oldest};
use frame_bitmap::Bitmap;
use frame_buddy::Buddy;
use frame_core::{AxResult, FrameHal, FrameRange, PhysAddr};
use frame_percpu::{CpuSlot, PerCpu, ThreadCpus, Trusting};
use frame_testkit::{Backend, Metadata, OracleBackend, TestHal, test_hal};
use frame_tree::Tree;
use vmx_structs::{vmcs::*, *};

test_hal! { struct Hal }

struct Vm<H: FrameHal> {
    memory: GuestMemory<H>,
    ept: Ept<H>,
    ports: IoBitmap<H>,
    msrs: MsrBitmap<H>,
    region: VmcsRegion<H>,
    fields: VmcsImage,
}

/// The README's VM.
fn vm<H: FrameHal>(caps: &VmxCapabilities, vpid: &Vpid<'_>, host: &HostState) -> AxResult<Vm<H>> {
    let config = EptConfig::new(caps)?;
    let mut memory = GuestMemory::new(&config)?;
    memory.add(GuestRange::new(GuestPhysAddr::new(0), 4096)?, Contents::Zeroed)?;
    memory.write(GuestPhysAddr::new(0x7c00), &[0xe6, 0x80, 0xf4])?;
    let mut ept = Ept::new(config)?;
    ept.map_memory(&memory, EptAttributes::RAM)?;

    let mut ports = IoBitmap::intercept_all()?;
    ports.set_intercept_of_range(0x3f8, 8, false)?;
    let msrs = MsrBitmap::intercept_all()?;
    let region = VmcsRegion::new(caps.basic)?;
    let (a, b) = ports.phys_addr();
    let fields = VmcsBuilder::new(caps)
        .want(PrimaryControls::HLT_EXITING)
        .want(SecondaryControls::UNRESTRICTED_GUEST)
        .io_bitmaps(a, b)
        .msr_bitmap(msrs.phys_addr())
        .ept(ept.pointer())
        .vpid(vpid.get())
        .guest(&GuestState::real_mode(caps, 0, 0x7c00))
        .host(host)
        .build()?;
    Ok(Vm { memory, ept, ports, msrs, region, fields })
}

fn host(caps: &VmxCapabilities) -> HostState {
    let top = 0xffff_8000_0000_0000;
    HostState {
        cr0: caps.cr0.adjust(0x8005_0033),
        cr3: 0x1000,
        cr4: caps.cr4.adjust(0x20),
        rsp: top,
        rip: top,
        cs_selector: 0x08,
        tr_selector: 0x18,
        long_mode: true,
        ..HostState::default()
    }
}

/// Frames in the scope: 16 MiB for the guest and some for its structures.
const FRAMES: usize = 4096 + 512;

fn builds<B: Backend>() {
    static VPIDS: VpidAllocator<16> = VpidAllocator::new();
    for caps in [oldest(), CpuModel::by_id("haswell").unwrap().capabilities()] {
        Hal::scope_on::<B, _>(FRAMES, || {
            let vpid = VPIDS.alloc().unwrap();
            let vm: Vm<Hal> = vm(&caps, &vpid, &host(&caps)).unwrap();
            let structures = 3 + 1 + vm.ept.table_frames() + vm.memory.table_frames();
            assert_eq!(vm.memory.frames(), 4096);
            assert_eq!(Hal::owned(), 4096 + structures, "{}", B::NAME);
            assert!(structures < 100, "{}: {structures} frames: small pages only", B::NAME);

            // The guest's first instruction, as the processor fetches it.
            let seen = vm.ept.translate(GuestPhysAddr::new(0x7c00), EptAccess::FETCH).unwrap();
            assert_eq!(Some(seen.host), vm.memory.translate(GuestPhysAddr::new(0x7c00)));
            let code = Hal::phys_to_virt(seen.host);
            // SAFETY: the frame is the guest's, and nothing writes to it now.
            assert_eq!(unsafe { *code.as_mut_ptr().cast::<[u8; 3]>() }, [0xe6, 0x80, 0xf4]);
            assert!(vm.ports.exits(0x80, IoWidth::Byte) && !vm.ports.exits(0x3f8, IoWidth::Byte));
            assert!(vm.msrs.exits(0x10, MsrAccess::Read));

            // What VM entry says.
            let mut vmcs = SoftwareVmcs::for_processor(&caps);
            vm.fields.write_to(&mut vmcs).unwrap();
            let mut broken = Vec::new();
            let verdict = checks::check(&vmcs, &checks::EntryContext::new(&caps), &mut |rule| {
                broken.push(format!("{rule:?}"))
            });
            assert!(verdict.enters(), "{verdict:?} {broken:?}");
            assert_eq!(vm.region.revision(), caps.basic.revision());
            vpid.retire().waive();
        });
    }
    // Every size of page, 5 levels, and the way back.
    Hal::scope_on::<B, _>(FRAMES, || {
        let config = EptConfig::new(&newest()).unwrap().with_levels(EptLevels::Five).unwrap();
        let mut ept = Ept::<Hal>::new(config).unwrap();
        let range = GuestRange::new(GuestPhysAddr::new((1 << 56) - 0x3000), (1 << 19) + 5).unwrap();
        ept.map_range(range, PhysAddr::from((1 << 45) - 0x3000), EptAttributes::RAM).unwrap();
        let sizes: std::collections::BTreeSet<_> = ept.leaves().map(|leaf| leaf.size()).collect();
        assert_eq!(sizes.len(), 2);
        ept.split(range, PageSize::Size2M).unwrap().waive();
        ept.merge(range).unwrap().waive();
        ept.unmap_range(range).unwrap().waive();
        assert_eq!((ept.table_frames(), Hal::owned()), (1, 1));
    });
}

/// Books for each region, from the host's heap.
fn books(layout: impl Fn(FrameRange) -> Layout, regions: &[FrameRange]) -> Vec<Metadata> {
    regions.iter().map(|&region| Metadata::new(layout(region))).collect()
}

/// A backend under a name, and the same behind a per-CPU cache.
macro_rules! backends {
    ($($name:ident, $cached:ident, $allocator:ty, $new:expr, $layout:expr, $add:expr;)*) => {$(
        struct $name;

        impl Backend for $name {
            const NAME: &'static str = stringify!($name);
            type Allocator<'m> = $allocator;

            fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Self::Allocator<'_>) -> R) -> R {
                let mut books = books($layout, regions);
                let allocator = $new;
                for (&region, books) in regions.iter().zip(&mut books) {
                    $add(&allocator, region, books);
                }
                test(&allocator)
            }
        }

        struct $cached;

        impl Backend for $cached {
            const NAME: &'static str = concat!(stringify!($name), " behind a cache");
            type Allocator<'m> = PerCpu<'m, $allocator, ThreadCpus, Trusting>;

            fn with<R>(regions: &[FrameRange], test: impl FnOnce(&Self::Allocator<'_>) -> R) -> R {
                let mut books = books($layout, regions);
                let mut slots: Vec<_> = (0..2).map(|_| CpuSlot::new()).collect();
                let allocator = $new;
                for (&region, books) in regions.iter().zip(&mut books) {
                    $add(&allocator, region, books);
                }
                let cache = PerCpu::new(allocator, ThreadCpus);
                cache.attach(&mut slots).unwrap();
                test(&cache)
            }
        }
    )*};
}

backends! {
    Trees, CachedTrees, Tree<'m, 64>, Tree::new(), <Tree>::metadata_layout, add_to_tree;
    Bitmaps, CachedBitmaps, Bitmap<'m>, Bitmap::new(), <Bitmap>::metadata_layout, add_to_bitmap;
    Buddies, CachedBuddies, Buddy, Buddy::new(), |_| Layout::new::<()>(), add_to_buddy;
}

fn add_to_tree<'m>(tree: &Tree<'m, 64>, region: FrameRange, books: &'m mut Metadata) {
    // SAFETY: the scope's memory is nobody else's.
    unsafe { tree.add_region(region, books.bytes()) }.unwrap();
}

fn add_to_bitmap<'m>(bitmap: &Bitmap<'m>, region: FrameRange, books: &'m mut Metadata) {
    // SAFETY: the scope's memory is nobody else's.
    unsafe { bitmap.add_region(region, books.bytes()) }.unwrap();
}

fn add_to_buddy(buddy: &Buddy, region: FrameRange, _: &mut Metadata) {
    // SAFETY: the scope's memory is nobody else's.
    unsafe { buddy.add_region(region) }.unwrap();
}

#[test]
fn a_vm_on_the_oracle() {
    builds::<OracleBackend>();
}

#[test]
fn a_vm_on_the_tree() {
    builds::<Trees>();
    builds::<CachedTrees>();
}

#[test]
fn a_vm_on_the_bitmap() {
    builds::<Bitmaps>();
    builds::<CachedBitmaps>();
}

#[test]
fn a_vm_on_the_buddy() {
    builds::<Buddies>();
    builds::<CachedBuddies>();
}
