// SPDX-License-Identifier: Apache-2.0
//! Second gates: why a case may not apply although its own capability, if it has one, is declared.
//!
//! The catalogue names the gate of each case that has one (`GATE/EXCUSE`); a case that finds itself
//! not applicable for any other reason is an error, and what a report knows about the driver must
//! not speak against it.

use crate::Entry;

/// What is known about a driver and a run once the cases have ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// What the driver declares.
    pub(crate) capabilities: &'a [String],
    /// The longest chain that it declares to mount; `None` when it names no limit.
    pub(crate) depth: Option<u32>,
    /// Whether it is linked into the suite.
    pub(crate) linked: bool,
}

impl Known<'_> {
    fn declares(&self, name: &str) -> bool {
        self.capabilities.iter().any(|declared| declared == name)
    }
}

/// A second gate.
#[derive(Debug)]
pub struct Excuse {
    /// Its word in the catalogue.
    pub name: &'static str,
    /// When it holds.
    pub text: &'static str,
    /// Whether what is known rules it out; never, where only the case can see it.
    ruled_out: fn(&Known<'_>) -> bool,
}

impl Excuse {
    /// Whether what is known about the driver rules it out.
    pub(crate) fn is_ruled_out(&self, known: &Known<'_>) -> bool {
        (self.ruled_out)(known)
    }
}

macro_rules! excuses {
    ($($constant:ident $name:literal $text:literal $ruled_out:expr;)*) => {
        $(pub(crate) const $constant: &str = $name;)*

        /// Every second gate.
        pub(crate) static EXCUSES: &[Excuse] = &[$(Excuse {
            name: $name,
            text: $text,
            ruled_out: $ruled_out,
        },)*];
    };
}

/// The layers of the case that needs a depth of 500.
const DEPTH: u32 = 499;

excuses! {
    LINKED_IN "linked-in" "the driver is linked in: there is no plugin file" |known| !known.linked;
    NO_OTHER_DRIVER "no-other-driver" "no other driver of the suite fits the file system" |_| false;
    NO_IMAGE_STORES "no-image-stores" "`image_stores` is not declared"
        |known| known.declares("image_stores");
    NO_STAGING "no-staging" "neither `staging` nor `deferred_removal` is declared"
        |known| known.declares("staging") || known.declares("deferred_removal");
    NO_OWN_FILES "no-own-files" "the driver keeps no file of its own beside the layers' content"
        |_| false;
    NO_DIRECTORY "no-directory" "no directory in the home holds a layer's content" |_| false;
    SHALLOW "shallow" "the declared depth is below 500 layers"
        |known| known.depth.is_none_or(|depth| depth >= DEPTH);
    NOT_IN_GO "not-in-go" "containers-storage has no such driver for the file system" |_| false;
    NOT_ON_BTRFS "not-on-btrfs" "the driver takes no store on btrfs" |_| false;
    NO_DEFAULT_LIMIT "no-default-limit" "the driver has no option for a limit of all layers"
        |_| false;
}

/// Whether a case may be reported as not applicable for what is known about the driver.
pub(crate) fn may_not_apply(entry: &Entry, known: &Known<'_>) -> bool {
    let undeclared = entry.gate.is_some_and(|gate| !known.declares(gate.name));
    let excused = entry
        .excuse
        .is_some_and(|excuse| !excuse.is_ruled_out(known));
    undeclared || excused
}

/// The second gate of that name.
pub(crate) fn find(name: &str) -> Option<&'static Excuse> {
    EXCUSES.iter().find(|excuse| excuse.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(capabilities: &[String], depth: Option<u32>, linked: bool) -> Known<'_> {
        Known {
            capabilities,
            depth,
            linked,
        }
    }

    #[test]
    fn what_is_known_rules_an_excuse_out() {
        let excuse = |name| find(name).unwrap();
        let declared = ["staging".to_owned()];
        for (name, good, bad) in [
            (LINKED_IN, known(&[], None, true), known(&[], None, false)),
            (SHALLOW, known(&[], Some(8), true), known(&[], None, true)),
            (
                NO_STAGING,
                known(&[], None, true),
                known(&declared, None, true),
            ),
        ] {
            assert!(!excuse(name).is_ruled_out(&good), "{name}");
            assert!(excuse(name).is_ruled_out(&bad), "{name}");
        }
        assert!(excuse(SHALLOW).is_ruled_out(&known(&[], Some(499), true)));
        assert!(find("nonsense").is_none());
    }

    #[test]
    fn a_case_is_excused_by_its_own_gates_alone() {
        let entry = |id| crate::entry(id).unwrap();
        let declared = ["size_quota".to_owned()];
        let (bare, with_limits) = (known(&[], None, false), known(&declared, None, false));
        // A mandatory case without a second gate always applies.
        assert!(!may_not_apply(entry("GD-LIF-001"), &bare));
        assert!(may_not_apply(entry("GD-QUO-001"), &bare));
        assert!(!may_not_apply(entry("GD-QUO-001"), &with_limits));
        assert!(may_not_apply(entry("GD-QUO-009"), &with_limits));
        assert!(!may_not_apply(entry("GD-ABI-001"), &bare));
    }
}
