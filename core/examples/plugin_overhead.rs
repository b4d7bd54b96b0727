// SPDX-License-Identifier: Apache-2.0
//! Measures what the plugin boundary costs: the same driver linked in and loaded, in turns.
//!
//! ```text
//! cargo build --release -p plywood-driver-overlay-plugin -p plywood-driver-vfs-plugin
//! cargo run --release -p plywood --example plugin_overhead -- target/release
//! ```

use std::{
    env,
    error::Error,
    io::{self, Write},
    path::Path,
};

use plywood::{
    plugin::{DriverHandle, PluginOptions, Registry, tracing_host},
    sdk::{CreateRequest, LayerId, MountRequest, OpenRequest, embed_driver},
};
use plywood_driver_overlay::Overlay;
use plywood_driver_vfs::Vfs;

embed_driver!(Overlay);
embed_driver!(Vfs);

const ROUNDS: u32 = 60;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let directory = env::args_os()
        .nth(1)
        .ok_or("name the directory of the plugins")?;
    let root = tempfile::tempdir()?;
    let mut out = io::stdout();
    for driver in ["overlay", "vfs"] {
        let open = |kind: &str, directory: Option<&Path>| {
            let mut options = PluginOptions::only_embedded();
            options.directories = directory
                .iter()
                .map(|path| path.canonicalize())
                .collect::<Result<_, _>>()?;
            let home = root.path().join(kind).join(driver);
            let request = OpenRequest::new(home, root.path().join("run"), tracing_host());
            Outcome::Ok(Registry::discover(options).open(driver, request)?)
        };
        let linked = open("linked", None)?;
        let loaded = open("loaded", Some(Path::new(&directory)))?;
        writeln!(out, "{driver}: {} and {}", linked.origin(), loaded.origin())?;
        for (what, calls, operation) in OPERATIONS {
            let [linked, loaded] = compare([&linked, &loaded], calls, operation)?;
            let share = (loaded - linked) / linked * 100.0;
            writeln!(
                out,
                "  {what:<16} linked in {linked:>12.0} ns  loaded {loaded:>12.0} ns  {share:+.2} %"
            )?;
        }
        linked.close()?;
        loaded.close()?;
    }
    Ok(())
}

type Operation = fn(&DriverHandle, &LayerId) -> plywood::Result<()>;

const OPERATIONS: [(&str, u32, Operation); 4] = [
    ("refused by core", 2_000, |driver, id| {
        // Stops in the guard: the cost of the measurement itself.
        driver.native_changes(id, None).map(drop).or(Ok(()))
    }),
    ("exists", 1_000, |driver, id| driver.exists(id).map(drop)),
    ("mount_plan", 200, |driver, id| {
        driver.mount_plan(id, &MountRequest::default()).map(drop)
    }),
    ("create + remove", 5, |driver, id| {
        let child = LayerId::new(format!("{id}-child")).map_err(|error| {
            plywood::Error::new(plywood::ErrorKind::InvalidArgument, error.to_string())
        })?;
        driver.create(&CreateRequest::new(child.clone(), Some(id.clone())))?;
        driver.remove(&child).map(drop)
    }),
];

/// The least processor time of one call in nanoseconds, measured in turns: other load on the
/// machine makes calls longer and never shorter.
fn compare(drivers: [&DriverHandle; 2], calls: u32, operation: Operation) -> Outcome<[f64; 2]> {
    let id = LayerId::new("base")?;
    for driver in drivers {
        if !driver.exists(&id)? {
            driver.create(&CreateRequest::new(id.clone(), None))?;
        }
    }
    let mut least = [f64::MAX; 2];
    for _ in 0..ROUNDS {
        for (driver, least) in drivers.iter().zip(&mut least) {
            let start = processor_time();
            for _ in 0..calls {
                operation(driver, &id)?;
            }
            *least = least.min((processor_time() - start) / f64::from(calls));
        }
    }
    Ok(least)
}

/// Nanoseconds that this thread has run.
fn processor_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    #[expect(
        clippy::cast_precision_loss,
        reason = "a program does not run for months"
    )]
    let (seconds, nanoseconds) = (time.tv_sec as f64, time.tv_nsec as f64);
    seconds * 1e9 + nanoseconds
}
