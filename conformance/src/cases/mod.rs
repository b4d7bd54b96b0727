// SPDX-License-Identifier: Apache-2.0
//! The cases, by group.

mod asks;
mod content;
mod crash;
mod err;
mod fid;
mod ids;
mod lif;
mod lifecycle;
mod mnt;
mod mounts;
mod performance;
mod quotas;

use crate::Case;

/// Every case that is run against a driver, sorted by id.
pub fn all() -> Vec<Case> {
    let mut cases = [
        abi::boundary::CASES,
        abi::file::CASES,
        abi::instances::CASES,
        abi::process::CASES,
        init::CASES,
        options::CASES,
        lifecycle::CASES,
        cow::CASES,
        mnt::CASES,
        who::CASES,
        content::CASES,
        err::CASES,
        fid::CASES,
        performance::CASES,
        quotas::CASES,
        ids::CASES,
        lif::CASES,
    ]
    .concat();
    cases.sort_by_key(|case| case.id);
    cases
}

/// The code of a case.
pub(crate) fn find(id: &str) -> Option<Case> {
    let mut all = all().into_iter();
    all.find(|case| case.id == id)
        .or_else(|| crate::selftest::fixtures::find(id))
}
