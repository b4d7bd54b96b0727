// SPDX-License-Identifier: Apache-2.0
//! Streams that want more memory or stack than there is.

use std::{
    fs,
    io::{self, Read},
};

use plywood::layers::PutOptions;
use tar::EntryType;

use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, bare, demand},
    tar_file::{Dialect, Entry, TarFile},
    target::new_layer,
    wire,
};

pub(in crate::cases) const CASES: &[Case] =
    &[bare("GD-SEC-014", bombs).roles(&[("swallow", swallow)])];

/// The most that a process may have needed in the end.
const MOST: u64 = 256 << 20;
/// Entries of the stream that stands for one of a million.
const ENTRIES: usize = 20_000;

/// Some bytes, then others again and again.
struct Endless {
    first: io::Cursor<Vec<u8>>,
    then: u8,
    left: u64,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.first.read(buffer)?;
        if got > 0 {
            return Ok(got);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let length = buffer.len().min(most);
        buffer[..length].fill(self.then);
        self.left -= length as u64;
        Ok(length)
    }
}

/// Blocks, then `left` more bytes.
fn then(tar: TarFile, then: u8, left: u64) -> Endless {
    Endless {
        first: io::Cursor::new(tar.unended()),
        then,
        left,
    }
}

/// A header alone.
fn header(entry: Entry, size: u64) -> TarFile {
    TarFile::new().add(entry.claims(size))
}

fn bombs(site: &Site) -> Outcome {
    site.in_peer("swallow", &[])
}

fn peak() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|text| text.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib << 10)
        .ok_or_else(|| Failure::harness("the kernel does not say how much memory was needed"))
}

/// Loads one; says whether it became a layer.
fn load(target: &Target, what: &str, stream: impl Read + Send) -> Result<bool, Failure> {
    wire::step(what)?;
    let put = target.put_with(&new_layer("bomb", None), stream, PutOptions::default());
    let needed = peak()?;
    demand!(
        needed < MOST,
        "{what}: the process needed {} MiB; 256 MiB must do for any stream",
        needed >> 20
    );
    if put.is_ok() {
        target.delete("bomb")?;
    }
    Ok(put.is_ok())
}

fn swallow(site: &Site, _: &[String]) -> Outcome {
    let mut target = site.open()?;
    target.without_sync()?;
    let target = &target;
    let file = || Entry::file("file", "");
    let refused = |what: &str, stream: Endless| -> Outcome {
        demand!(!load(target, what, stream)?, "{what} became a layer");
        Ok(())
    };
    refused(
        "a file of 1 TiB that ends early",
        then(header(file(), 1 << 40), 0, 8 << 20),
    )?;
    let pax = || Entry::new(EntryType::XHeader, "x");
    refused(
        "an extended header of 1 GiB",
        then(header(pax(), 1 << 30), b'1', 1 << 30),
    )?;
    let global = Entry::new(EntryType::XGlobalHeader, "g");
    refused(
        "a global header of 1 GiB",
        then(header(global, 1 << 30), b'1', 1 << 30),
    )?;
    for (what, kind) in [
        ("a name of 1 GiB", EntryType::GNULongName),
        ("a link's target of 1 GiB", EntryType::GNULongLink),
    ] {
        let entry = Entry::new(kind, "././@LongLink");
        refused(what, then(header(entry, 1 << 30), b'n', 1 << 30))?;
    }
    refused(
        "an extended header of 1 EiB",
        then(header(pax(), 1 << 60), b'1', 1 << 20),
    )?;
    deep(target)?;
    many(target)?;
    Ok(target.driver.close()?)
}

fn deep(target: &Target) -> Outcome {
    for depth in [1000, 10_000] {
        let path = "d/".repeat(depth);
        for dialect in [Dialect::Gnu, Dialect::Pax] {
            let entry = Entry::directory(&path).dialect(dialect);
            let tar = TarFile::new().add(entry).done();
            // A path may be longer than the kernel takes; it must not cost the stack.
            load(target, "a path of many directories", &tar[..])?;
        }
    }
    let mut tar = TarFile::new();
    for depth in 1..1800 {
        tar = tar.directory(&"d/".repeat(depth));
    }
    let tar = tar.done();
    let loaded = load(target, "directories in each other, 1800 deep", &tar[..])?;
    demand!(
        loaded,
        "a tree of 1800 directories in each other was refused"
    );
    Ok(())
}

fn many(target: &Target) -> Outcome {
    let before = peak()?;
    let mut tar = TarFile::new();
    for number in 0..ENTRIES {
        tar = tar.add(Entry::symlink(format!("entry-{number}"), "x"));
    }
    let tar = tar.done();
    let own = tar.len() as u64;
    let loaded = load(target, "many entries", &tar[..])?;
    demand!(loaded, "a stream of {ENTRIES} entries was refused");
    let grown = peak()?.saturating_sub(before + own);
    let each = grown / ENTRIES as u64;
    target.count("bytes_per_entry", each)?;
    // The blocks of a small stream count more than they would in a large one.
    let for_a_million = each.saturating_sub((24 << 20) / ENTRIES as u64) * 1_000_000;
    demand!(
        for_a_million < MOST,
        "{ENTRIES} entries needed {} KiB, so a million would need {} MiB",
        grown >> 10,
        for_a_million >> 20
    );
    Ok(())
}
