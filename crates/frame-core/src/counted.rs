//! Atomics that tell when they are written: for counting, not for use. Only in builds with `--cfg frame_counted`.
//!
//! The argument for scaling is a number: how many atomic read-modify-writes an operation does, and how many cache lines
//! it writes that other CPUs write too. The crates that keep their atomics in one module take these instead of
//! [`core::sync::atomic`]'s; a program sets an [observer](observe) that is told of each write. Without the cfg, nothing
//! of this exists.
//!
//! Reads are not told: a line that is read and never written is in every CPU's cache.

use core::{
    ops::Deref,
    ptr,
    sync::atomic::{self, AtomicPtr as Pointer, Ordering},
};

/// What a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// A plain store.
    Store,
    /// An exchange, a fetch-and-modify, or a compare-exchange, successful or not.
    ReadModifyWrite,
}

/// Is told the address of the word and what is done to it.
pub type Observer = fn(usize, Write);

static OBSERVER: Pointer<()> = Pointer::new(ptr::null_mut());

/// Has every write told to `observer` from now on.
pub fn observe(observer: Observer) {
    OBSERVER.store(observer as *mut (), Ordering::Relaxed);
}

fn tell<T>(word: &T, write: Write) {
    let observer = OBSERVER.load(Ordering::Relaxed);
    if !observer.is_null() {
        // SAFETY: only `observe` stores here, and it stores an `Observer`.
        let observer = unsafe { core::mem::transmute::<*mut (), Observer>(observer) };
        observer(ptr::from_ref(word).addr(), write);
    }
}

macro_rules! counted {
    ($name:ident $(<$generic:ident>)?, $value:ty, { $($arithmetic:ident)* }) => {
        #[doc = concat!("As `core::sync::atomic::", stringify!($name), "`.")]
        #[derive(Debug)]
        #[repr(transparent)]
        pub struct $name $(<$generic>)? (atomic::$name $(<$generic>)?);

        impl $(<$generic>)? $name $(<$generic>)? {
            /// A new atomic.
            pub const fn new(value: $value) -> Self {
                Self(atomic::$name::new(value))
            }

            /// Stores a value.
            pub fn store(&self, value: $value, order: Ordering) {
                tell(self, Write::Store);
                self.0.store(value, order);
            }

            /// Exchanges the value.
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                tell(self, Write::ReadModifyWrite);
                self.0.swap(value, order)
            }

            /// Exchanges the value if it is the one expected.
            ///
            /// # Errors
            /// The value that was there instead.
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                tell(self, Write::ReadModifyWrite);
                self.0.compare_exchange(current, new, success, failure)
            }

            /// Exchanges the value if it is the one expected; may fail without a reason.
            ///
            /// # Errors
            /// The value that was there instead.
            pub fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                tell(self, Write::ReadModifyWrite);
                self.0.compare_exchange_weak(current, new, success, failure)
            }

            /// Exchanges the value for what a function makes of it, until nobody comes between.
            ///
            /// # Errors
            /// The value for which the function gave none.
            pub fn fetch_update(
                &self,
                success: Ordering,
                failure: Ordering,
                update: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                tell(self, Write::ReadModifyWrite);
                self.0.fetch_update(success, failure, update)
            }

            $(
                #[doc = concat!("As `", stringify!($arithmetic), "` of the standard atomic.")]
                pub fn $arithmetic(&self, value: $value, order: Ordering) -> $value {
                    tell(self, Write::ReadModifyWrite);
                    self.0.$arithmetic(value, order)
                }
            )*
        }

        // What does not write: loads, and access through `&mut`.
        impl $(<$generic>)? Deref for $name $(<$generic>)? {
            type Target = atomic::$name $(<$generic>)?;

            fn deref(&self) -> &Self::Target {
                &self.0
            }
        }
    };
}

counted!(AtomicBool, bool, { fetch_or fetch_and fetch_xor });
counted!(AtomicU8, u8, { fetch_add fetch_sub fetch_or fetch_and fetch_max fetch_min });
counted!(AtomicU64, u64, { fetch_add fetch_sub fetch_or fetch_and fetch_xor fetch_max fetch_min });
counted!(AtomicUsize, usize, { fetch_add fetch_sub fetch_or fetch_and fetch_xor fetch_max fetch_min });
counted!(AtomicPtr<T>, *mut T, {});
