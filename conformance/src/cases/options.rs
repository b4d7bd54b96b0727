// SPDX-License-Identifier: Apache-2.0
//! Options of the driver and of a layer.

use std::collections::BTreeSet;

use plywood::{
    Error, ErrorKind,
    plugin::DriverHandle,
    sdk::{Capabilities, CreateRequest},
};

use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, bare, case, demand, same},
    target::{layer_id, new_layer},
};

pub(super) const CASES: &[Case] = &[
    bare("GD-OPT-001", unknown),
    bare("GD-OPT-002", foreign),
    bare("GD-OPT-003", unknown_driver),
    bare("GD-OPT-004", bad_values),
    bare("GD-OPT-005", defaults),
    bare("GD-OPT-006", twice),
    case("GD-OPT-007", of_layers),
    case("GD-OPT-008", status),
];

/// The driver of which the suite pretends to know that it exists.
const OTHER: &str = "another-driver";

/// Opens the driver with the site's options and `more`.
fn open(site: &Site, more: &[&str]) -> Result<DriverHandle, Error> {
    let mut request = site.request()?;
    let own = site.source.name()?;
    request.known_drivers = vec![own, OTHER.to_owned()];
    request.options.extend(more.iter().map(ToString::to_string));
    site.driver_with(request)
}

/// Whether the refusal says what it is about.
fn names(error: &Error, word: &str) -> bool {
    error.to_string().contains(word) || error.about().is_some_and(|about| about.contains(word))
}

/// What options can change of what is seen from outside.
type Seen = (Capabilities, BTreeSet<(String, String)>);

fn seen(site: &Site, more: &[&str]) -> Result<Seen, Error> {
    let driver = open(site, more)?;
    let seen = (
        driver.capabilities().clone(),
        driver.status()?.into_iter().collect(),
    );
    driver.close()?;
    Ok(seen)
}

/// The same without what changes by itself: what is free or used on a file system.
fn lasting(site: &Site, more: &[&str]) -> Result<Seen, Error> {
    let (declared, status) = seen(site, more)?;
    let status = status.into_iter();
    let status = status.map(|(key, value)| (key, without_amounts(&value)));
    Ok((declared, status.collect()))
}

/// A value of a status, if it is no amount.
fn without_amounts(value: &str) -> String {
    let unit = value.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let is_amount = unit.len() < value.len()
        && ["", "B", "K", "M", "G", "T", "P", "E"].contains(&unit.trim_end_matches("iB").trim());
    if is_amount {
        "an amount".to_owned()
    } else {
        value.to_owned()
    }
}

/// Demands that `option` is refused as an argument, with its name in the refusal.
fn refused(site: &Site, option: &str) -> Outcome {
    let key = option.split('=').next().unwrap_or(option);
    match open(site, &[option]) {
        Ok(driver) => {
            driver.close()?;
            demand!(false, "the option `{option}` was accepted");
        }
        Err(error) => {
            let text = error.to_string();
            same!(
                ErrorKind::InvalidArgument,
                error.kind(),
                "the kind of the refusal of `{option}`: {text}"
            );
            let bare = key.rsplit('.').next().unwrap_or(key);
            demand!(
                names(&error, bare),
                "the refusal of `{option}` does not name it: {text}"
            );
        }
    }
    Ok(())
}

fn unknown(site: &Site) -> Outcome {
    let own = site.source.name()?;
    for option in [
        "no-such-option=1".to_owned(),
        format!("{own}.no-such-option=1"),
        format!("{own}.no.such.option="),
    ] {
        refused(site, &option)?;
    }
    // A refusal is no reason to refuse the next one.
    open(site, &[])?.close()?;
    Ok(())
}

fn foreign(site: &Site) -> Outcome {
    let plain = lasting(site, &[])?;
    let option = format!("{OTHER}.no-such-option=1");
    same!(
        plain,
        lasting(site, &[&option])?,
        "what is declared and reported beside `{option}`"
    );
    Ok(())
}

fn unknown_driver(site: &Site) -> Outcome {
    let driver = "nobody-has-this-driver";
    let option = format!("{driver}.size=1");
    match open(site, &[&option]) {
        Ok(opened) => {
            opened.close()?;
            demand!(false, "the option `{option}` was accepted");
        }
        Err(error) => {
            same!(
                ErrorKind::InvalidArgument,
                error.kind(),
                "the kind of the refusal of `{option}`: {error}"
            );
            demand!(
                names(&error, driver),
                "the refusal of `{option}` does not name the driver: {error}"
            );
        }
    }
    Ok(())
}

/// Values that no driver can accept for options that several have; one that has not got the option
/// refuses its name.
const BAD: &[&str] = &[
    "size=-1",
    "size=ten",
    "size=1.5.5g",
    "size=99999999999999999999",
    "inodes=-1",
    "inodes=1.5",
    "min_space=-1g",
    "sync=perhaps",
    "ignore_chown_errors=perhaps",
    "skip_mount_home=2",
    "force_mask=9",
    "force_mask=77777",
    "imagestore=relative/path",
    "imagestore=/no/such/directory",
    "mount_program=/no/such/program",
    "size",
    "",
    "=",
    "=1",
];

fn bad_values(site: &Site) -> Outcome {
    for option in BAD {
        refused(site, option)?;
    }
    Ok(())
}

