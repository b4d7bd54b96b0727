// SPDX-License-Identifier: Apache-2.0
//! Certificates: signed statements that a plugin file passed, in the form of in-toto.
//!
//! The payload is an [in-toto Statement v1] with the predicate [test-result v0.1]; its subject is
//! the digest of the plugin file, so that another build is not covered. The envelope is [DSSE] with
//! an Ed25519 signature.
//!
//! [in-toto Statement v1]: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
//! [test-result v0.1]: https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md
//! [DSSE]: https://github.com/secure-systems-lab/dsse/blob/master/envelope.md

use std::{collections::BTreeSet, fs, path::Path};

use data_encoding::BASE64;
use ed25519_dalek::{
    Signature, Signer as _, SigningKey, VerifyingKey,
    pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePublicKey as _},
};
use serde::{Deserialize, Serialize};

use crate::{
    Level, Results, Status, catalogue,
    describe::sha256,
    entry, excuses,
    report::{Environment, PluginFacts, RunFacts, Totals, is_released},
};

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://in-toto.io/attestation/test-result/v0.1";
const PAYLOAD: &str = "application/vnd.in-toto+json";

/// What `selftest` leaves in the directory of the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SelftestRecord {
    /// The SHA-256 of the program that tested itself.
    pub(crate) program_sha256: String,
    /// Faults that were caught.
    pub(crate) caught: usize,
    /// Faults that there are.
    pub(crate) faults: usize,
    /// Whether everything was as it should be.
    pub(crate) passed: bool,
}

impl SelftestRecord {
    /// The file's name.
    pub(crate) const FILE: &'static str = "selftest.json";
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Resource>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    result: String,
    configuration: Vec<Resource>,
    passed_tests: Vec<String>,
    warned_tests: Vec<String>,
    failed_tests: Vec<String>,
}

/// A resource descriptor of in-toto.
#[derive(Debug, Serialize, Deserialize)]
struct Resource {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Digest {
    sha256: String,
}

impl Resource {
    fn digest(name: impl Into<String>, sha256: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            digest: Some(Digest {
                sha256: sha256.into(),
            }),
            content: None,
        }
    }
}

/// Everything about the run that a certificate repeats.
#[derive(Debug, Serialize, Deserialize)]
struct Facts {
    suite: String,
    run: RunFacts,
    plugin: PluginFacts,
    environment: Environment,
    options: Vec<String>,
    profiles: Vec<String>,
    undeclared: Vec<String>,
    /// Cases about something that the driver does not claim.
    not_applicable: Vec<String>,
    totals: Totals,
}

/// A signed payload.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signed>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Signed {
    keyid: String,
    sig: String,
}

/// What a certificate says, in one line.
pub(crate) fn in_words(statement: &Statement, issuer: &str) -> Result<String, String> {
    let facts = facts(statement)?;
    let scratch: Vec<_> = facts
        .environment
        .scratch
        .iter()
        .map(|scratch| scratch.spec.as_str())
        .collect();
    Ok(format!(
        "{} {} - {} - {} - Linux {} {} - {} - {} - sha256:{} - issued by {issuer}",
        facts.plugin.name,
        facts.plugin.version,
        facts.profiles.join(", "),
        facts.suite,
        facts.environment.kernel,
        facts.environment.arch,
        scratch.join(", "),
        facts.run.finished,
        facts.plugin.sha256,
    ))
}

/// Why there is no certificate for these results; empty when there can be one.
pub(crate) fn objections(
    results: &Results,
    plugin: &Path,
    selftest: Option<&SelftestRecord>,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut object = |when: bool, why: String| {
        if when {
            found.push(why);
        }
    };
    object(
        results.plugin.path.is_empty(),
        "the driver was linked in: a certificate names a plugin file".to_owned(),
    );
    object(
        !results.run.complete,
        format!(
            "cases were filtered out ({})",
            results.run.filters.join(", ")
        ),
    );
    object(
        results.run.finished.is_empty(),
        "the run was cut off".to_owned(),
    );
    object(
        results.environment.scratch.is_empty(),
        "it ran on no file system".to_owned(),
    );
    for (scratch, why) in &results.environment.unavailable {
        object(
            true,
            format!("{scratch} was asked for and not there: {why}"),
        );
    }
    let known = results.plugin.known();
    for (id, status) in results.by_case() {
        let unexcused = status == Status::NotApplicable
            && !entry(id).is_some_and(|entry| excuses::may_not_apply(entry, &known));
        object(
            unexcused,
            format!("{id} was not applied, and the catalogue names no reason that holds"),
        );
        let binding = entry(id).is_some_and(|entry| entry.level != Level::Recorded);
        let good = match status {
            Status::Pass | Status::NotApplicable => true,
            Status::Xfail => entry(id).is_some_and(|entry| entry.level != Level::Mandatory),
            _ => false,
        };
        object(
            binding && !good,
            format!("{id} ended with {}", status.word()),
        );
    }
    let digest = fs::read(plugin).map(|data| sha256(&data));
    let unchanged = results.plugin.sha256 == results.plugin.sha256_after;
    object(
        !unchanged || digest.as_ref().ok() != Some(&results.plugin.sha256),
        format!(
            "`{}` is not (any more) the file that was tested",
            plugin.display()
        ),
    );
    object(
        results.suite.catalogue_sha256 != crate::catalogue_sha256(),
        "the results are of another catalogue than this program's".to_owned(),
    );
    match selftest {
        None => object(
            true,
            "the suite did not test itself: run `selftest --out` with the directory of the report"
                .to_owned(),
        ),
        Some(record) => object(
            !record.passed || record.program_sha256 != results.suite.program_sha256,
            "the suite's test of itself failed, or was made with another program".to_owned(),
        ),
    }
    found
}

