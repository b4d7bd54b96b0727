// SPDX-License-Identifier: Apache-2.0
//! `plywood-conformance`: holds a graph driver to the suite.

plywood_plugin_sdk::embed_driver!(plywood_conformance_faulty::Reference);
plywood_plugin_sdk::embed_driver!(plywood_conformance_faulty::Minimal);
plywood_plugin_sdk::embed_driver!(plywood_conformance_faulty::Liar);

macro_rules! embed {
    ($($fault:ident $name:literal $state:tt $text:literal $cases:tt;)*) => {
        $(plywood_plugin_sdk::embed_driver!(plywood_conformance_faulty::$fault);)*
    };
}
plywood_conformance_faulty::for_each_fault!(embed);

fn main() {
    std::process::exit(plywood_conformance::main());
}
