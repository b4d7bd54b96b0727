// SPDX-License-Identifier: Apache-2.0
//! The cases, by group.

mod abi;
mod als;
mod asks;
mod con;
mod cow;
mod crash;
mod dep;
mod dif;
mod direct;
mod err;
mod fid;
mod idmaps;
mod ids;
mod init;
mod lek;
mod lif;
mod lifecycle;
mod mnt;
mod options;
mod per;
mod performance;
mod quotas;
mod sec;
mod who;

use crate::Case;

/// Every case that is run against a driver, sorted by id.
pub fn all() -> Vec<Case> {
    let mut cases = [
        con::crowd::CASES,
        con::processes::CASES,
        con::removal::CASES,
        con::sharing::CASES,
        dep::CASES,
        lek::machine::CASES,
        lek::process::CASES,
        lek::storage::CASES,
        abi::boundary::CASES,
        abi::file::CASES,
        abi::instances::CASES,
        abi::process::CASES,
        als::CASES,
        cow::CASES,
        init::CASES,
        options::CASES,
        mnt::CASES,
        per::exchange::CASES,
        per::place::CASES,
        per::restart::CASES,
        who::CASES,
        dif::CASES,
        err::CASES,
        fid::CASES,
        performance::CASES,
        quotas::CASES,
        idmaps::CASES,
        ids::CASES,
        lif::CASES,
        sec::access::CASES,
        sec::bombs::CASES,
        sec::export::CASES,
        sec::fuzz::CASES,
        sec::race::CASES,
        sec::removal::CASES,
        sec::unpack::CASES,
    ]
    .concat();
    cases.extend(crash::GROUPS.concat());
    cases.sort_by_key(|case| case.id);
    cases
}

/// The code of a case.
pub(crate) fn find(id: &str) -> Option<Case> {
    let mut all = all().into_iter();
    all.find(|case| case.id == id)
        .or_else(|| crate::selftest::fixtures::find(id))
}
