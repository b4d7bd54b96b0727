// SPDX-License-Identifier: Apache-2.0
//! From files, environment and arguments to options.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

use super::{
    document::{Document, Value},
    env::Environment,
    explain::Explained,
    options::{Overrides, StoreOptions},
    origin::{Note, Origin},
    plywood_conf, rootless,
    schema::{self, Use},
    search,
};
use crate::{Error, ErrorKind, IoContext, Result};

const RUN_ROOT: &str = "/run/containers/storage";
const GRAPH_ROOT: &str = "/var/lib/containers/storage";

/// Options with their explanation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The options.
    pub options: StoreOptions,
    /// Every value that is in effect, by key.
    pub values: Vec<Explained>,
    /// Remarks, for instance about unknown keys.
    pub notes: Vec<Note>,
    /// The files that were read, the weakest first.
    pub files: Vec<PathBuf>,
}

/// The values of the files, by key of the schema.
#[derive(Debug, Default)]
struct Values {
    by_key: BTreeMap<&'static str, (Value, Vec<Origin>)>,
    notes: Vec<Note>,
    files: Vec<PathBuf>,
}

/// Reads everything.
///
/// # Errors
/// [`ErrorKind::Config`] for what cannot be understood.
pub fn load(env: &Environment, overrides: &Overrides) -> Result<Loaded> {
    let mut values = Values::default();
    for source in search::storage_conf(env)? {
        values.read(&source, env)?;
    }
    let mut resolver = Resolver {
        env,
        values,
        explained: Vec::new(),
        options: StoreOptions {
            rootless: env.rootless_uid() != 0,
            ..StoreOptions::default()
        },
    };
    resolver.configuration()?;
    if overrides.replace_configuration() {
        resolver.keep_roots_only();
    }
    resolver.arguments(overrides)?;
    resolver.finish(overrides)
}

impl Values {
    fn read(&mut self, source: &search::Source, env: &Environment) -> Result<()> {
        let document = Document::read(&source.path)?;
        self.files.push(source.path.clone());
        let is_map = |key: &str| key.eq_ignore_ascii_case(schema::PULL_OPTIONS);
        document.visit(is_map, |entry| {
            let origin = document.origin(entry);
            let Some(key) = schema::find(&entry.key) else {
                self.note(origin, format!("unknown key `{}`", entry.key));
                return Ok(());
            };
            let value = document.value(entry, key.kind)?;
            let of_host_root = [schema::RUN_ROOT, schema::GRAPH_ROOT].contains(&key.name);
            if key.used == Use::None {
                self.note(origin, format!("the key `{}` has no effect", entry.key));
            } else if of_host_root && source.system_main && env.rootless_uid() != 0 {
                let text = format!("`{}` is for the system's root user only", entry.key);
                self.note(origin, text);
            } else {
                self.merge(key.name, value, origin);
            }
            Ok(())
        })
    }

    fn note(&mut self, origin: Origin, text: String) {
        tracing::debug!(%origin, text, "configuration");
        self.notes.push(Note { origin, text });
    }

    fn merge(&mut self, key: &'static str, value: Value, origin: Origin) {
        match (self.by_key.get_mut(key), value) {
            (
                Some((Value::List { items, .. }, origins)),
                Value::List {
                    items: more,
                    append: true,
                },
            ) => {
                items.extend(more);
                origins.push(origin);
            }
            (Some((Value::Map(old), origins)), Value::Map(new)) => {
                old.extend(new);
                origins.push(origin);
            }
            (_, value) => {
                self.by_key.insert(key, (value, vec![origin]));
            }
        }
    }

    fn text(&self, key: &str) -> Option<(&str, Origin)> {
        match self.by_key.get(key)? {
            (Value::Text(text), origins) if !text.is_empty() => {
                Some((text, origins.last().cloned().unwrap_or(Origin::Default)))
            }
            _ => None,
        }
    }

    fn flag(&self, key: &str) -> bool {
        matches!(self.by_key.get(key), Some((Value::Flag(true), _)))
    }

    fn number(&self, key: &str) -> Option<u32> {
        match self.by_key.get(key)? {
            (Value::Number(number), _) => u32::try_from(*number).ok().filter(|n| *n > 0),
            _ => None,
        }
    }

    /// The options of drivers, in their order.
    fn driver_options(&self) -> Vec<(String, Vec<Origin>)> {
        let mut options = Vec::new();
        for (key, option) in schema::DRIVER_OPTIONS {
            let Some((value, origins)) = self.by_key.get(key) else {
                continue;
            };
            let mut push = |text: &str| options.push((format!("{option}={text}"), origins.clone()));
            match value {
                Value::Text(text) if !text.is_empty() => push(text),
                Value::Number(number) if *number != 0 => push(&format!("{number:o}")),
                Value::List { items, .. } => items.iter().for_each(|item| push(item)),
                _ => {}
            }
        }
        options
    }
}

