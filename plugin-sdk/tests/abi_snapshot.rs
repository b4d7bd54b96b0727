// SPDX-License-Identifier: Apache-2.0
//! The plugin ABI of version 1.0 stays what it was: `abi-1.0.txt` is never edited.
//!
//! When this fails, something that exists was changed, which is a new major version (see
//! `docs/plugin-abi.md`). Appending to a table of functions and new types do not make it fail.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write,
};

use abi_stable::{
    StableAbi,
    type_layout::{TLField, TLFields, TypeLayout},
};
use plywood_plugin_sdk::abi::vtable::{DriverModule_Ref, HostBox};

const FROZEN: &str = include_str!("abi-1.0.txt");

/// A type with its parameters; those of other packages are told by what they contain.
fn name_of(layout: &TypeLayout) -> String {
    let name = layout.full_type().to_string();
    let fields = |fields: Option<TLFields>| fields.iter().flat_map(TLFields::iter).collect();
    let parameters: Vec<TLField> = match layout.name() {
        "ROption" | "RResult" | "Tuple2" => fields(layout.get_fields()),
        "RVec" => fields(layout.get_fields())
            .iter()
            .filter(|field: &&TLField| field.name() == "_marker")
            .flat_map(|field| field.layout().phantom_fields().to_vec())
            .collect(),
        _ => Vec::new(),
    };
    let parameters = parameters.iter().map(|field| name_of(field.layout()));
    let parameters: Vec<_> = parameters.collect();
    if parameters.is_empty() {
        return name;
    }
    format!("{name}<{}>", parameters.join(", "))
}

/// The entries of every type of this package that can be reached from the plugin's module.
type Description = BTreeMap<String, Vec<String>>;

fn describe() -> Description {
    let mut pending = vec![DriverModule_Ref::LAYOUT, HostBox::LAYOUT];
    let mut seen = HashSet::new();
    let mut types = Description::new();
    while let Some(layout) = pending.pop() {
        if !seen.insert(std::ptr::from_ref::<TypeLayout>(layout)) {
            continue;
        }
        let fields = layout.get_fields();
        let fields: Vec<_> = fields.iter().flat_map(TLFields::iter).collect();
        let mut entries = Vec::new();
        for field in &fields {
            pending.push(field.layout());
            let mut entry = field.name().to_owned();
            if !field.is_function() {
                write!(entry, ": {}", name_of(field.layout())).unwrap();
            }
            for function in field.function_range() {
                let parameters = function.param_type_layouts.iter();
                let parameters: Vec<_> = parameters.map(|layout| layout()).collect();
                let answer = function.return_type_layout().map(|layout| layout());
                let names: Vec<_> = parameters.iter().map(|layout| name_of(layout)).collect();
                let answer_name = answer.map_or_else(|| "()".to_owned(), name_of);
                write!(entry, " ({}) -> {answer_name}", names.join(", ")).unwrap();
                pending.extend(parameters);
                pending.extend(answer);
            }
            entries.push(entry);
        }
        pending.extend(layout.phantom_fields().iter().map(|field| field.layout()));
        if layout.package().as_str() == env!("CARGO_PKG_NAME") {
            // A table may grow, so its size is not part of the description.
            let kind = if layout.is_prefix_kind() {
                format!("table {}::", layout.mod_path())
            } else {
                format!("type of {} bytes ", layout.size())
            };
            let name = format!("{kind}{}", layout.full_type());
            types.insert(name, entries);
        }
    }
    types
}

fn text(types: &Description) -> String {
    let mut text = String::new();
    for (name, entries) in types {
        writeln!(text, "{name}").unwrap();
        for entry in entries {
            writeln!(text, "  {entry}").unwrap();
        }
    }
    text
}

fn parse(text: &str) -> Vec<(String, Vec<String>)> {
    let mut types: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("  ") {
            Some(entry) => types.last_mut().unwrap().1.push(entry.to_owned()),
            None => types.push((line.to_owned(), Vec::new())),
        }
    }
    types
}

/// Sizes are those of 64-bit machines.
#[cfg(target_pointer_width = "64")]
#[test]
fn what_version_1_0_has_is_unchanged() {
    let now = describe();
    // For a comparison by eye, and for the first line of the next major version.
    let place = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("abi.txt");
    std::fs::write(place, text(&now)).unwrap();
    let frozen = parse(FROZEN);
    assert!(frozen.len() > 20, "the frozen description is incomplete");
    for (name, entries) in frozen {
        let found = now.get(&name);
        let found = found.unwrap_or_else(|| panic!("`{name}` is gone or changed its size"));
        let compared = if name.starts_with("table ") {
            &found[..entries.len().min(found.len())]
        } else {
            &found[..]
        };
        assert_eq!(compared, entries, "{name}");
    }
}
