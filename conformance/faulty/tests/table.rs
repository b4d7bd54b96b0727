// SPDX-License-Identifier: Apache-2.0
//! The table of faults is in order, and every faulty driver opens.

use std::collections::BTreeSet;

use plywood_conformance_faulty::FAULTS;

#[test]
fn names_are_short_and_unique_and_cases_are_named() {
    let mut names = BTreeSet::new();
    for fault in FAULTS {
        let name = fault.name;
        assert!(names.insert(name), "{name} twice");
        assert!(name.len() <= 32, "{name} is too long");
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        assert!(
            name.starts_with("faulty-") && name.bytes().all(word),
            "{name}"
        );
        assert!(fault.text.ends_with('.'), "{name}");
        assert!(!fault.cases.is_empty(), "{name}");
        assert!(
            fault.cases.iter().all(|case| case.starts_with("GD-")),
            "{name}"
        );
    }
    assert!(FAULTS.len() >= 36, "only {} faults", FAULTS.len());
}
