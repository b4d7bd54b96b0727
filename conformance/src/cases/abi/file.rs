// SPDX-License-Identifier: Apache-2.0
//! What can be seen in the plugin file.

use std::{collections::BTreeSet, fs};

use object::{
    NativeEndian, Object as _, ObjectSymbol,
    elf::{DF_TEXTREL, DT_FLAGS, DT_TEXTREL, PF_X, PT_GNU_RELRO, PT_GNU_STACK},
    read::elf::{Dyn as _, ElfFile, FileHeader as _, ProgramHeader as _},
};
use plywood::sdk::abi::{ENTRY_SYMBOL, VERSION};

use super::{file_of, loaded};
use crate::{
    Case, Site,
    case::{Failure, Outcome, bare, demand, same},
    wire,
};

pub(in crate::cases) const CASES: &[Case] = &[
    bare("GD-ABI-001", entry_symbol),
    bare("GD-ABI-008", descriptor),
    bare("GD-ABI-009", capabilities_known),
    bare("GD-ABI-012", exported_symbols),
    bare("GD-ABI-030", undefined_symbols),
    bare("GD-ABI-031", build_id),
    bare("GD-ABI-032", hardening),
];

#[cfg(target_pointer_width = "64")]
type Header = object::elf::FileHeader64<NativeEndian>;
#[cfg(target_pointer_width = "32")]
type Header = object::elf::FileHeader32<NativeEndian>;

type Elf<'d> = ElfFile<'d, Header>;

/// Libraries that every Linux system of the same C library has.
const SYSTEM_LIBRARIES: &[&str] = &[
    "libc.so",
    "libm.so",
    "libgcc_s.so",
    "libpthread.so",
    "libdl.so",
    "librt.so",
    "ld-linux",
    "ld64.so",
    "ld-musl",
];

fn bytes(site: &Site) -> Result<Vec<u8>, Failure> {
    Ok(fs::read(file_of(site)?)?)
}

fn parse(data: &[u8]) -> Result<Elf<'_>, Failure> {
    Ok(Elf::parse(data)?)
}

fn entry_name() -> &'static str {
    let text = ENTRY_SYMBOL.strip_suffix(b"\0").unwrap_or(ENTRY_SYMBOL);
    std::str::from_utf8(text).expect("the entry symbol is plain ASCII")
}

/// The names that the file defines for others.
fn exported(file: &Elf<'_>) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for symbol in file
        .dynamic_symbols()
        .filter(object::ObjectSymbol::is_definition)
    {
        names.push(symbol.name()?.to_owned());
    }
    Ok(names)
}

fn entry_symbol(site: &Site) -> Outcome {
    let data = bytes(site)?;
    let names = exported(&parse(&data)?)?;
    let found = names.iter().filter(|name| *name == entry_name()).count();
    same!(1, found, "how often `{}` is exported", entry_name());
    let loaded = loaded(site)?;
    let name = site.source.name()?;
    same!(name, loaded.name(), "the driver's name");
    Ok(())
}

fn exported_symbols(site: &Site) -> Outcome {
    let data = bytes(site)?;
    let names = exported(&parse(&data)?)?;
    let others: Vec<_> = names.iter().filter(|name| *name != entry_name()).collect();
    demand!(
        others.is_empty(),
        "it also exports {others:?}: build it as a `cdylib` and keep `#[unsafe(no_mangle)]` out of it"
    );
    Ok(())
}

fn descriptor(site: &Site) -> Outcome {
    let loaded = loaded(site)?;
    let (name, vendor, version) = (loaded.name(), loaded.vendor(), loaded.version());
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    demand!(
        bytes.first().is_some_and(u8::is_ascii_lowercase)
            && bytes.len() <= 32
            && bytes.iter().all(|byte| word(*byte) || *byte == b'-'),
        "the name `{name}` does not match [a-z][a-z0-9-]{{0,31}}"
    );
    demand!(
        !vendor.trim().is_empty() && !vendor.chars().any(char::is_control),
        "the vendor {vendor:?} is empty or holds control characters"
    );
    demand!(
        is_semantic_version(version),
        "the version `{version}` is not MAJOR.MINOR.PATCH as semver.org has it"
    );
    let driver = site.driver()?;
    let names = driver.capabilities().names();
    let distinct: BTreeSet<_> = names.iter().collect();
    same!(
        names.len(),
        distinct.len(),
        "how many capabilities are declared"
    );
    driver.close()?;
    Ok(())
}

/// Whether `text` is a version in the grammar of semver.org, 2.0.0.
fn is_semantic_version(text: &str) -> bool {
    let (text, build) = text
        .split_once('+')
        .map_or((text, None), |(t, b)| (t, Some(b)));
    let (core, before) = text
        .split_once('-')
        .map_or((text, None), |(t, b)| (t, Some(b)));
    let number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let word = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let numeric = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    core.split('.').count() == 3
        && core.split('.').all(number)
        && before.is_none_or(|before| {
            before
                .split('.')
                .all(|part| word(part) && (!numeric(part) || number(part)))
        })
        && build.is_none_or(|build| build.split('.').all(word))
}

