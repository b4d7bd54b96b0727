// SPDX-License-Identifier: Apache-2.0
//! The order in which locks are taken, checked by the compiler.
//!
//! ```text
//! userns -> graph -> layers -> read-only layers -> images -> read-only images
//!        -> containers -> mountpoints
//! ```
//!
//! A [`Held`] says what the innermost lock is that a thread may hold. Taking a lock consumes the
//! use of that proof for as long as the lock is held and gives a new one for what lies further in:
//!
//! ```
//! # use plywood::locking::{Access, StoreLock, order::{Containers, Held, Layers}};
//! # fn main() -> plywood::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! let layers = StoreLock::<Layers>::open(&dir.path().join("layers.lock"), Access::ReadWrite)?;
//! let containers =
//!     StoreLock::<Containers>::open(&dir.path().join("containers.lock"), Access::ReadWrite)?;
//! let mut held = Held::nothing();
//! let (_layers, mut held) = layers.write(&mut held)?;
//! let (_containers, _) = containers.write(&mut held)?;
//! # Ok(())
//! # }
//! ```
//!
//! The other way round does not compile:
//!
//! ```compile_fail,E0277
//! # use plywood::locking::{Access, StoreLock, order::{Containers, Held, Layers}};
//! # fn main() -> plywood::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let layers = StoreLock::<Layers>::open(&dir.path().join("layers.lock"), Access::ReadWrite)?;
//! # let containers =
//! #     StoreLock::<Containers>::open(&dir.path().join("containers.lock"), Access::ReadWrite)?;
//! # let mut held = Held::nothing();
//! let (_containers, mut held) = containers.write(&mut held)?;
//! let (_layers, _) = layers.write(&mut held)?; // `Containers: Before<Layers>` does not hold
//! # Ok(())
//! # }
//! ```
//!
//! Nor does going back to the outer proof while the inner lock is held:
//!
//! ```compile_fail,E0499
//! # use plywood::locking::{Access, StoreLock, order::{Containers, Held, Layers}};
//! # fn main() -> plywood::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let layers = StoreLock::<Layers>::open(&dir.path().join("layers.lock"), Access::ReadWrite)?;
//! # let containers =
//! #     StoreLock::<Containers>::open(&dir.path().join("containers.lock"), Access::ReadWrite)?;
//! let mut nothing = Held::nothing();
//! let (inner, _) = containers.write(&mut nothing)?;
//! let (_outer, _) = layers.write(&mut nothing)?;
//! drop(inner);
//! # Ok(())
//! # }
//! ```

use std::{cell::Cell, fmt, marker::PhantomData};

mod sealed {
    pub trait Sealed {}
}

/// A place in the order.
pub trait Level: sealed::Sealed + Send + Sync + 'static {
    /// The name for messages.
    const NAME: &'static str;
    /// Whether the order applies to it.
    const ORDERED: bool = true;
}

/// While `Self` is the innermost lock that is held, a lock of level `L` may be taken.
#[diagnostic::on_unimplemented(
    message = "a `{L}` lock must not be taken while a `{Self}` lock may be held",
    note = "see the order in `plywood::locking::order`"
)]
pub trait Before<L>: Level {}

macro_rules! levels {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub enum $name {}
            impl sealed::Sealed for $name {}
            impl Level for $name { const NAME: &'static str = $text; }
        )*
        levels!(@pairs $($name)*);
    };
    (@pairs $first:ident $($rest:ident)*) => {
        $(impl Before<$rest> for $first {})*
        levels!(@pairs $($rest)*);
    };
    (@pairs) => {};
}

levels! {
    /// No lock is held.
    Nothing = "nothing";
    /// The choice of automatic id maps: `userns.lock`.
    Userns = "userns";
    /// The store as a whole and its driver: `storage.lock`.
    Graph = "graph";
    /// The layers that can be changed: `layers.lock`.
    Layers = "layers";
    /// The layers of read-only stores.
    RoLayers = "read-only layers";
    /// The images that can be changed: `images.lock`.
    Images = "images";
    /// The images of read-only stores.
    RoImages = "read-only images";
    /// The containers: `containers.lock`.
    Containers = "containers";
    /// What is mounted: `mountpoints.lock`.
    Mountpoints = "mountpoints";
}

// Several read-only stores may be looked at together; nobody here ever waits for a write lock
// on one of them, so their order among themselves does not matter.
impl Before<RoLayers> for RoLayers {}
impl Before<RoImages> for RoImages {}

/// A lock outside the order: it guards nothing that the others guard (digest locks).
#[derive(Clone, Copy, Debug)]
pub enum Unordered {}

impl sealed::Sealed for Unordered {}

impl Level for Unordered {
    const NAME: &'static str = "digest";
    const ORDERED: bool = false;
}

/// The proof that no lock further in than `L` is held.
///
/// The lifetime is that of the proof that it was made from, which cannot be used meanwhile.
pub struct Held<'outer, L: Level>(PhantomData<&'outer mut ()>, PhantomData<fn() -> L>);

impl Held<'static, Nothing> {
    /// The start of an operation that holds no lock yet.
    ///
    /// # Panics
    /// In debug builds, when this thread does hold a lock.
    pub fn nothing() -> Self {
        debug_assert_eq!(
            HELD.get(),
            0,
            "an operation begins while this thread holds a lock of the store"
        );
        Held(PhantomData, PhantomData)
    }
}

impl<'outer, L: Level> Held<'outer, L> {
    pub(super) fn further_in() -> Self {
        Held(PhantomData, PhantomData)
    }

    /// The proof for a lock further in, when there turns out to be none in between to take.
    pub fn deeper<M: Level>(self) -> Held<'outer, M>
    where
        L: Before<M>,
    {
        Held(self.0, PhantomData)
    }

    /// The same proof for a part of an operation, after which this one is usable again.
    pub fn part(&mut self) -> Held<'_, L> {
        Held(self.0, PhantomData)
    }
}

impl<L: Level> fmt::Debug for Held<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", L::NAME)
    }
}

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Counts one lock of this thread; not `Send`, so that it is given back where it was taken.
#[derive(Debug)]
pub(super) struct Counted {
    ordered: bool,
    not_send: PhantomData<std::sync::MutexGuard<'static, ()>>,
}

impl Counted {
    pub(super) fn new<L: Level>() -> Self {
        if L::ORDERED {
            HELD.set(HELD.get() + 1);
        }
        Self {
            ordered: L::ORDERED,
            not_send: PhantomData,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.ordered {
            // A guard may be dropped while the thread's own data is being torn down.
            let _ = HELD.try_with(|held| held.set(held.get() - 1));
        }
    }
}
