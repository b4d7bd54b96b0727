// SPDX-License-Identifier: Apache-2.0
//! Plywood's own settings, which containers/storage has no keys for.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    document::{Document, Entry},
    env::Environment,
    explain::Explained,
    origin::Origin,
    search,
};
use crate::{
    Error, ErrorKind, IoContext, Result,
    durable::Durability,
    plugin::{ConfiguredPlugin, DriverName, PluginOptions},
};

/// The values of `plywood.conf`.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) plugins: PluginOptions,
    pub(super) lock_timeout: Option<Duration>,
    pub(super) layer_sources: Vec<String>,
    pub(super) layer_source_timeout: Option<Duration>,
    pub(super) durability: Durability,
}

/// Reads the file that `PLYWOOD_CONF` names, or the system's and then the user's.
pub(super) fn load(env: &Environment, explained: &mut Vec<Explained>) -> Result<Settings> {
    let mut settings = Settings::default();
    let mut pins = Pins::new();
    for path in files(env)? {
        check_owner(env, &path)?;
        read(&path, &mut settings, &mut pins, explained)?;
    }
    for (name, pin) in pins {
        settings.plugins.configured.push(pin.finish(name)?);
    }
    settings.plugins.environment = env
        .get("PLYWOOD_PLUGIN_PATH")
        .filter(|_| !env.privileged_by_file);
    Ok(settings)
}

type Pins = BTreeMap<String, Pin>;

/// A table `[plugin.NAME]` of one file or several.
#[derive(Debug, Default)]
struct Pin {
    path: Option<PathBuf>,
    sha256: Option<String>,
    origin: Option<Origin>,
}

impl Pin {
    fn finish(self, name: String) -> Result<ConfiguredPlugin> {
        let path = self.path.ok_or_else(|| {
            let origin = self.origin.unwrap_or(Origin::Default);
            let what = format!("{origin}: `plugin.{name}` has a `sha256` but no `path`");
            Error::new(ErrorKind::Config, what).subject(&name)
        })?;
        Ok(ConfiguredPlugin {
            name,
            path,
            sha256: self.sha256,
        })
    }
}

fn files(env: &Environment) -> Result<Vec<PathBuf>> {
    let named = env.path("PLYWOOD_CONF").filter(|_| !env.privileged_by_file);
    if let Some(path) = named {
        return Ok(vec![path]);
    }
    let user = search::user_config(env).filter(|_| !env.privileged_by_file);
    let candidates = std::iter::once(env.etc.clone())
        .chain(user)
        .map(|dir| dir.join("plywood/plywood.conf"));
    let mut found = Vec::new();
    for path in candidates {
        if path.try_exists().at("cannot inspect", &path)? {
            found.push(path);
        }
    }
    Ok(found)
}

/// The file names code that is loaded, so nobody else may be its author: a user's file must not
/// steer the host's root who has kept the user's environment.
fn check_owner(env: &Environment, path: &Path) -> Result<()> {
    let found = fs::metadata(path).at("cannot read configuration", path)?;
    let author = found.uid();
    if author == 0 || author == env.uid {
        return Ok(());
    }
    let shown = path.display().to_string();
    Err(Error::new(
        ErrorKind::Config,
        format!(
            "the configuration belongs to the user {author}, who may not choose plugins: `{shown}`"
        ),
    )
    .subject(shown)
    .hint("give the file to root or to the user who runs the program, or set PLYWOOD_CONF"))
}

fn read(
    path: &Path,
    settings: &mut Settings,
    pins: &mut Pins,
    explained: &mut Vec<Explained>,
) -> Result<()> {
    let document = Document::read(path)?;
    document.visit(
        |_| false,
        |entry| {
            let value = set(&document, entry, settings, pins)?;
            explained.push(Explained {
                key: entry.key.clone(),
                value,
                origins: vec![document.origin(entry)],
            });
            Ok(())
        },
    )
}

/// Sets one key; returns its value in words.
fn set(
    document: &Document,
    entry: &Entry<'_>,
    settings: &mut Settings,
    pins: &mut Pins,
) -> Result<String> {
    let refuse = |why: &str| refusal(document, entry, why);
    match entry.key.split('.').collect::<Vec<_>>()[..] {
        ["plugin_directories"] => {
            let (items, append) = document.list(entry)?;
            let directories = &mut settings.plugins.directories;
            if !append {
                directories.clear();
            }
            for item in &items {
                directories.push(absolute(item).ok_or_else(|| refuse("not an absolute path"))?);
            }
            Ok(items.join(", "))
        }
        ["layer_sources"] => {
            let (items, append) = document.list(entry)?;
            if !append {
                settings.layer_sources.clear();
            }
            for item in &items {
                let name: DriverName = item
                    .parse()
                    .map_err(|_| refuse("not the name of a plugin"))?;
                settings.layer_sources.push(name.as_str().to_owned());
            }
            Ok(items.join(", "))
        }
        ["layer_source_timeout"] => {
            let text = document.text(entry)?;
            let wanted = duration(&text).filter(|time| (1..=86_400).contains(&time.as_secs()));
            let wanted = wanted.ok_or_else(|| refuse("not a duration from `1s` to `1440m`"))?;
            settings.layer_source_timeout = Some(wanted);
            Ok(text)
        }
        ["lock_timeout"] => {
            let text = document.text(entry)?;
            settings.lock_timeout = match text.as_str() {
                "none" => None,
                text => Some(duration(text).ok_or_else(|| {
                    refuse("not a duration such as `30s`, `500ms`, `2m` or `none`")
                })?),
            };
            Ok(text)
        }
        ["sync"] => {
            let text = document.text(entry)?;
            settings.durability = match text.as_str() {
                "filesystem" => Durability::Full,
                "none" => Durability::None,
                _ => return Err(refuse("neither `filesystem` nor `none`")),
            };
            Ok(text)
        }
        ["plugin", name, field @ ("path" | "sha256")] => {
            let text = document.text(entry)?;
            let pin = pins.entry(name.to_owned()).or_default();
            if field == "path" {
                let path = absolute(&text).ok_or_else(|| refuse("not an absolute path"))?;
                pin.path = Some(path);
            } else {
                let digest = text.strip_prefix("sha256:").unwrap_or(&text);
                let digest = digest.to_ascii_lowercase();
                let hex = digest.bytes().all(|b| b.is_ascii_hexdigit());
                if digest.len() != 64 || !hex {
                    return Err(refuse("not a SHA-256 of 64 hexadecimal digits"));
                }
                pin.sha256 = Some(digest);
            }
            pin.origin = Some(document.origin(entry));
            Ok(text)
        }
        _ => Err(refuse("unknown key")),
    }
}

fn refusal(document: &Document, entry: &Entry<'_>, why: &str) -> Error {
    let path = document.path().display();
    Error::new(
        ErrorKind::Config,
        format!("{path}:{}: `{}`: {why}", entry.line, entry.key),
    )
    .subject(path.to_string())
}

fn absolute(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute())
}

/// A whole number with a unit.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}
