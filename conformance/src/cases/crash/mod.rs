// SPDX-License-Identifier: Apache-2.0
//! Crashes and interruptions.

mod cuts;
mod faults;
mod interruptions;
mod oracle;
mod power;
mod store;
mod sweeps;

use crate::Case;

pub(super) const GROUPS: [&[Case]; 5] = [
    sweeps::CASES,
    store::CASES,
    interruptions::CASES,
    faults::CASES,
    power::CASES,
];
