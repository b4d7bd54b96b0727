// SPDX-License-Identifier: Apache-2.0
//! The names of datasets that are no layers.

use std::{os::unix::ffi::OsStrExt, path::Path};

/// What every such name begins with; no layer's id has a colon.
const PREFIX: &str = "plywood:";

/// What a private dataset is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It becomes a layer.
    Stage,
    /// It was one.
    Trash,
}

/// Makes the names of one home's private datasets.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    tag: String,
}

impl Names {
    /// Those of the home at `home`.
    pub(crate) fn of(home: &Path) -> Self {
        // FNV-1a: two homes that share a parent dataset must differ, nothing more.
        let hash = home
            .as_os_str()
            .as_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Self {
            tag: format!("{hash:016x}"),
        }
    }

    /// The last part of the name of the private dataset with a number.
    pub(crate) fn name(&self, purpose: Purpose, digits: &str) -> String {
        let purpose = match purpose {
            Purpose::Stage => "stage",
            Purpose::Trash => "trash",
        };
        format!("{PREFIX}{}:{purpose}:{digits}", self.tag)
    }

    /// The number in the last part of a name, if it is one of this home's.
    pub(crate) fn digits<'a>(&self, name: &'a str) -> Option<&'a str> {
        let rest = name.strip_prefix(PREFIX)?.strip_prefix(&self.tag)?;
        let (_, digits) = rest.strip_prefix(':')?.split_once(':')?;
        (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(digits)
    }
}

/// Whether a dataset, by its whole name, is one that is being removed.
pub(crate) fn is_trash(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.contains(":trash:"))
}

#[cfg(test)]
mod tests {
    use plywood_plugin_sdk::LayerId;

    use super::*;

    #[test]
    fn private_names_are_those_of_no_layer_and_of_one_home() {
        let (one, other) = (
            Names::of(Path::new("/a/zfs")),
            Names::of(Path::new("/b/zfs")),
        );
        for purpose in [Purpose::Stage, Purpose::Trash] {
            let name = one.name(purpose, "17");
            assert!(LayerId::new(name.clone()).is_err());
            assert_eq!(one.digits(&name), Some("17"));
            assert_eq!(other.digits(&name), None);
            assert_eq!(is_trash(&format!("tank/{name}")), purpose == Purpose::Trash);
        }
        for name in ["plywood", "plywood:x", "layer", "plywood:trash:1"] {
            assert_eq!(one.digits(name), None);
            assert!(!is_trash(&format!("plywood:1:trash:1/{name}")), "{name}");
        }
    }
}