struct Resolver<'a> {
    env: &'a Environment,
    values: Values,
    explained: Vec<Explained>,
    options: StoreOptions,
}

impl Resolver<'_> {
    fn explain(&mut self, key: &str, value: impl Into<String>, origins: Vec<Origin>) {
        self.explained.push(Explained {
            key: key.to_owned(),
            value: value.into(),
            origins,
        });
    }

    /// Sets what the files and the environment say.
    fn configuration(&mut self) -> Result<()> {
        self.roots()?;
        self.driver();
        if let Some((text, origin)) = self.values.text(schema::IMAGE_STORE) {
            let path = self.expand(text);
            self.explain(schema::IMAGE_STORE, path.to_string_lossy(), vec![origin]);
            self.options.image_store = Some(path);
        }
        if let Some((user, origin)) = self.values.text(schema::AUTO_NS_USER) {
            let user = user.to_owned();
            self.explain(schema::AUTO_NS_USER, &user, vec![origin]);
            self.options.root_auto_ns_user = Some(user);
        }
        self.options.auto_userns_min_size = self.values.number(schema::AUTO_NS_MIN);
        self.options.auto_userns_max_size = self.values.number(schema::AUTO_NS_MAX);
        self.options.disable_volatile = self.values.flag(schema::DISABLE_VOLATILE);
        self.options.transient_store = self.values.flag(schema::TRANSIENT);
        if let Some((Value::Map(map), _)) = self.values.by_key.get(schema::PULL_OPTIONS) {
            self.options.pull_options.clone_from(map);
        }
        for key in [
            schema::AUTO_NS_MIN,
            schema::AUTO_NS_MAX,
            schema::DISABLE_VOLATILE,
            schema::TRANSIENT,
            schema::PULL_OPTIONS,
        ] {
            if let Some((value, origins)) = self.values.by_key.get(key) {
                let (shown, origins) = (words(value), origins.clone());
                self.explain(key, shown, origins);
            }
        }
        Ok(())
    }

    fn roots(&mut self) -> Result<()> {
        let per_user = self.env.rootless_uid() != 0;
        let (run, origin) = match self.values.text(schema::RUN_ROOT) {
            Some((text, origin)) => (self.expand(text), origin),
            None if per_user => {
                let (path, origin) = rootless::run_root(self.env)?;
                (clean(&path), origin)
            }
            None => (PathBuf::from(RUN_ROOT), Origin::Default),
        };
        self.explain(schema::RUN_ROOT, run.to_string_lossy(), vec![origin]);
        self.options.run_root = run;

        let rootless_path = self.values.text(schema::ROOTLESS_PATH).filter(|_| per_user);
        let (graph, origin) = match (self.values.text(schema::GRAPH_ROOT), rootless_path) {
            (Some((text, origin)), shadowed) => {
                let path = self.expand(text);
                if let Some((_, other)) = shadowed {
                    let text = format!("`rootless_storage_path` gives way to {origin}");
                    self.values.note(other, text);
                }
                (path, origin)
            }
            (None, Some((text, origin))) => (self.expand(text), origin),
            (None, None) if per_user => {
                let (path, origin) = rootless::graph_root(self.env)?;
                (clean(&path), origin)
            }
            (None, None) => (PathBuf::from(GRAPH_ROOT), Origin::Default),
        };
        self.explain(schema::GRAPH_ROOT, graph.to_string_lossy(), vec![origin]);
        self.options.graph_root = graph;
        Ok(())
    }

    fn driver(&mut self) {
        let named = match self.env.text("STORAGE_DRIVER") {
            Some(name) => Some((name, Origin::Environment("STORAGE_DRIVER".to_owned()))),
            None => self
                .values
                .text(schema::DRIVER)
                .map(|(name, origin)| (name.to_owned(), origin)),
        };
        if let Some((mut name, origin)) = named {
            if name == "overlay2" {
                let text = "`overlay2` is the driver `overlay`".to_owned();
                self.values.note(origin.clone(), text);
                "overlay".clone_into(&mut name);
            }
            self.explain(schema::DRIVER, &name, vec![origin.clone()]);
            self.options.driver = Some(name);
            self.options.driver_origin = Some(origin);
        }
        if let Some((Value::List { items, .. }, origins)) =
            self.values.by_key.get(schema::DRIVER_PRIORITY)
        {
            let (items, origins) = (items.clone(), origins.clone());
            self.explain(schema::DRIVER_PRIORITY, items.join(", "), origins);
            self.options.driver_priority = items;
        }

        let options = match self.env.get("STORAGE_OPTS") {
            Some(list) => {
                let origin = Origin::Environment("STORAGE_OPTS".to_owned());
                let list = list.to_string_lossy().into_owned();
                let parts = list.split(',').filter(|_| !list.is_empty());
                parts
                    .map(|part| (part.to_owned(), vec![origin.clone()]))
                    .collect()
            }
            None => self.values.driver_options(),
        };
        for (option, origins) in options {
            self.explain("driver option", &option, origins);
            self.options.driver_options.push(option);
        }
    }

    /// What remains of the configuration when the caller chose a root, a driver or an option.
    fn keep_roots_only(&mut self) {
        self.options = StoreOptions {
            run_root: std::mem::take(&mut self.options.run_root),
            graph_root: std::mem::take(&mut self.options.graph_root),
            rootless: self.options.rootless,
            ..StoreOptions::default()
        };
        self.explained
            .retain(|value| [schema::RUN_ROOT, schema::GRAPH_ROOT].contains(&value.key.as_str()));
    }

    fn arguments(&mut self, overrides: &Overrides) -> Result<()> {
        let argument = |name: &str| vec![Origin::Argument(name.to_owned())];
        if let Some(path) = &overrides.run_root {
            self.options.run_root = absolute(path)?;
            self.replace(schema::RUN_ROOT, "--run");
        }
        if let Some(path) = &overrides.graph_root {
            self.options.graph_root = absolute(path)?;
            self.replace(schema::GRAPH_ROOT, "--graph");
        }
        if let Some(path) = &overrides.image_store {
            let path = absolute(path)?;
            self.explained
                .retain(|value| value.key != schema::IMAGE_STORE);
            self.explain(
                schema::IMAGE_STORE,
                path.to_string_lossy(),
                argument("--image-store"),
            );
            self.options.image_store = Some(path);
        }
        if overrides.transient_store {
            self.options.transient_store = true;
            self.explained
                .retain(|value| value.key != schema::TRANSIENT);
            self.explain(schema::TRANSIENT, "true", argument("--transient-store"));
        }
        if let Some(name) = &overrides.driver {
            self.explain(schema::DRIVER, name, argument("--storage-driver"));
            self.options.driver = Some(name.clone());
            self.options.driver_origin = argument("--storage-driver").pop();
        }
        for option in &overrides.driver_options {
            self.explain("driver option", option, argument("--storage-opt"));
            self.options.driver_options.push(option.clone());
        }
        Ok(())
    }

    /// Explains a root directory by the argument that replaced it.
    fn replace(&mut self, key: &str, flag: &str) {
        let path = match key {
            schema::RUN_ROOT => &self.options.run_root,
            _ => &self.options.graph_root,
        };
        let shown = path.to_string_lossy().into_owned();
        self.explained.retain(|value| value.key != key);
        self.explain(key, shown, vec![Origin::Argument(flag.to_owned())]);
    }

    fn finish(mut self, overrides: &Overrides) -> Result<Loaded> {
        let own = plywood_conf::load(self.env, &mut self.explained)?;
        let mut options = self.options;
        options.lock_timeout = own.lock_timeout;
        options.layer_sources = own.layer_sources;
        let named = |option: &String| option.contains("additionallayerstore=");
        if let Some(timeout) = own.layer_source_timeout
            && options.driver_options.iter().any(named)
        {
            let option = format!("additionallayerstore_timeout={}", timeout.as_secs());
            options.driver_options.push(option);
        }
        options.durability = own.durability;
        options.plugins = own.plugins;
        let first = overrides.plugin_dirs.iter().cloned();
        options.plugins.directories.splice(..0, first);
        if options.image_store.as_ref() == Some(&options.graph_root) {
            let shown = options.graph_root.display().to_string();
            return Err(Error::new(
                ErrorKind::Config,
                format!("imagestore {shown} must either be not set or be different than graphroot"),
            )
            .subject(shown));
        }
        self.explained.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Loaded {
            options,
            values: self.explained,
            notes: self.values.notes,
            files: self.values.files,
        })
    }

    /// Variables are replaced, then symbolic links resolved if all of the path exists.
    fn expand(&self, text: &str) -> PathBuf {
        let path = PathBuf::from(self.env.expand(text));
        fs::canonicalize(&path).unwrap_or_else(|_| clean(&path))
    }
}

fn words(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Flag(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::List { items, .. } => items.join(", "),
        Value::Map(map) => {
            let pair = |(name, value): (&String, &String)| format!("{name}={value}");
            map.iter().map(pair).collect::<Vec<_>>().join(", ")
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    Ok(clean(
        &std::path::absolute(path).at("cannot make absolute", path)?,
    ))
}

/// The path without `.`, `..` and double slashes, by its text alone.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir
                if matches!(cleaned.components().next_back(), Some(Component::Normal(_))) =>
            {
                cleaned.pop();
            }
            Component::ParentDir if cleaned.has_root() => {}
            Component::CurDir => {}
            other => cleaned.push(other),
        }
    }
    cleaned
}
