// SPDX-License-Identifier: Apache-2.0
//! Where a report is written: anew after cases, so that a run that is cut off leaves one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Results, events::Events, html, junit};
use crate::Outcome;

/// How often the report is written while cases run.
const PAUSE: Duration = Duration::from_secs(2);

/// The report's directory, when there is one.
#[derive(Debug)]
pub(crate) struct Sink(Option<Mutex<Place>>);

#[derive(Debug)]
struct Place {
    out: PathBuf,
    last: Instant,
    events: Events,
    /// Results that this run is compared with.
    earlier: Option<Results>,
    /// The first failure to write; it is reported at the end.
    broken: Option<io::Error>,
}

impl Sink {
    /// Makes the directory, and reads the results that this run is compared with.
    pub(crate) fn open(out: Option<&Path>, compare: Option<&Path>) -> io::Result<Self> {
        let Some(out) = out else {
            return Ok(Self(None));
        };
        fs::create_dir_all(out)?;
        let earlier = match compare {
            Some(path) => Some(read(path)?),
            None => None,
        };
        Ok(Self(Some(Mutex::new(Place {
            last: Instant::now(),
            events: Events::create(&out.join("events.ndjson"))?,
            out: out.to_owned(),
            earlier,
            broken: None,
        }))))
    }

    /// Records the beginning of the run.
    pub(crate) fn started(&self, results: &Results) -> io::Result<()> {
        self.within(|place| {
            place.events.write(
                "started",
                &json!({
                    "suite": results.suite, "run": results.run, "plugin": results.plugin,
                    "environment": results.environment,
                }),
            )
        })
    }

    /// Records a case, and writes the results so far if that was not done just now.
    pub(crate) fn case(&self, outcome: &Outcome, results: &mut Results) {
        let done = self.within(|place| {
            if place.broken.is_some() {
                return Ok(());
            }
            let mut done = place.events.write("case", &json!(outcome));
            if done.is_ok() && place.last.elapsed() > PAUSE {
                place.last = Instant::now();
                results.settle();
                done = place.write(results);
            }
            place.broken = done.err();
            Ok(())
        });
        debug_assert!(done.is_ok(), "failures are kept for the end");
    }

    /// Writes everything.
    pub(crate) fn finish(&self, results: &mut Results) -> io::Result<()> {
        self.within(|place| {
            if let Some(error) = place.broken.take() {
                return Err(error);
            }
            place.events.write(
                "finished",
                &json!({ "totals": results.totals, "profiles": results.profiles }),
            )?;
            place
                .events
                .head()
                .clone_into(&mut results.run.events_sha256);
            place.write(results)
        })
    }

    fn within(&self, work: impl FnOnce(&mut Place) -> io::Result<()>) -> io::Result<()> {
        match &self.0 {
            Some(place) => work(&mut place.lock().expect("no holder panics")),
            None => Ok(()),
        }
    }
}

impl Place {
    fn write(&self, results: &Results) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(results)?;
        text.push(b'\n');
        replace(&self.out.join("results.json"), &text)?;
        let mut xml = Vec::new();
        junit::write(results, &mut xml)?;
        replace(&self.out.join("junit.xml"), &xml)?;
        let page = html::page(results, self.earlier.as_ref());
        replace(&self.out.join("report.html"), page.as_bytes())
    }
}

/// Reads a `results.json`.
pub(crate) fn read(path: &Path) -> io::Result<Results> {
    let explain = |error: &dyn std::fmt::Display| {
        io::Error::other(format!(
            "cannot read results in `{}`: {error}",
            path.display()
        ))
    };
    let text = fs::read(path).map_err(|error| explain(&error))?;
    let results: Results = serde_json::from_slice(&text).map_err(|error| explain(&error))?;
    if results.schema != super::SCHEMA {
        return Err(explain(&format!("unknown schema `{}`", results.schema)));
    }
    Ok(results)
}

/// Writes a file in one step.
pub(crate) fn replace(path: &Path, data: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(parent)?;
    io::Write::write_all(&mut file, data)?;
    file.persist(path)?;
    Ok(())
}
