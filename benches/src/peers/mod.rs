//! Other people's allocators, by their own interfaces.
//!
//! Those that are not safe to share stand behind one spin lock, as their users put them. An allocator from elsewhere
//! (another registry, a repository) joins with an implementation of [`Contender`](crate::Contender) of the same few
//! lines and an entry in [`roster`](mod@crate::roster).

mod axallocator;
mod bitmap;
mod buddy_slab;
mod buddy_system;
mod frame_alloc;
mod free_list;
mod heap;

pub use axallocator::AxBitmap;
pub use bitmap::RawBitmap;
pub use buddy_slab::BuddySlab;
pub use buddy_system::{RawBuddy, RawHeap};
pub use frame_alloc::{Depot, Summary};
pub use free_list::HermitFreeList;
pub use heap::{Mimalloc, System};
