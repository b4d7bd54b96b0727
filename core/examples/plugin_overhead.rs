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
    time::Instant,
};

use plywood::{
    plugin::{DriverHandle, PluginOptions, Registry, tracing_host},
    sdk::{CreateRequest, LayerId, MountRequest, OpenRequest, embed_driver},
};
use plywood_driver_overlay::Overlay;
use plywood_driver_vfs::Vfs;

embed_driver!(Overlay);
embed_driver!(Vfs);

const ROUNDS: u32 = 15;

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
    }
    Ok(())
}

type Operation = fn(&DriverHandle, &LayerId) -> plywood::Result<()>;

const OPERATIONS: [(&str, u32, Operation); 4] = [
    ("capable, refused", 20_000, |driver, id| {
        // Stops in the guard: the cost of the measurement itself.
        driver.native_changes(id, None).map(drop).or(Ok(()))
    }),
    ("exists", 20_000, |driver, id| driver.exists(id).map(drop)),
    ("mount_plan", 2_000, |driver, id| {
        driver.mount_plan(id, &MountRequest::default()).map(drop)
    }),
    ("create + remove", 200, |driver, id| {
        let child = LayerId::new(format!("{id}-child")).map_err(|error| {
            plywood::Error::new(plywood::ErrorKind::InvalidArgument, error.to_string())
        })?;
        driver.create(&CreateRequest::new(child.clone(), Some(id.clone())))?;
        driver.remove(&child).map(drop)
    }),
];

/// Medians of the nanoseconds for one call, measured in turns so that a busy machine hits both.
fn compare(drivers: [&DriverHandle; 2], calls: u32, operation: Operation) -> Outcome<[f64; 2]> {
    let id = LayerId::new("base")?;
    for driver in drivers {
        if !driver.exists(&id)? {
            driver.create(&CreateRequest::new(id.clone(), None))?;
        }
    }
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (driver, times) in drivers.iter().zip(&mut times) {
            let start = Instant::now();
            for _ in 0..calls {
                operation(driver, &id)?;
            }
            times.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(calls));
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }))
}
