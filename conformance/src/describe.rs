// SPDX-License-Identifier: Apache-2.0
//! Finding out what is under test, in processes that may die of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use plywood::plugin::probe::probe_in_child;
use plywood_plugin_sdk::EmbeddedDriver;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    Backing, Scratch, Site, Source,
    report::{Environment, PluginFacts},
    worker::DESCRIBE,
};

/// What an open driver says of itself.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) capabilities: Vec<String>,
    pub(crate) max_depth: Option<u32>,
    /// Why it could not be opened.
    pub(crate) refusal: Option<String>,
}

/// Looks at the file, or at the driver that is linked in.
///
/// # Errors
/// Why it is no driver that can be tested.
pub(crate) fn plugin(source: &Source) -> Result<PluginFacts, String> {
    let mut facts = match source {
        Source::Plugin(path) => {
            let report = probe_in_child(Path::new(crate::site::PROGRAM), path);
            if let Some(refusal) = report.refusal {
                return Err(match report.remedy {
                    Some(remedy) => format!("{refusal}\nhint: {remedy}"),
                    None => refusal,
                });
            }
            PluginFacts {
                path: path.display().to_string(),
                name: report.name.unwrap_or_default(),
                version: report.version.unwrap_or_default(),
                vendor: report.vendor.unwrap_or_default(),
                abi: report.abi.unwrap_or_default(),
                ..PluginFacts::default()
            }
        }
        Source::Embedded(name) => embedded(name)?,
    };
    let expected = source.name().map_err(|error| error.to_string())?;
    if facts.name != expected {
        return Err(format!(
            "the file is called after the driver `{expected}`, but has `{}`",
            facts.name
        ));
    }
    let file = file_of(source);
    let data = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    facts.sha256 = sha256(&data);
    facts.size = data.len() as u64;
    facts.build_id = build_id(&data).unwrap_or_default();
    Ok(facts)
}

fn embedded(name: &str) -> Result<PluginFacts, String> {
    let all: Vec<&EmbeddedDriver> = plywood_plugin_sdk::inventory::iter::<EmbeddedDriver>
        .into_iter()
        .collect();
    let Some(found) = all.iter().find(|driver| driver.name == name) else {
        let mut names: Vec<_> = all.iter().map(|driver| driver.name).collect();
        names.sort_unstable();
        return Err(format!(
            "no driver `{name}` is linked in; there are: {}",
            names.join(", ")
        ));
    };
    Ok(PluginFacts {
        name: name.to_owned(),
        version: found.version.to_owned(),
        vendor: found.vendor.to_owned(),
        abi: plywood_plugin_sdk::abi::VERSION.to_string(),
        ..PluginFacts::default()
    })
}

/// The file that is tested: the plugin, or the program that has the driver linked in.
pub(crate) fn file_of(source: &Source) -> &Path {
    match source {
        Source::Plugin(path) => path,
        Source::Embedded(_) => Path::new(crate::site::PROGRAM),
    }
}

/// The digest in hex.
pub(crate) fn sha256(data: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(data))
}

fn build_id(data: &[u8]) -> Option<String> {
    use object::Object as _;
    let file = object::File::parse(data).ok()?;
    let id = file.build_id().ok()??;
    Some(data_encoding::HEXLOWER.encode(id))
}

/// Opens the driver once, in a process of its own, and asks what it declares.
pub(crate) fn open(
    source: &Source,
    options: &[String],
    scratch: &Scratch,
) -> io::Result<Description> {
    let root = tempfile::Builder::new()
        .prefix("conformance-")
        .tempdir_in(scratch.path(0))?;
    let site = Site {
        source: source.clone(),
        root: root.path().join("root"),
        options: options.to_vec(),
        backing: scratch.backing.clone(),
        case: String::new(),
        seed: 0,
        fuzz: std::time::Duration::ZERO,
        patience: 1,
        messages: root.path().join("description"),
        sabotaged: false,
    };
    fs::create_dir(&site.root)?;
    let output = Command::new(crate::site::PROGRAM)
        .arg(DESCRIBE)
        .arg(serde_json::to_string(&site)?)
        .output()?;
    let Ok(text) = fs::read(&site.messages) else {
        let refusal = format!(
            "the process that opened it {}: {}",
            crate::site::how(output.status),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        return Ok(Description {
            refusal: Some(refusal),
            ..Description::default()
        });
    };
    Ok(serde_json::from_slice(&text)?)
}

/// What [`DESCRIBE`] does.
pub(crate) fn describe(site: &Site) -> io::Result<()> {
    let description = match site.driver() {
        Ok(driver) => {
            let can = driver.capabilities().clone();
            let closed = driver.close();
            Description {
                capabilities: can.names().into_iter().map(str::to_owned).collect(),
                max_depth: can.depth_limit,
                refusal: closed.err().map(|error| error.to_string()),
            }
        }
        Err(error) => Description {
            refusal: Some(crate::case::Failure::from(error).text),
            ..Description::default()
        },
    };
    fs::write(&site.messages, serde_json::to_vec(&description)?)
}

/// Looks at the machine.
pub(crate) fn environment(scratch: Vec<Backing>) -> Environment {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map(|line| line.trim().to_owned()).unwrap_or_default()
    };
    let memory = value(&read("/proc/meminfo"), "MemTotal:");
    let lsm = read("/sys/kernel/security/lsm");
    Environment {
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        libc: libc_version(),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        mem_kb: memory
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0),
        uid: nix::unistd::geteuid().as_raw(),
        caps: value(&read("/proc/self/status"), "CapEff:"),
        lsm: lsm
            .trim()
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        scratch,
        images: String::new(),
        unavailable: std::collections::BTreeMap::new(),
    }
}

/// The C library's version, from the name that it gives itself.
fn libc_version() -> String {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let library = maps.lines().find_map(|line| {
        let path = line.split_whitespace().last()?;
        let name = Path::new(path).file_name()?.to_str()?;
        name.starts_with("libc.so").then(|| PathBuf::from(path))
    });
    let Some(library) = library else {
        return "static".to_owned();
    };
    let Ok(data) = fs::read(&library) else {
        return library.display().to_string();
    };
    let mark = b"GNU C Library";
    let found = data.windows(mark.len()).position(|window| window == mark);
    let line = found.map(|start| &data[start..]).unwrap_or_default();
    let end = line.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let text = String::from_utf8_lossy(&line[..end]).into_owned();
    match text.split("version ").nth(1) {
        Some(version) => format!("glibc {}", version.trim_end_matches('.')),
        None => library.display().to_string(),
    }
}
