// SPDX-License-Identifier: Apache-2.0
//! The driver's own operations, killed before each change that they make.

use std::fs;

use plywood::{
    plugin::DriverHandle,
    sdk::{CreateRequest, LayerKind, toolkit},
};

use super::{
    cuts::Cuts,
    oracle::{BASE, DriverStore, Make, NEW, Paths, nothing_mounted, request},
};
use crate::{
    Case, Site,
    case::{Failure, Outcome, bare},
    sweep,
    target::layer_id,
};

pub(super) const CASES: &[Case] = &[
    bare("GD-CRA-001", create).roles(&[("create", create_role), ("create-child", child_role)]),
    bare("GD-CRA-002", template).roles(&[("create-from-template", template_role)]),
    bare("GD-CRA-004", remove).roles(&[("remove", remove_role), ("trash-and-reap", trash_role)]),
    bare("GD-CRA-007", staging).roles(&[("stage-and-adopt", staging_role)]),
    bare("GD-CRA-009", init).roles(&[("open", init_role)]),
    bare("GD-CRA-010", recreate).roles(&[
        ("create", create_role),
        ("create-child", child_role),
        ("remove", remove_role),
    ]),
];

fn swept(site: &Site, operation: impl FnOnce(&DriverHandle) -> Outcome) -> Outcome {
    let driver = site.driver()?;
    sweep::begin()?;
    operation(&driver)
}

fn make_alone(driver: &DriverHandle) -> Outcome {
    Ok(driver.create(&request(None))?)
}

fn make_child(driver: &DriverHandle) -> Outcome {
    Ok(driver.create(&request(Some(BASE)))?)
}

fn create_role(site: &Site, _: &[String]) -> Outcome {
    swept(site, make_alone)
}

fn child_role(site: &Site, _: &[String]) -> Outcome {
    swept(site, make_child)
}

const BOTH: [(&str, Make); 2] = [("create", make_alone), ("create-child", make_child)];

fn create(site: &Site) -> Outcome {
    for (role, make) in BOTH {
        let store = DriverStore::new(site, make)?;
        cuts(site, role).each(|_| store.settle())?;
    }
    Ok(())
}

fn recreate(site: &Site) -> Outcome {
    for (role, make) in BOTH {
        let store = DriverStore::new(site, make)?;
        cuts(site, role).each(|_| store.recreate())?;
    }
    let store = DriverStore::new(site, make_filled)?;
    store.made()?;
    cuts(site, "remove").each(|_| {
        store.recreate()?;
        store.made()
    })
}

fn cuts<'a>(site: &'a Site, role: &'static str) -> Cuts<'a> {
    Cuts {
        site,
        role,
        arguments: &[],
    }
}

const TEMPLATE: &str = "template";

fn from_template() -> CreateRequest {
    let mut request = request(Some(BASE));
    request.template = Some(layer_id(TEMPLATE));
    request
}

fn make_copy(driver: &DriverHandle) -> Outcome {
    let template = layer_id(TEMPLATE);
    if !driver.exists(&template)? {
        let mut request = CreateRequest::new(template.clone(), Some(layer_id(BASE)));
        request.kind = LayerKind::ReadWrite;
        driver.create(&request)?;
        let directory = driver.unpack_target(&template)?.directory;
        fs::write(directory.join("of-the-template"), "template")?;
    }
    Ok(driver.create(&from_template())?)
}

fn template_role(site: &Site, _: &[String]) -> Outcome {
    swept(site, make_copy)
}

fn template(site: &Site) -> Outcome {
    let store = DriverStore::new(site, make_copy)?;
    cuts(site, "create-from-template").each(|_| store.settle())
}

/// Makes a layer with some content, as a removal finds it.
fn make_filled(driver: &DriverHandle) -> Outcome {
    driver.create(&request(Some(BASE)))?;
    let directory = driver.unpack_target(&layer_id(NEW))?.directory;
    fs::create_dir(directory.join("made"))?;
    for name in ["a", "b", "c"] {
        fs::write(directory.join("made").join(name), name)?;
    }
    still(&directory)
}

/// Times that do not depend on when something was made.
fn still(directory: &std::path::Path) -> Outcome {
    let time = nix::sys::time::TimeSpec::new(1_700_000_000, 0);
    for name in ["made/a", "made/b", "made/c", "made"] {
        let path = directory.join(name);
        nix::sys::stat::utimensat(
            nix::fcntl::AT_FDCWD,
            &path,
            &time,
            &time,
            nix::sys::stat::UtimensatFlags::NoFollowSymlink,
        )?;
    }
    Ok(())
}

fn remove_role(site: &Site, _: &[String]) -> Outcome {
    swept(site, |driver| {
        Ok(driver.remove(&layer_id(NEW)).map(drop)?)
    })
}

fn trash_role(site: &Site, _: &[String]) -> Outcome {
    swept(site, |driver| {
        let token = driver.trash(&layer_id(NEW))?;
        let token = token.ok_or_else(|| Failure::new("`trash` found no layer"))?;
        Ok(driver.reap(&token)?)
    })
}

fn remove(site: &Site) -> Outcome {
    let store = DriverStore::new(site, make_filled)?;
    let deferred = site.driver()?.capabilities().deferred_removal;
    let roles = ["remove", "trash-and-reap"];
    for role in roles.into_iter().take(if deferred { 2 } else { 1 }) {
        store.made()?;
        cuts(site, role).each(|point| {
            store.settle_removal()?;
            point.map_or(Ok(()), |_| store.made())
        })?;
    }
    Ok(())
}

fn make_staged(driver: &DriverHandle) -> Outcome {
    let request = request(Some(BASE));
    let staged = driver.stage(&request)?;
    let directory = &staged.target.directory;
    fs::create_dir(directory.join("made"))?;
    for name in ["a", "b", "c"] {
        fs::write(directory.join("made").join(name), name)?;
    }
    still(directory)?;
    if driver.capabilities().sync {
        driver.sync_staged(&staged.token)?;
    }
    if let Err(error) = driver.adopt(&staged.token, &request) {
        driver.discard(&staged.token)?;
        return Err(error.into());
    }
    Ok(())
}

fn staging_role(site: &Site, _: &[String]) -> Outcome {
    swept(site, make_staged)
}

fn staging(site: &Site) -> Outcome {
    let store = DriverStore::new(site, make_staged)?;
    cuts(site, "stage-and-adopt").each(|_| store.settle())
}

fn init_role(site: &Site, _: &[String]) -> Outcome {
    sweep::begin()?;
    drop(site.driver()?);
    Ok(())
}

fn init(site: &Site) -> Outcome {
    let works = |site: &Site| -> Result<Paths, Failure> {
        let driver = site.driver()?;
        make_alone(&driver)?;
        driver.remove(&layer_id(NEW))?;
        driver.recover()?;
        driver.close()?;
        nothing_mounted(site)?;
        Ok(Paths::of(site)?)
    };
    let undisturbed = works(&site.at(site.scratch("undisturbed")?))?;
    let place = site.scratch("cut")?;
    let cut = site.at(&place);
    cuts(&cut, "open").each(|_| {
        undisturbed.unchanged(&works(&cut)?)?;
        // The directory itself stays: on a pool it is the root of a dataset.
        for entry in fs::read_dir(&place)? {
            toolkit::remove_tree(&entry?.path())?;
        }
        Ok(())
    })
}