/// Makes the statement of results that [`objections`] has nothing against.
pub(crate) fn statement(results: &Results, results_sha256: &str) -> Result<Statement, String> {
    let by_case = results.by_case();
    let with = |wanted: Status| {
        let ids = by_case.iter().filter(|(_, status)| **status == wanted);
        ids.map(|(id, _)| (*id).to_owned()).collect::<Vec<_>>()
    };
    let warned = with(Status::Xfail);
    let profiles = results.profiles.iter();
    let profiles = profiles.filter(|(_, profile)| profile.result == crate::ProfileResult::Success);
    let facts = Facts {
        suite: format!("gd-conformance {}", results.suite.version),
        run: results.run.clone(),
        plugin: results.plugin.clone(),
        environment: results.environment.clone(),
        options: results.options.clone(),
        profiles: profiles.map(|(name, _)| name.clone()).collect(),
        undeclared: results.undeclared.keys().cloned().collect(),
        not_applicable: with(Status::NotApplicable),
        totals: results.totals,
    };
    let content = serde_json::to_vec(&facts).map_err(|error| error.to_string())?;
    let file = Path::new(&results.plugin.path).file_name();
    Ok(Statement {
        kind: STATEMENT.to_owned(),
        subject: vec![Resource::digest(
            file.map(|name| name.to_string_lossy()).unwrap_or_default(),
            &results.plugin.sha256,
        )],
        predicate_type: PREDICATE.to_owned(),
        predicate: Predicate {
            result: if warned.is_empty() {
                "PASSED"
            } else {
                "WARNED"
            }
            .to_owned(),
            configuration: vec![
                Resource::digest(
                    format!("gd-conformance {} catalogue", results.suite.version),
                    &results.suite.catalogue_sha256,
                ),
                Resource::digest("suite program", &results.suite.program_sha256),
                Resource::digest("results.json", results_sha256),
                Resource {
                    name: "environment".to_owned(),
                    digest: None,
                    content: Some(BASE64.encode(&content)),
                },
            ],
            passed_tests: with(Status::Pass),
            warned_tests: warned,
            failed_tests: Vec::new(),
        },
    })
}

/// Signs a statement with the private key in a PEM file (PKCS#8, Ed25519).
pub(crate) fn sign(statement: &Statement, key: &Path) -> Result<Envelope, String> {
    let pem = fs::read_to_string(key).map_err(|error| format!("`{}`: {error}", key.display()))?;
    let key = SigningKey::from_pkcs8_pem(&pem).map_err(|error| {
        format!(
            "`{}` is no Ed25519 key in PKCS#8 PEM ({error}): \
             `openssl genpkey -algorithm ed25519` makes one",
            key.display()
        )
    })?;
    let payload = serde_json::to_vec(statement).map_err(|error| error.to_string())?;
    let signature = key.sign(&authenticated(&payload));
    Ok(Envelope {
        payload_type: PAYLOAD.to_owned(),
        payload: BASE64.encode(&payload),
        signatures: vec![Signed {
            keyid: key_id(&key.verifying_key())?,
            sig: BASE64.encode(&signature.to_bytes()),
        }],
    })
}

/// DSSE's pre-authentication encoding.
fn authenticated(payload: &[u8]) -> Vec<u8> {
    let mut text = format!("DSSEv1 {} {PAYLOAD} {} ", PAYLOAD.len(), payload.len()).into_bytes();
    text.extend_from_slice(payload);
    text
}

fn key_id(key: &VerifyingKey) -> Result<String, String> {
    let der = key.to_public_key_der().map_err(|error| error.to_string())?;
    Ok(format!("sha256:{}", sha256(der.as_bytes())))
}

impl Envelope {
    /// Who signed.
    pub(crate) fn issuers(&self) -> String {
        let ids: Vec<_> = self.signatures.iter().map(|s| s.keyid.as_str()).collect();
        ids.join(", ")
    }

