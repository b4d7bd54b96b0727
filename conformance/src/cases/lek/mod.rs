// SPDX-License-Identifier: Apache-2.0
//! Leaks (LEK): what typical work leaves behind, looked for where the general check does not look.

pub(super) mod machine;
pub(super) mod process;
pub(super) mod storage;

use std::{
    fs,
    io::{self, Read, Write},
};

use plywood::{
    archive::Compression,
    layers::{DiffOptions, PutOptions},
    locking::order::Held,
    sdk::{CreateRequest, MountRequest},
};

use crate::{
    Site, Target,
    case::{Failure, Outcome, demand},
    cases::lifecycle::sample,
    leaks::Baseline,
    target::{layer_id, new_layer},
    wire::Leak,
};

/// A stream that breaks off.
struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let tar = sample();
        let rest = &tar[self.0.min(700)..700];
        if rest.is_empty() {
            return Err(io::Error::other("the stream broke off"));
        }
        let taken = rest.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&rest[..taken]);
        self.0 += taken;
        Ok(taken)
    }
}

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::other("the reader is gone"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a store sees every day: layers are loaded, mounted, written to, exported and removed, and
/// some of that fails. When it returns, no layer is left.
pub(super) fn work(target: &Target) -> Outcome {
    target.put("work-base", None, &sample())?;
    let mut packed = Vec::new();
    let mut options = DiffOptions::default();
    options.compression = Some(Compression::Gzip);
    let store = target.store();
    store.diff(
        &mut Held::nothing(),
        None,
        "work-base",
        options,
        &mut packed,
    )?;
    target.put("work-child", Some("work-base"), &packed)?;
    target.create_writable("work-top", Some("work-child"))?;
    target.within("work-top", |path| -> Outcome {
        fs::write(path.join("new"), vec![7; 100_000])?;
        fs::remove_file(path.join("plain"))?;
        Ok(fs::write(path.join("d/e/deep"), "changed")?)
    })?;
    let exported = target.diff("work-top")?;
    target.changes("work-top")?;
    target.create("work-again", Some("work-child"))?;
    target.apply("work-again", &exported[..])?;
    target.manifest("work-again")?;
    if target.driver.capabilities().read_only_mounts {
        let mut request = MountRequest::default();
        request.read_only = true;
        target.within_as("work-top", &request, |path| {
            Ok::<_, Failure>(fs::read(path.join("new")).map(drop)?)
        })?;
    }
    failing_work(target)?;
    for id in ["work-again", "work-top", "work-child", "work-base"] {
        target.delete(id)?;
    }
    Ok(())
}

fn failing_work(target: &Target) -> Outcome {
    let broken = target.put_with(
        &new_layer("work-broken", Some("work-base")),
        Broken(0),
        PutOptions::default(),
    );
    demand!(broken.is_err(), "a stream that breaks off became a layer");
    let garbage = target.put("work-garbage", None, &[0x55; 3000]);
    demand!(garbage.is_err(), "garbage became a layer");
    let unread = target.diff_to(None, "work-top", &mut Broken(0));
    demand!(unread.is_err(), "a diff that nobody could take ended well");
    demand!(
        target.create("work-base", None).is_err(),
        "a layer was made twice"
    );
    let mut request = MountRequest::default();
    request.options = vec!["nosuchoption=1".to_owned()];
    demand!(
        target.mount("work-top", &request).is_err(),
        "an unknown option was accepted"
    );
    if target.driver.capabilities().staging {
        let request = CreateRequest::new(layer_id("work-staged"), Some(layer_id("work-base")));
        let staged = target.driver.stage(&request)?;
        fs::write(staged.target.directory.join("file"), "x")?;
        target.driver.discard(&staged.token)?;
    }
    Ok(())
}

/// What work leaves behind when the driver was closed after it, of one kind.
pub(super) fn left_by_work(site: &Site, id: &str) -> Result<Vec<Leak>, Failure> {
    let baseline = Baseline::take(&[])?;
    let target = site.open()?;
    work(&target)?;
    target.close()?;
    let mut leaks = baseline.leaks(site)?;
    leaks.retain(|leak| leak.id == id);
    Ok(leaks)
}

/// Fails when work leaves something of that kind.
pub(super) fn nothing_left(site: &Site, id: &str) -> Outcome {
    let leaks = left_by_work(site, id)?;
    let left: Vec<_> = leaks.iter().map(|leak| leak.what.as_str()).collect();
    demand!(
        left.is_empty(),
        "after everyday work and the end of the driver there is still: {}",
        left.join(", ")
    );
    Ok(())
}
