// SPDX-License-Identifier: Apache-2.0
//! Where a report is written: anew after cases, so that a run that is cut off leaves one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use super::Results;

/// How often the report is written while cases run.
const PAUSE: Duration = Duration::from_secs(2);

/// The report's directory, when there is one.
pub(crate) struct Sink {
    out: Option<PathBuf>,
    last: Mutex<Instant>,
}

impl Sink {
    /// Makes the directory.
    pub(crate) fn open(out: Option<&Path>) -> io::Result<Self> {
        if let Some(out) = out {
            fs::create_dir_all(out)?;
        }
        Ok(Self {
            out: out.map(Path::to_owned),
            last: Mutex::new(Instant::now()),
        })
    }

    /// Writes the results so far, if that was not done just now; what fails here fails again, and
    /// is reported, at the end.
    pub(crate) fn after_case(&self, results: &Results) {
        let mut last = self.last.lock().expect("no holder panics");
        if last.elapsed() > PAUSE {
            *last = Instant::now();
            let _reported_at_the_end = self.write(results);
        }
    }

    /// Writes everything.
    pub(crate) fn finish(&self, results: &Results) -> io::Result<()> {
        self.write(results)
    }

    fn write(&self, results: &Results) -> io::Result<()> {
        let Some(out) = &self.out else { return Ok(()) };
        let mut text = serde_json::to_vec_pretty(results)?;
        text.push(b'\n');
        replace(&out.join("results.json"), &text)
    }
}

/// Writes a file in one step.
fn replace(path: &Path, data: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent)?;
    io::Write::write_all(&mut file, data)?;
    file.persist(path)?;
    Ok(())
}