fn defaults(site: &Site) -> Outcome {
    let first = lasting(site, &[])?;
    same!(first, lasting(site, &[])?, "what is declared and reported");
    let elsewhere = site.at(site.scratch("elsewhere")?);
    let keys = |seen: &Seen| -> Vec<String> {
        let pairs = seen.1.iter();
        pairs.map(|(name, _)| name.clone()).collect()
    };
    let other = lasting(&elsewhere, &[])?;
    same!(first.0, other.0, "what is declared on another root");
    same!(
        keys(&first),
        keys(&other),
        "the names of what is reported on another root"
    );
    Ok(())
}

/// Options that several drivers have, each with two values that differ.
const PAIRS: &[(&str, &str, &str)] = &[
    ("sync", "none", "filesystem"),
    ("ignore_chown_errors", "true", "false"),
    ("skip_mount_home", "true", "false"),
    ("force_mask", "0700", "0755"),
    ("mountopt", "nodev", "nosuid"),
    ("size", "1g", "2g"),
    ("fallback", "copy", "refuse"),
];

/// What is seen with the second of two options alone and with both, without what changes by itself:
/// how much is free where others write too.
fn settled(
    site: &Site,
    options: [&str; 2],
    (mut last, mut both): (Seen, Seen),
) -> Result<(Seen, Seen), Failure> {
    const ROUNDS: usize = 5;
    let mut restless = BTreeSet::new();
    for _ in 0..ROUNDS {
        if last == both {
            break;
        }
        let again = seen(site, &options[1..])?;
        let changed = again.1.symmetric_difference(&last.1);
        restless.extend(changed.map(|(key, _)| key.clone()));
        last = again;
        both = seen(site, &options)?;
        for seen in [&mut last, &mut both] {
            seen.1.retain(|(key, _)| !restless.contains(key));
        }
    }
    Ok((last, both))
}

fn twice(site: &Site) -> Outcome {
    for (key, one, other) in PAIRS {
        let (one, other) = (format!("{key}={one}"), format!("{key}={other}"));
        let alone = [&one, &other].map(|option| seen(site, &[option]));
        for (first, second, last) in [(&one, &other, &alone[1]), (&other, &one, &alone[0])] {
            let both = seen(site, &[first, second]);
            match (last, both) {
                (Ok(last), Ok(both)) => {
                    let (last, both) = settled(site, [first, second], (last.clone(), both))?;
                    same!(
                        last,
                        both,
                        "what is seen with `{first}` and then `{second}`"
                    );
                }
                (_, Err(error)) => {
                    demand!(
                        error.kind() != ErrorKind::Driver,
                        "`{first}` and then `{second}` is no orderly refusal: {error}"
                    );
                }
                (Err(error), Ok(_)) => {
                    demand!(
                        false,
                        "`{second}` alone is refused ({error}), but accepted after `{first}`"
                    );
                }
            }
        }
        if let [Ok(_), Ok(_)] = &alone {
            let orders = [[&one, &other], [&other, &one]].map(|[a, b]| seen(site, &[a, b]));
            same!(
                orders[0].is_ok(),
                orders[1].is_ok(),
                "whether `{key}` can be given twice, in either order"
            );
        }
    }
    Ok(())
}

fn of_layers(target: &mut Target) -> Outcome {
    let mut request = CreateRequest::new(layer_id("limited"), None);
    let options = &mut request.storage_options;
    options.insert("no-such-option".to_owned(), "1".to_owned());
    let mut answers = vec![("create", target.driver.create(&request).err())];
    if target.driver.capabilities().staging {
        answers.push(("stage", target.driver.stage(&request).err()));
    }
    let mut new = new_layer("limited", None);
    new.storage_options.clone_from(&request.storage_options);
    answers.push((
        "creating a layer of the store",
        target.create_with(&new).err(),
    ));
    for (operation, error) in answers {
        let Some(error) = error else {
            return Err(Failure::new(format!(
                "`{operation}` accepted the option `no-such-option`"
            )));
        };
        same!(
            ErrorKind::InvalidArgument,
            error.kind(),
            "the kind of the refusal by `{operation}`: {error}"
        );
        demand!(
            names(&error, "no-such-option"),
            "the refusal by `{operation}` does not name the option: {error}"
        );
    }
    demand!(!target.driver.exists(&request.id)?, "a layer was left");
    demand!(target.layers()?.is_empty(), "a record was left");
    if target.driver.capabilities().list {
        same!(0, target.driver.list()?.len(), "how many layers are listed");
    }
    Ok(())
}

fn status(target: &mut Target) -> Outcome {
    let before = target.driver.status()?;
    let printable = |text: &str| !text.chars().any(char::is_control);
    let mut keys = BTreeSet::new();
    for (key, value) in &before {
        demand!(keys.insert(key), "`{key}` is reported twice");
        demand!(
            !key.trim().is_empty() && printable(key),
            "{key:?} is no line that can be printed"
        );
        demand!(
            printable(value),
            "the value of `{key}` is no line that can be printed: {value:?}"
        );
    }
    target.create("one", None)?;
    target.mount("one", &plywood::sdk::MountRequest::default())?;
    let keys_of = |pairs: &[(String, String)]| -> Vec<String> {
        let pairs = pairs.iter();
        pairs.map(|(key, _)| key.clone()).collect()
    };
    let after = target.driver.status()?;
    same!(
        keys_of(&before),
        keys_of(&after),
        "what is reported when there are layers"
    );
    target.unmount("one")?;
    Ok(())
}
