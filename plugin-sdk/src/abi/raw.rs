// SPDX-License-Identifier: Apache-2.0
//! A plugin's functions with arguments that no host sends: for tests of the boundary itself.

use abi_stable::std_types::{ROption, RStr, RString};

use super::{
    convert::received,
    types::{AbiCreate, AbiMount},
    vtable::DriverBox,
};
use crate::{Capabilities, CreateRequest, LayerId, MountRequest, Result};

/// A driver in a plugin, without the types that keep wrong arguments out.
pub struct RawDriver(pub(super) DriverBox);

/// A method, and what it answered.
pub type Answer = (&'static str, Result<()>);

impl RawDriver {
    /// The declared capabilities that this version of the SDK does not know, as bits.
    ///
    /// # Errors
    /// Those of the plugin.
    pub fn unknown_capabilities(&self) -> Result<u64> {
        let bits = received(self.0.capabilities())?.bits;
        Ok(bits & !Capabilities::from_bits(bits, None).to_bits())
    }

    /// Undoes what opening did to the system.
    ///
    /// # Errors
    /// Those of the plugin.
    pub fn close(&self) -> Result<()> {
        received(self.0.close())
    }

    /// Calls everything that takes a layer's id with `id`, in each place where one can stand;
    /// elsewhere stands `good`.
    pub fn with_id(&self, id: &str, good: &LayerId) -> Vec<Answer> {
        let (text, other) = (RStr::from_str(id), RStr::from_str(good.as_str()));
        let driver = &self.0;
        let mount = || AbiMount::from(&MountRequest::default());
        let with = |change: &dyn Fn(&mut AbiCreate)| {
            let mut request = AbiCreate::from(&CreateRequest::new(good.clone(), None));
            change(&mut request);
            request
        };
        let named = || with(&|request| request.id = id.into());
        let on = || with(&|request| request.parent = ROption::RSome(RString::from(id)));
        let like = || with(&|request| request.template = ROption::RSome(RString::from(id)));
        macro_rules! answers {
            ($($name:literal $call:expr,)*) => { vec![$(($name, received($call).map(drop)),)*] };
        }
        answers! {
            "create" driver.create(named()),
            "create on a parent" driver.create(on()),
            "create from a template" driver.create(like()),
            "remove" driver.remove(text),
            "exists" driver.exists(text),
            "metadata" driver.metadata(text),
            "usage" driver.usage(text),
            "mount_plan" driver.mount_plan(text, mount()),
            "mount" driver.mount(text, mount()),
            "unmount" driver.unmount(text),
            "released" driver.released(text),
            "unpack_target" driver.unpack_target(text),
            "diff_view" driver.diff_view(text, ROption::RNone),
            "diff_view against a parent" driver.diff_view(other, ROption::RSome(text)),
            "content_roots" driver.content_roots(text),
            "native_changes" driver.native_changes(text, ROption::RNone),
            "native_changes against a parent" driver.native_changes(other, ROption::RSome(text)),
            "stage" driver.stage(named()),
            "adopt" driver.adopt("token".into(), named()),
            "trash" driver.trash(text),
            "sync" driver.sync(text),
        }
    }

    /// Sends requests about the layer `id` that carry numbers and flags of a newer host.
    pub fn with_newer_requests(&self, id: &LayerId) -> Vec<Answer> {
        let driver = &self.0;
        let create = |kind, flags| {
            let mut request = AbiCreate::from(&CreateRequest::new(id.clone(), None));
            (request.kind, request.flags) = (kind, flags);
            received(driver.create(request)).map(drop)
        };
        let mut mount = AbiMount::from(&MountRequest::default());
        mount.flags = 1 << 63;
        let planned = received(driver.mount_plan(id.as_str().into(), mount));
        vec![
            ("create of an unknown kind", create(u32::MAX, 0)),
            ("create with an unknown flag", create(0, 1 << 63)),
            ("mount_plan with an unknown flag", planned.map(drop)),
        ]
    }
}

impl std::fmt::Debug for RawDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawDriver").finish_non_exhaustive()
    }
}
