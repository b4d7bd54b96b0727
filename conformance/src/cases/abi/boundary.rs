// SPDX-License-Identifier: Apache-2.0
//! What crosses the boundary in either direction, also what should not.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use plywood::sdk::{
    CreateRequest, DiffView, DriverError, DriverErrorCode, Host, LogLevel, MountPlan, MountRequest,
};

use super::{life, loaded, request};
use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, bare, demand, same},
    manifest,
    target::layer_id,
    wire,
};

pub(in crate::cases) const CASES: &[Case] = &[
    bare("GD-ABI-019", panicking_log),
    bare("GD-ABI-020", bad_arguments),
    bare("GD-ABI-021", memory).roles(&[("work", answers)]),
];

/// A host whose log panics, as a program with a bug has it.
#[derive(Default)]
struct Panics(AtomicU32);

impl Host for Panics {
    fn log(&self, _: LogLevel, target: &str, message: &str) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("the log of the host panics at `{target}: {message}`");
    }
}

fn panicking_log(site: &Site) -> Outcome {
    loaded(site)?;
    let host = Arc::new(Panics::default());
    let mut request = request(site)?;
    request.host = Arc::clone(&host) as _;
    let driver = site.driver_with(request)?;
    let target = Target::with(site.clone(), driver)?;
    life(&target, "one")?;
    demand!(
        target.driver.poisoned().is_none(),
        "a panic of the host's log was taken for one of the driver: {:?}",
        target.driver.poisoned()
    );
    target.close()?;
    wire::measure("messages", f64::from(host.0.load(Ordering::Relaxed)))?;
    Ok(())
}

fn bad_arguments(site: &Site) -> Outcome {
    let raw = loaded(site)?.open_raw(&request(site)?)?;
    let good = layer_id("good");
    let driver = site.driver()?;
    driver.create(&CreateRequest::new(good.clone(), None))?;
    let before = manifest::of(&site.root)?;
    let (long, huge) = ("a".repeat(129), "a".repeat(1 << 20));
    for bad in [
        "",
        ".",
        "..",
        "../x",
        "../../x",
        "/etc/passwd",
        "a/b",
        "a/../b",
        "a\0b",
        "a\n",
        "-a",
        ".a",
        "a.",
        "a:b",
        "a,b",
        "a b",
        "\u{e9}",
        "a\u{202e}",
        &long,
        &huge,
    ] {
        let shown = &bad[..bad.len().min(40)];
        for (method, answer) in raw.with_id(bad, &good) {
            let code = answer.as_ref().err().map(|error| error.code);
            demand!(
                code == Some(DriverErrorCode::INVALID_ARGUMENT),
                "`{method}` was called with the id {shown:?} and answered {:?}",
                answer.map_err(short)
            );
        }
    }
    for (method, answer) in raw.with_newer_requests(&good) {
        let code = answer.as_ref().err().map(|error| error.code);
        demand!(
            code == Some(DriverErrorCode::NOT_SUPPORTED),
            "`{method}` was answered with {answer:?}"
        );
    }
    let differences = before.differences(&manifest::of(&site.root)?);
    demand!(
        differences.is_empty(),
        "refused calls changed files: {differences:?}"
    );
    demand!(driver.exists(&good)?, "refused calls removed the layer");
    driver.close()?;
    raw.close()?;
    Ok(())
}

fn short(mut error: DriverError) -> DriverError {
    error.message = error.message.chars().take(80).collect();
    error.object = error.object.map(|object| object.chars().take(40).collect());
    error
}

fn memory(site: &Site) -> Outcome {
    loaded(site)?;
    let (mut command, messages) = site.role("work", &[])?;
    // Freed memory is overwritten, and what is freed twice is noticed.
    command.env(
        "GLIBC_TUNABLES",
        "glibc.malloc.perturb=90:glibc.malloc.tcache_count=0",
    );
    crate::site::Peer::start(command, messages)?.join()?;
    demand!(site.home()?.is_dir(), "the driver made no home");
    Ok(())
}

/// Gets answers of every kind many times over: less often from a driver that takes long for each.
fn answers(site: &Site, _: &[String]) -> Outcome {
    const MOST: u32 = 2000;
    const LEAST: u32 = 500;
    /// The bytes for each round up to which growth is what an allocator keeps, not a leak.
    const KEPT: u64 = 512;
    let enough = site.bound(Duration::from_secs(20));
    let target = site.open()?;
    target.create("base", None)?;
    target.create("child", Some("base"))?;
    let driver = target.driver.unguarded();
    for _ in 0..200 {
        round(&target)?;
    }
    let before = resident()?;
    let metadata = driver.metadata(&layer_id("child"))?;
    let start = Instant::now();
    let mut rounds = 0;
    while rounds < LEAST || (rounds < MOST && start.elapsed() < enough) {
        round(&target)?;
        rounds += 1;
    }
    same!(
        metadata,
        driver.metadata(&layer_id("child"))?,
        "the metadata at the end"
    );
    let grown = resident()?.saturating_sub(before);
    let per_round = u32::try_from(grown / u64::from(rounds)).unwrap_or(u32::MAX);
    wire::measure("rounds", f64::from(rounds))?;
    wire::measure("grown_bytes_per_round", f64::from(per_round))?;
    demand!(
        grown < u64::from(rounds) * KEPT,
        "{rounds} rounds of answers took {grown} bytes that were not given back"
    );
    target.close()?;
    Ok(())
}

fn round(target: &Target) -> Outcome {
    let driver = target.driver.unguarded();
    let (base, child, unknown) = (layer_id("base"), layer_id("child"), layer_id("unknown"));
    let expect = |plan: MountPlan| match plan {
        MountPlan::Mounts(mounts) if mounts.steps.is_empty() => {
            Err(Failure::new("a plan without a step"))
        }
        _ => Ok(()),
    };
    driver.status()?;
    driver.metadata(&child)?;
    expect(driver.mount_plan(&child, &MountRequest::default())?)?;
    driver.released(&child)?;
    let mut shown = vec![driver.unpack_target(&child)?.directory];
    if let DiffView::Trees { tree, parent } = driver.diff_view(&child, Some(&base))? {
        shown.push(tree);
        shown.extend(parent);
    }
    shown.extend(driver.content_roots(&child)?);
    for directory in shown {
        target.driver.let_go(&directory)?;
    }
    if driver.capabilities().list {
        driver.list()?;
    }
    match driver.metadata(&unknown) {
        Ok(_) => Err(Failure::new("an unknown layer has metadata")),
        Err(_) => Ok(()),
    }
}

/// The bytes of memory that this process has of its own.
fn resident() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| Failure::harness("/proc/self/status does not say how much memory is used"))
}
