// SPDX-License-Identifier: Apache-2.0
//! The cases, by group.

mod content;
mod errors;
mod lifecycle;
mod mounts;

use crate::Case;

/// Every case, sorted by id.
pub fn all() -> Vec<Case> {
    let mut cases = [
        lifecycle::CASES,
        mounts::CASES,
        content::CASES,
        errors::CASES,
    ]
    .concat();
    cases.sort_by_key(|case| case.id);
    cases
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_are_unique_and_well_formed() {
        let cases = super::all();
        for pair in cases.windows(2) {
            assert_ne!(pair[0].id, pair[1].id);
        }
        for case in cases {
            let parts: Vec<&str> = case.id.split('-').collect();
            assert!(
                matches!(parts[..], ["GD", group, number]
                if group.len() == 3 && number.len() == 3),
                "{}",
                case.id
            );
        }
    }
}
