// SPDX-License-Identifier: Apache-2.0
//! Running other programs, with what they were called in every error.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

/// The workspace's folder.
pub(crate) fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .expect("xtask is a folder of the workspace")
        .to_path_buf()
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "cargo's own setting")]
    let set = env::var_os("CARGO_TARGET_DIR");
    set.map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The program `name` as built with `profile`.
pub(crate) fn built(profile: Profile, name: &str) -> PathBuf {
    target_dir().join(profile.directory()).join(name)
}

/// How things are built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    /// Optimised, with debug's checks.
    Suite,
    Release,
}

impl Profile {
    /// What cargo calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Suite => "suite",
            Self::Release => "release",
        }
    }

    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Suite => "suite",
            Self::Release => "release",
        }
    }
}

/// A command with its arguments.
pub(crate) fn command<I, S>(program: impl AsRef<OsStr>, arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(workspace())
        .stdin(Stdio::null());
    command
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// Runs it and fails unless it succeeds.
pub(crate) fn check(mut command: Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", shown(&command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", shown(&command));
    }
    Ok(())
}

/// Runs it and returns what it printed; fails, with its error output, unless it succeeds.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .with_context(|| format!("cannot start `{}`", shown(&command)))?;
    if !status.success() {
        let text = String::from_utf8_lossy(&stderr);
        bail!(
            "`{}` failed: {status}\n{}",
            shown(&command),
            text.trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&stdout).trim_end().to_owned())
}

/// Runs cargo in the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Result<()> {
    check(command(env!("CARGO"), arguments))
}

/// Builds the whole workspace, plugins included.
pub(crate) fn build(profile: Profile) -> Result<()> {
    cargo(&[
        "build",
        "--workspace",
        "--quiet",
        "--profile",
        profile.name(),
    ])
}

/// Builds these packages.
pub(crate) fn build_packages(profile: Profile, packages: &[&str]) -> Result<()> {
    let mut arguments = vec!["build", "--quiet", "--profile", profile.name()];
    arguments.extend(packages.iter().flat_map(|package| ["-p", package]));
    cargo(&arguments)
}

/// Whether a program is on the search path.
pub(crate) fn on_path(program: &str) -> bool {
    found_on_path(program).is_some()
}

/// Where a program is that is on the search path.
pub(crate) fn found_on_path(program: &str) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "the shell's own search path")]
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
