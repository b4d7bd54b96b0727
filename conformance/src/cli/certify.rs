// SPDX-License-Identifier: Apache-2.0
//! `plywood-conformance certify` and `verify`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    FAILED, HARNESS,
    say::{complain, sayln},
    usage,
};
use crate::{
    certificate::{self, Envelope, SelftestRecord},
    describe::sha256,
    report,
};

#[derive(clap::Args)]
pub(super) struct CertifyOptions {
    /// The directory of a report: of a whole run, with the suite's test of itself in it.
    report: PathBuf,
    /// The plugin file; the one that was run, when not given.
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// The private key: Ed25519 in PKCS#8 PEM.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

#[derive(clap::Args)]
pub(super) struct VerifyOptions {
    /// The certificate.
    certificate: PathBuf,
    /// The plugin file that it should be about.
    plugin: PathBuf,
    /// The public key of whoever is trusted to have made it.
    #[arg(long, value_name = "FILE", required_unless_present = "no_signature")]
    key: Option<PathBuf>,
    /// Does not look at the signature: anybody can have written the certificate.
    #[arg(long, conflicts_with = "key")]
    no_signature: bool,
    /// The directory of the report, to check that it is the one that was certified.
    #[arg(long, value_name = "DIRECTORY")]
    report: Option<PathBuf>,
    /// Runs these cases again, with the same seed and on the same file systems.
    #[arg(long, value_name = "SET")]
    rerun: Option<String>,
}

pub(super) fn certify(options: &CertifyOptions) -> u8 {
    match try_certify(options) {
        Ok(Ok(text)) => {
            sayln!("{text}");
            0
        }
        Ok(Err(objections)) => {
            complain!("error: there is no certificate for these results");
            for objection in objections {
                complain!("  - {objection}");
            }
            FAILED
        }
        Err(text) => usage(&text),
    }
}

type Objections = Vec<String>;

fn try_certify(options: &CertifyOptions) -> Result<Result<String, Objections>, String> {
    let file = options.report.join("results.json");
    let text = fs::read(&file).map_err(|error| format!("`{}`: {error}", file.display()))?;
    let results = report::read(&file).map_err(|error| error.to_string())?;
    let plugin = match &options.plugin {
        Some(plugin) => plugin.clone(),
        None => PathBuf::from(&results.plugin.path),
    };
    let selftest = selftest(&options.report)?;
    let mut objections = certificate::objections(&results, &plugin, selftest.as_ref());
    objections.extend(chain(&options.report, &results.run.events_sha256)?);
    if !objections.is_empty() {
        return Ok(Err(objections));
    }
    let statement = certificate::statement(&results, &sha256(&text))?;
    let envelope = certificate::sign(&statement, &options.key)?;
    let json = serde_json::to_vec_pretty(&envelope).map_err(|error| error.to_string())?;
    let words = certificate::in_words(&statement, &envelope.issuers())?;
    let write = |name: &str, data: &[u8]| {
        let path = options.report.join(name);
        report::replace(&path, data).map_err(|error| format!("`{}`: {error}", path.display()))
    };
    write("certificate.json", &json)?;
    write("certificate.txt", format!("{words}\n").as_bytes())?;
    Ok(Ok(words))
}

fn selftest(report: &Path) -> Result<Option<SelftestRecord>, String> {
    let path = report.join(SelftestRecord::FILE);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| format!("`{}`: {error}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("`{}`: {error}", path.display())),
    }
}

/// What is wrong with the chain of events.
fn chain(report: &Path, head: &str) -> Result<Option<String>, String> {
    let path = report.join("events.ndjson");
    let text =
        fs::read_to_string(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
    Ok(match report::check_events(&text) {
        Ok(found) if found == head => None,
        Ok(_) => Some("the events do not belong to the results".to_owned()),
        Err(why) => Some(format!("the events were changed: {why}")),
    })
}

pub(super) fn verify(options: &VerifyOptions) -> u8 {
    match try_verify(options) {
        Ok(objections) if objections.is_empty() => rerun(options),
        Ok(objections) => {
            complain!("error: `{}` does not hold", options.certificate.display());
            for objection in objections {
                complain!("  - {objection}");
            }
            FAILED
        }
        Err(text) => usage(&text),
    }
}

fn envelope(options: &VerifyOptions) -> Result<Envelope, String> {
    let path = &options.certificate;
    let text = fs::read(path).map_err(|error| format!("`{}`: {error}", path.display()))?;
    serde_json::from_slice(&text)
        .map_err(|error| format!("`{}` is no certificate: {error}", path.display()))
}

fn try_verify(options: &VerifyOptions) -> Result<Objections, String> {
    let envelope = envelope(options)?;
    let mut objections = Objections::new();
    if let Some(key) = &options.key {
        objections.extend(envelope.check_signature(key).err());
    }
    let statement = envelope.open()?;
    let plugin = fs::read(&options.plugin)
        .map_err(|error| format!("`{}`: {error}", options.plugin.display()))?;
    objections.extend(statement.objections(&sha256(&plugin))?);
    if let Some(report) = &options.report {
        let path = report.join("results.json");
        let text = fs::read(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
        if statement.results_sha256() != Some(&sha256(&text)) {
            objections.push(format!("`{}` is not what was certified", path.display()));
        }
        let results = report::read(&path).map_err(|error| error.to_string())?;
        objections.extend(chain(report, &results.run.events_sha256)?);
    }
    if objections.is_empty() {
        sayln!(
            "{}",
            certificate::in_words(&statement, &envelope.issuers())?
        );
        if options.no_signature {
            sayln!("the signature was not looked at: anybody can have written this");
        }
    }
    Ok(objections)
}

fn rerun(options: &VerifyOptions) -> u8 {
    let Some(set) = &options.rerun else { return 0 };
    let again = envelope(options)
        .and_then(|envelope| envelope.open())
        .and_then(|statement| statement.run_again());
    let (seed, scratch, driver_options) = match again {
        Ok(again) => again,
        Err(text) => return usage(&text),
    };
    let mut command = Command::new(crate::site::PROGRAM);
    command
        .arg("run")
        .arg(&options.plugin)
        .args(["--group", set, "--seed", &seed.to_string()])
        .args(["--scratch", &scratch.join(",")]);
    for option in driver_options {
        command.args(["--storage-opt", &option]);
    }
    match command.status() {
        Ok(status) => status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(HARNESS),
        Err(error) => {
            complain!("error: {error}");
            HARNESS
        }
    }
}