    /// The statement, not yet believed.
    pub(crate) fn open(&self) -> Result<Statement, String> {
        if self.payload_type != PAYLOAD {
            return Err(format!("the payload is of type `{}`", self.payload_type));
        }
        let payload = self.payload()?;
        serde_json::from_slice(&payload).map_err(|error| format!("the payload: {error}"))
    }

    fn payload(&self) -> Result<Vec<u8>, String> {
        BASE64
            .decode(self.payload.as_bytes())
            .map_err(|error| format!("the payload is no base64: {error}"))
    }

    /// Checks that the holder of a public key (a PEM file) signed it.
    pub(crate) fn check_signature(&self, key: &Path) -> Result<(), String> {
        let pem =
            fs::read_to_string(key).map_err(|error| format!("`{}`: {error}", key.display()))?;
        let public = VerifyingKey::from_public_key_pem(&pem).map_err(|error| {
            format!(
                "`{}` is no Ed25519 public key in PEM ({error}): \
                 `openssl pkey -pubout` makes one from the private key",
                key.display()
            )
        })?;
        let signed = authenticated(&self.payload()?);
        let good = |one: &Signed| {
            let bytes = BASE64.decode(one.sig.as_bytes()).ok()?;
            let signature = Signature::from_slice(&bytes).ok()?;
            public.verify_strict(&signed, &signature).ok()
        };
        match self.signatures.iter().find_map(good) {
            Some(()) => Ok(()),
            None => Err(format!(
                "it was not signed with the key `{}`",
                key.display()
            )),
        }
    }
}

fn facts(statement: &Statement) -> Result<Facts, String> {
    let configuration = &statement.predicate.configuration;
    let content = configuration
        .iter()
        .find(|resource| resource.name == "environment")
        .and_then(|resource| resource.content.as_deref())
        .ok_or("it says nothing of the environment")?;
    let text = BASE64
        .decode(content.as_bytes())
        .map_err(|error| format!("its environment is no base64: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("its environment: {error}"))
}

impl Statement {
    /// The seed, the file systems and the driver options of the run.
    pub(crate) fn run_again(&self) -> Result<(u64, Vec<String>, Vec<String>), String> {
        let facts = facts(self)?;
        let scratch = facts.environment.scratch.into_iter();
        let scratch = scratch.map(|scratch| scratch.spec).collect();
        Ok((facts.run.seed, scratch, facts.options))
    }

    /// The digest of `results.json`.
    pub(crate) fn results_sha256(&self) -> Option<&str> {
        let mut configuration = self.predicate.configuration.iter();
        let resource = configuration.find(|resource| resource.name == "results.json")?;
        Some(&resource.digest.as_ref()?.sha256)
    }

    /// What speaks against this certificate being one for the plugin file with that digest; empty
    /// when nothing does.
    pub(crate) fn objections(&self, plugin_sha256: &str) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        let mut object = |when: bool, why: String| {
            if when {
                found.push(why);
            }
        };
        object(
            self.kind != STATEMENT || self.predicate_type != PREDICATE,
            "it is no statement about test results".to_owned(),
        );
        let digest = |resource: &Resource| resource.digest.as_ref().map(|d| d.sha256.clone());
        object(
            !self
                .subject
                .iter()
                .any(|subject| digest(subject).as_deref() == Some(plugin_sha256)),
            format!("it is about another file than the one with sha256:{plugin_sha256}"),
        );
        let catalogue_digest = self
            .predicate
            .configuration
            .iter()
            .find(|resource| resource.name.ends_with(" catalogue"))
            .and_then(digest);
        object(
            catalogue_digest.as_deref() != Some(&crate::catalogue_sha256()),
            "it was made with another catalogue: use that version of the suite".to_owned(),
        );
        let predicate = &self.predicate;
        object(
            !["PASSED", "WARNED"].contains(&predicate.result.as_str())
                || !predicate.failed_tests.is_empty(),
            format!("its result is {}", predicate.result),
        );
        let facts = facts(self)?;
        object(
            facts.plugin.sha256 != plugin_sha256 || !facts.run.complete,
            "its environment block is of another or of a filtered run".to_owned(),
        );
        let known = facts.plugin.known();
        let named: BTreeSet<&str> = predicate.passed_tests.iter().map(String::as_str).collect();
        let warned: BTreeSet<&str> = predicate.warned_tests.iter().map(String::as_str).collect();
        let excused: BTreeSet<&str> = facts.not_applicable.iter().map(String::as_str).collect();
        for entry in catalogue().iter().filter(|entry| is_released(entry)) {
            let there = named.contains(entry.id)
                || (warned.contains(entry.id) && entry.level != Level::Mandatory)
                || (excused.contains(entry.id) && excuses::may_not_apply(entry, &known));
            object(
                entry.level != Level::Recorded && !there,
                format!("it does not say that {} passed", entry.id),
            );
        }
        let counted = facts.totals.pass;
        object(
            named.len() != counted,
            format!("it names {} cases and counts {counted}", named.len()),
        );
        Ok(found)
    }
}
