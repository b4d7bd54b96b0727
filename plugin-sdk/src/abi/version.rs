// SPDX-License-Identifier: Apache-2.0
//! The version of the plugin ABI, which is the version of this crate.

use std::fmt;

/// The version of the plugin ABI that this crate speaks.
pub const VERSION: AbiVersion = AbiVersion {
    major: number(env!("CARGO_PKG_VERSION_MAJOR")),
    minor: number(env!("CARGO_PKG_VERSION_MINOR")),
};

/// A version of the plugin ABI; patch versions do not differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AbiVersion {
    /// Equal majors understand each other.
    pub major: u32,
    /// A larger minor has more methods.
    pub minor: u32,
}

impl fmt::Display for AbiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

const fn number(text: &str) -> u32 {
    match u32::from_str_radix(text, 10) {
        Ok(number) => number,
        Err(_) => panic!("cargo gives version parts in decimal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stable_major_is_one() {
        // abi_stable treats every 0.x minor as incompatible.
        assert_eq!(VERSION.major, 1);
        let package = env!("CARGO_PKG_VERSION");
        assert!(package.starts_with(&format!("{VERSION}.")), "{package}");
    }
}
