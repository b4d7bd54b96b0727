// SPDX-License-Identifier: Apache-2.0

use std::{cell::RefCell, fs};

use plywood_plugin_sdk::{DriverError, DriverErrorCode};
use tempfile::TempDir;

use super::{super::guard::tests::Fake, *};

/// A store directory and drivers of which some cannot work.
struct Case {
    root: TempDir,
    installed: Vec<String>,
    unsuitable: Vec<&'static str>,
    broken: Vec<&'static str>,
    opened: RefCell<Vec<String>>,
}

impl Case {
    fn new(installed: &[&str]) -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            installed: installed.iter().map(ToString::to_string).collect(),
            unsuitable: Vec::new(),
            broken: Vec::new(),
            opened: RefCell::default(),
        }
    }

    fn with_directories(self, names: &[&str]) -> Self {
        for name in names {
            fs::create_dir(self.root.path().join(name)).unwrap();
        }
        self
    }

    fn choose(&self, named: Option<&str>, priority: &[&str]) -> Result<Selected> {
        let named = named.map(|name| Named {
            name: name.to_owned(),
            place: "--storage-driver".to_owned(),
        });
        let priority: Vec<_> = priority.iter().map(ToString::to_string).collect();
        let request = SelectRequest {
            graph_root: self.root.path(),
            named: named.as_ref(),
            priority: &priority,
            open_request: &|_| unreachable!("the closure below opens"),
        };
        choose(&request, &self.installed, |name| self.open(name))
    }

    fn open(&self, name: &str) -> Result<DriverHandle, OpenError> {
        self.opened.borrow_mut().push(name.to_owned());
        let driver = |code| OpenError::Driver {
            name: name.to_owned(),
            error: DriverError::new(code, "the kernel lacks it"),
        };
        if self.unsuitable.contains(&name) {
            Err(driver(DriverErrorCode::PREREQUISITES))
        } else if self.broken.contains(&name) {
            Err(driver(DriverErrorCode::IO))
        } else if self.installed.iter().any(|installed| installed == name) {
            Ok(DriverHandle::from_driver(name, Box::new(Fake::default())))
        } else {
            Err(OpenError::Plugin(PluginError::Missing {
                name: name.to_owned(),
                searched: String::new(),
            }))
        }
    }

    fn opened(&self) -> String {
        self.opened.borrow().join(" ")
    }
}

fn name_of(selected: Result<Selected>) -> String {
    selected.unwrap().driver.name().to_owned()
}

#[test]
fn a_named_driver_is_used_or_it_fails() {
    let mut case = Case::new(&["overlay", "vfs"]).with_directories(&["overlay"]);
    let selected = case.choose(Some("vfs"), &[]).unwrap();
    assert_eq!(selected.driver.name(), "vfs");
    assert_eq!(selected.reason, "named by --storage-driver");
    case.unsuitable = vec!["vfs"];
    assert!(case.choose(Some("vfs"), &[]).is_err());
    assert_eq!(case.opened(), "vfs vfs");
}

#[test]
fn a_stores_own_driver_is_used_or_it_fails() {
    let mut case = Case::new(&["overlay", "vfs"]).with_directories(&["btrfs"]);
    let error = case.choose(None, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DriverUnavailable);
    case.installed.push("btrfs".to_owned());
    let selected = case.choose(None, &[]).unwrap();
    let directory = case.root.path().join("btrfs");
    assert_eq!(selected.driver.name(), "btrfs");
    assert_eq!(
        selected.reason,
        format!("the store has `{}`", directory.display())
    );
    assert_eq!(case.opened(), "btrfs btrfs");
}

#[test]
fn a_third_partys_directory_claims_the_store_too() {
    let case = Case::new(&["mine", "overlay"]).with_directories(&["mine", "overlay-layers"]);
    assert_eq!(name_of(case.choose(None, &[])), "mine");
}

#[test]
fn a_last_resort_does_not_claim_a_store_unless_it_is_preferred() {
    let case = Case::new(&["overlay", "vfs"]).with_directories(&["vfs"]);
    assert_eq!(name_of(case.choose(None, &[])), "overlay");
    assert_eq!(name_of(case.choose(None, &["vfs", "overlay"])), "vfs");
}

#[test]
fn several_drivers_in_one_store_are_an_error_with_gos_sentence() {
    let case = Case::new(&["overlay", "vfs"]).with_directories(&["vfs", "overlay"]);
    let error = case.choose(None, &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DriverMismatch);
    let expected = format!(
        "{} contains several valid graphdrivers: overlay, vfs; Please cleanup or explicitly \
         choose storage driver (-s <DRIVER>)",
        case.root.path().display()
    );
    assert_eq!(error.to_string(), expected);
    assert_eq!(case.opened(), "");
}

#[test]
fn what_cannot_work_here_is_passed_over_and_named() {
    let mut case = Case::new(&["overlay", "vfs"]);
    case.unsuitable = vec!["overlay"];
    let selected = case.choose(None, &[]).unwrap();
    assert_eq!(selected.driver.name(), "vfs");
    assert_eq!(
        selected.reason,
        "first of the priority list that can be used (overlay: the kernel lacks it; \
         btrfs: not installed; zfs: not installed)"
    );
    assert_eq!(name_of(case.choose(None, &["nonsense", "vfs"])), "vfs");
}

#[test]
fn what_fails_otherwise_ends_the_search() {
    let mut case = Case::new(&["overlay", "vfs"]);
    case.broken = vec!["overlay"];
    let error = case.choose(None, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot open driver `overlay`: the kernel lacks it"
    );
    assert_eq!(case.opened(), "overlay");
}

#[test]
fn the_last_chance_is_any_other_driver_and_then_gos_sentence() {
    let mut case = Case::new(&["mine"]);
    assert_eq!(name_of(case.choose(None, &[])), "mine");
    case.unsuitable = vec!["mine"];
    let error = case.choose(None, &[]).unwrap_err();
    assert_eq!(error.to_string(), "no supported storage backend found");
    let remedy = error.remedy().unwrap();
    assert!(remedy.contains("mine: the kernel lacks it"), "{remedy}");
}
