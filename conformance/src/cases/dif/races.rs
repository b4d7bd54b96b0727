// SPDX-License-Identifier: Apache-2.0
//! Readers and writers that fail, end early or are slow, and files that change meanwhile.

use std::{
    fs,
    io::{self, Read, Write as _},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use plywood::{
    ErrorKind,
    archive::Compression,
    layers::{DiffOptions, PutOptions},
    locking::order::Held,
};

use super::items;
use crate::{
    Target,
    case::{Failure, Outcome, demand},
    tar_file::TarFile,
    target::new_layer,
};

fn stream() -> Vec<u8> {
    TarFile::new()
        .directory("d/")
        .file("d/first", &[b'1'; 900])
        .file("d/second", &[b'2'; 1500])
        .done()
}

/// Hands out one byte at a time, and pauses now and then.
struct Drops<'a>(&'a [u8]);

impl Read for Drops<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.len().is_multiple_of(1000) {
            thread::sleep(Duration::from_millis(20));
        }
        if self.0.len().is_multiple_of(7) && !self.0.is_empty() {
            let step = self.0.len().min(1);
            let (now, rest) = self.0.split_at(step);
            self.0 = rest;
            buffer[..step].copy_from_slice(now);
            return Ok(step);
        }
        let step = buffer.len().min(1);
        self.0.read(&mut buffer[..step])
    }
}

pub(super) fn slow_reader(target: &mut Target) -> Outcome {
    let tar = stream();
    target.put("fast", None, &tar)?;
    let new = new_layer("slow", None);
    target.put_with(&new, Drops(&tar), PutOptions::default())?;
    let (fast, slow) = (target.manifest("fast")?, target.manifest("slow")?);
    let differences = fast.without_root().differences(&slow.without_root());
    demand!(
        differences.is_empty(),
        "a stream that comes byte by byte gives another tree: {}",
        differences.join("; ")
    );
    demand!(
        target.diff("slow")? == tar,
        "a stream that came byte by byte comes back changed"
    );
    Ok(())
}

/// Fails after some bytes.
struct Cut<'a> {
    bytes: &'a [u8],
    text: &'static str,
}

impl Read for Cut<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            return Err(io::Error::other(self.text));
        }
        let step = buffer.len().min(100);
        self.bytes.read(&mut buffer[..step])
    }
}

pub(super) fn reader_error(target: &mut Target) -> Outcome {
    let tar = stream();
    for bytes in [0, 300, 1024, 1700, tar.len() - 1024] {
        target.step(&format!("a reader that fails after {bytes} bytes"))?;
        let text = "the line was cut by a digger";
        let reader = Cut {
            bytes: &tar[..bytes],
            text,
        };
        let answer = target.put_with(&new_layer("layer", None), reader, PutOptions::default());
        let Err(error) = answer else {
            return Err(Failure::new("a reader that failed gave a layer"));
        };
        let whole = Failure::from(error).text;
        demand!(
            whole.contains(text),
            "the error does not say what the reader said: {whole}"
        );
        demand!(
            target.layers()?.is_empty(),
            "a reader that failed left a layer"
        );
        if target.driver.capabilities().list {
            let left = target.driver.list()?;
            demand!(
                left.is_empty(),
                "a reader that failed left a layer in the driver: {left:?}"
            );
        }
    }
    Ok(())
}

/// Takes some bytes and then is closed.
struct Closed {
    left: usize,
}

impl io::Write for Closed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the reader went away",
            ));
        }
        let count = bytes.len().min(self.left);
        self.left -= count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn closed_early(target: &mut Target) -> Outcome {
    let mut rng = target.rng();
    let mut tar = TarFile::new();
    for number in 0..40 {
        let data: Vec<u8> = (0..100_000).map(|_| rng.u8(..)).collect();
        tar = tar.file(&format!("f{number}"), &data);
    }
    target.put("recorded", None, &tar.done())?;
    target.create_writable("live", Some("recorded"))?;
    target.within("live", |root| -> Outcome {
        for number in 0..40 {
            fs::write(root.join(format!("g{number}")), vec![rng.u8(..); 100_000])?;
        }
        Ok(())
    })?;
    let compressions = [Compression::None, Compression::Gzip, Compression::Zstd];
    for layer in ["recorded", "live"] {
        for compression in compressions {
            for left in [0, 10, 700] {
                target.step(&format!(
                    "{layer}, {compression:?}, closed after {left} bytes"
                ))?;
                let mut options = DiffOptions::default();
                options.compression = Some(compression);
                let mut out = Closed { left };
                let answer =
                    target
                        .store()
                        .diff(&mut Held::nothing(), None, layer, options, &mut out);
                let Err(error) = answer else {
                    return Err(Failure::new("a diff whose reader went away succeeded"));
                };
                let whole = Failure::from(error).text;
                demand!(
                    whole.contains("the reader went away"),
                    "the error does not say that the reader went away: {whole}"
                );
            }
        }
    }
    target.step("whole ones afterwards")?;
    for layer in ["recorded", "live"] {
        let items = items::read(&target.diff(layer)?)?;
        demand!(
            items.len() >= 40,
            "`{layer}` has only {} entries",
            items.len()
        );
    }
    Ok(())
}

pub(super) fn changing_file(target: &mut Target) -> Outcome {
    const SIZE: usize = 4 << 20;
    target.create_writable("layer", None)?;
    let tried = target.within("layer", |root| -> Result<(u32, u32), Failure> {
        let path = root.join("changing");
        fs::write(&path, vec![b'x'; SIZE])?;
        fs::write(root.join("zz-last"), "last")?;
        let done = AtomicBool::new(false);
        let (mut whole, mut refused) = (0, 0);
        thread::scope(|scope| -> Outcome {
            let changer = scope.spawn(|| -> io::Result<()> {
                let mut file = fs::OpenOptions::new().append(true).open(&path)?;
                while !done.load(Ordering::Relaxed) {
                    file.write_all(&vec![b'y'; 200_000])?;
                    file.set_len(SIZE as u64 / 3)?;
                    file.write_all(&vec![b'z'; 300_000])?;
                    file.set_len(SIZE as u64)?;
                }
                Ok(())
            });
            let mut judge = || -> Outcome {
                for _ in 0..15 {
                    let mut out = Vec::new();
                    match target.diff_to(None, "layer", &mut out) {
                        Ok(_) => {
                            let items = items::read(&out)?;
                            let last = items.last().map(|item| item.data.clone());
                            demand!(
                                last.as_deref() == Some(b"last"),
                                "a diff of a file that changed is cut: {} entries",
                                items.len()
                            );
                            whole += 1;
                        }
                        Err(error) => {
                            demand!(
                                error.kind() != ErrorKind::Driver,
                                "a file that changed makes the driver fail: {error}"
                            );
                            refused += 1;
                        }
                    }
                }
                Ok(())
            };
            let judged = judge();
            done.store(true, Ordering::Relaxed);
            let changed = changer.join();
            judged?;
            match changed {
                Ok(answer) => Ok(answer?),
                Err(_) => Err(Failure::harness(
                    "the thread that changes the file panicked",
                )),
            }
        })?;
        Ok((whole, refused))
    })?;
    target.measure("whole diffs", tried.0.into())?;
    target.measure("refused diffs", tried.1.into())?;
    target.step("once more, when nothing changes")?;
    let items = items::read(&target.diff("layer")?)?;
    let names: Vec<String> = items.iter().map(items::Item::path).collect();
    demand!(
        names == ["changing", "zz-last"],
        "the entries afterwards: {names:?}"
    );
    Ok(())
}
