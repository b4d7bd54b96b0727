// SPDX-License-Identifier: Apache-2.0
//! The list of changes from zfs is the list of a walk.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use plywood::{
    archive::walk::{self, Change, DiffMaps},
    mount,
};
use plywood_plugin_sdk::{ChangeKind, DiffView, Driver, IdMaps, MountRequest, NativeChange};

use crate::{
    script::{Random, edit, fill},
    support::{Store, Warnings, container, id, layer, look},
};

static NONE: IdMaps = IdMaps {
    uids: Vec::new(),
    gids: Vec::new(),
};
const PLAIN: DiffMaps<'static> = DiffMaps {
    layer: &NONE,
    parent: &NONE,
};

struct Lists {
    native: Vec<NativeChange>,
    checked: Vec<Change>,
    walked: Vec<Change>,
}

fn lists(driver: &dyn Driver, name: &str, parent: &str) -> Lists {
    let (layer, below) = (id(name), id(parent));
    let native = driver.native_changes(&layer, Some(&below)).unwrap();
    let view = driver.diff_view(&layer, Some(&below)).unwrap();
    let DiffView::Trees {
        tree,
        parent: Some(parent),
    } = &view
    else {
        panic!("there are two trees");
    };
    let checked = walk::changes_from_native(tree, parent, &native, &PLAIN).unwrap();
    let walked = walk::changes(&view, &PLAIN).unwrap();
    for directory in [tree, parent] {
        driver.let_go(directory).unwrap();
    }
    Lists {
        native,
        checked,
        walked,
    }
}

/// A number that the environment may set.
fn setting(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test's own switches")]
    let given = std::env::var(name);
    given.map_or(default, |text| text.parse().unwrap())
}

/// How many scripts one comparison sees, each in a directory of its own: a comparison takes ten
/// seconds on a machine that is emulated.
const TOGETHER: u64 = 10;

/// Makes a base and what starts as a copy of it, or of a sibling.
fn prepare(driver: &dyn Driver, round: u64) {
    for left in driver.list().unwrap().iter().rev() {
        driver.remove(left).unwrap();
    }
    driver.create(&layer("base", None)).unwrap();
    {
        let base = look(driver, "base");
        for script in 0..TOGETHER {
            let place = base.tree.join(script.to_string());
            fs::create_dir(&place).unwrap();
            fill(&place, &mut Random::new(round * TOGETHER + script + 1));
        }
    }
    let mut request = container("top", Some("base"));
    if round % 4 == 3 {
        driver.create(&layer("origin", Some("base"))).unwrap();
        let origin = look(driver, "origin");
        edit(&origin.tree.join("0"), &mut Random::new(round + 1));
        request.template = Some(id("origin"));
    }
    driver.create(&request).unwrap();
}

/// Runs the scripts of a round.
fn edits(driver: &dyn Driver, round: u64) -> Vec<String> {
    let (base, top) = (look(driver, "base"), look(driver, "top"));
    let mut log = Vec::new();
    for script in 0..TOGETHER {
        let mut random = Random::new(1000 + round * TOGETHER + script);
        for _ in 0..random.below(20) {
            // A parent that is written to afterwards is no good idea, and possible.
            let changes_parent = round % 4 == 1 && random.below(4) == 0;
            let tree = if changes_parent {
                &base.tree
            } else {
                &top.tree
            };
            log.push(edit(&tree.join(script.to_string()), &mut random));
        }
    }
    log
}

#[test]
#[ignore = "needs zfs: `cargo xtask zfs` runs it"]
fn root_random_edits_are_found_as_a_walk_finds_them() {
    let store = Store::new();
    let host = Arc::new(Warnings::default());
    let driver = store.open_for(Arc::clone(&host));
    let rounds = setting("PLYWOOD_SCRIPTS", 20).div_ceil(TOGETHER);
    let end = Instant::now() + Duration::from_secs(setting("PLYWOOD_SECONDS", 7200));
    let mut done = 0;
    for round in (0..rounds).take_while(|_| Instant::now() < end) {
        prepare(&*driver, round);
        let log = edits(&*driver, round);
        let found = lists(&*driver, "top", "base");
        assert!(
            found.checked == found.walked,
            "round {round}:\n{}\nnative: {:#?}\nfound: {:#?}\nwalked: {:#?}",
            log.join("\n"),
            found.native,
            found.checked,
            found.walked,
        );
        done += 1;
    }
    let whole = host.warnings().len() as u64;
    println!(
        "{} scripts; {whole} of {done} lists were those of a walk",
        done * TOGETHER
    );
    assert!(done > 0 && whole * 2 <= done);
}

/// A list that names everything would be as right as one that names what changed.
#[test]
#[ignore = "needs zfs: `cargo xtask zfs` runs it"]
fn root_few_changes_are_a_short_list_however_much_is_there() {
    let store = Store::new();
    let host = Arc::new(Warnings::default());
    let driver = store.open_for(Arc::clone(&host));
    driver.create(&layer("base", None)).unwrap();
    {
        let base = look(&*driver, "base");
        for directory in 0..20 {
            let directory = base.tree.join(format!("d{directory}"));
            fs::create_dir(&directory).unwrap();
            for file in 0..20 {
                fs::write(directory.join(format!("f{file}")), "text").unwrap();
            }
        }
        fs::hard_link(base.tree.join("d5/f5"), base.tree.join("d6/link")).unwrap();
    }
    driver.create(&container("top", Some("base"))).unwrap();
    let none = driver.native_changes(&id("top"), Some(&id("base")));
    assert_eq!(none.unwrap(), []);
    {
        let top = look(&*driver, "top");
        fs::write(top.tree.join("d1/f1"), "other").unwrap();
        fs::write(top.tree.join("d2/new\n \\"), "new").unwrap();
        fs::remove_file(top.tree.join("d3/f3")).unwrap();
        fs::rename(top.tree.join("d4"), top.tree.join("moved")).unwrap();
        fs::write(top.tree.join("d5/f5"), "linked").unwrap();
    }
    // It is mounted, as a container's layer usually is.
    let plan = driver.mount_plan(&id("top"), &MountRequest::default());
    let plan = plan.unwrap();
    let seen = mount::execute(&plan).unwrap();
    let found = lists(&*driver, "top", "base");
    mount::undo(&plan, &seen).unwrap();
    assert_eq!(found.checked, found.walked);
    assert_eq!(host.warnings(), Vec::<String>::new());
    let named: Vec<_> = found
        .native
        .iter()
        .map(|it| (it.path.to_str().unwrap(), it.kind))
        .collect();
    let expected = [
        ("d1/f1", ChangeKind::Modify),
        ("d2", ChangeKind::Modify),
        ("d2/new\n \\", ChangeKind::Add),
        ("d3", ChangeKind::Modify),
        ("d3/f3", ChangeKind::Delete),
        ("d4", ChangeKind::Delete),
        ("d5/f5", ChangeKind::Modify),
        ("d6/link", ChangeKind::Modify),
        ("moved", ChangeKind::Add),
    ];
    assert_eq!(named, expected);
    let all = driver.native_changes(&id("base"), None).unwrap();
    assert_eq!(all.len(), 20 + 400 + 1);
}
