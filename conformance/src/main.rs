// SPDX-License-Identifier: Apache-2.0
//! `plywood-conformance`: holds a graph driver to the suite.

fn main() {
    std::process::exit(plywood_conformance::main());
}