fn capabilities_known(site: &Site) -> Outcome {
    let loaded = loaded(site)?;
    let raw = loaded.open_raw(&site.request()?)?;
    let unknown = raw.unknown_capabilities()?;
    raw.close()?;
    // A newer minor version may have capabilities that this suite does not know.
    demand!(
        unknown == 0 || loaded.abi() > VERSION,
        "it declares capabilities {unknown:#x}, which plugin ABI {} does not have",
        loaded.abi()
    );
    Ok(())
}

fn undefined_symbols(site: &Site) -> Outcome {
    let data = bytes(site)?;
    let file = parse(&data)?;
    let versions = file
        .elf_section_table()
        .versions(NativeEndian, &data[..])?
        .ok_or_else(|| Failure::new("its symbols carry no versions"))?;
    let (mut foreign, mut floor) = (Vec::new(), (0, 0));
    for symbol in file.dynamic_symbols() {
        if !symbol.is_undefined() || symbol.is_weak() || symbol.name()?.is_empty() {
            continue;
        }
        let index = versions.version_index(NativeEndian, symbol.index());
        let version = versions.version(index)?;
        let library = version.and_then(object::read::elf::Version::file);
        let library = library.map(String::from_utf8_lossy).unwrap_or_default();
        if !SYSTEM_LIBRARIES
            .iter()
            .any(|known| library.starts_with(known))
        {
            foreign.push(format!("{} of `{library}`", symbol.name()?));
        }
        if let Some(version) = version {
            floor = floor.max(glibc_version(version.name()).unwrap_or_default());
        }
    }
    demand!(
        foreign.is_empty(),
        "these come from neither the C library nor the compiler's: {}; link what the driver needs \
         into it",
        foreign.join(", ")
    );
    demand!(
        floor < (3, 0),
        "it needs glibc {}.{}, which does not exist",
        floor.0,
        floor.1
    );
    wire::measure(
        "glibc_floor",
        f64::from(floor.0) + f64::from(floor.1) / 1000.0,
    )?;
    Ok(())
}

/// `GLIBC_2.34` as a pair.
fn glibc_version(name: &[u8]) -> Option<(u16, u16)> {
    let text = std::str::from_utf8(name).ok()?.strip_prefix("GLIBC_")?;
    let mut parts = text.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

fn build_id(site: &Site) -> Outcome {
    let data = bytes(site)?;
    let id = parse(&data)?.build_id()?;
    demand!(
        id.is_some_and(|id| id.len() >= 8),
        "it has no build id, so a crash or a certificate cannot be traced to it: link it with \
         `-C link-arg=-Wl,--build-id`"
    );
    let abi = loaded(site)?.abi();
    same!(VERSION.major, abi.major, "the major version in the header");
    demand!(
        abi.minor < 1000,
        "the header carries the impossible minor version {}",
        abi.minor
    );
    Ok(())
}

fn hardening(site: &Site) -> Outcome {
    let data = bytes(site)?;
    let file = parse(&data)?;
    let header = file.elf_header();
    let segments = header.program_headers(NativeEndian, &data[..])?;
    let of = |kind| segments.iter().find(|s| s.p_type(NativeEndian) == kind);
    let relro = of(PT_GNU_RELRO).is_some();
    let stack = of(PT_GNU_STACK).is_some_and(|s| s.p_flags(NativeEndian) & PF_X == 0);
    let mut relocates_text = false;
    if let Some((entries, _)) = file.elf_section_table().dynamic(NativeEndian, &data[..])? {
        relocates_text = entries.iter().any(|entry| {
            let (tag, value) = (entry.tag32(NativeEndian), entry.val32(NativeEndian));
            tag == Some(DT_TEXTREL)
                || (tag == Some(DT_FLAGS) && value.is_some_and(|flags| flags & DF_TEXTREL != 0))
        });
    }
    for (name, holds) in [
        ("relro", relro),
        ("stack_not_executable", stack),
        ("no_text_relocations", !relocates_text),
    ] {
        wire::measure(name, f64::from(u8::from(holds)))?;
    }
    demand!(!segments.is_empty(), "it has no segments");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_from_other_texts() {
        for good in [
            "0.1.0",
            "1.2.3",
            "1.0.0-rc.1",
            "1.0.0+a.b",
            "1.0.0-0a-b+001",
            "10.20.30",
        ] {
            assert!(is_semantic_version(good), "{good}");
        }
        for bad in [
            "", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.x", "v1.2.3", "1.0.0-", "1.0.0-01", "1.0.0+",
        ] {
            assert!(!is_semantic_version(bad), "{bad}");
        }
        assert_eq!(glibc_version(b"GLIBC_2.34"), Some((2, 34)));
        assert_eq!(glibc_version(b"GCC_3.0"), None);
    }
}
