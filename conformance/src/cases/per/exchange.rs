// SPDX-License-Identifier: Apache-2.0
//! The same store for containers/storage, where that has a driver of the same name.

use std::{fs, io, path::Path, process::Command};

use super::{unmount_all, usable};
use crate::{
    Case, Site,
    case::{Failure, Outcome, bare, demand, same},
    cases::lifecycle::sample,
    excuses, manifest,
    tar_file::TarFile,
};

pub(in crate::cases) const CASES: &[Case] = &[
    bare("GD-PER-008", written_by_go),
    bare("GD-PER-009", read_by_go),
];

const TOOL: &str = "containers-storage";

/// The tool of containers/storage on the case's store.
struct Go<'a>(&'a Site);

impl Go<'_> {
    /// Finds out whether it is there and knows the driver.
    fn find(site: &Site) -> Result<Go<'_>, Failure> {
        let asked = site.at(site.scratch("asked")?);
        let output = match Go(&asked).command("layers")?.output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::not_run(format!(
                    "there is no `{TOOL}`: install the package that has it"
                )));
            }
            output => output?,
        };
        unmount_all(&asked)?;
        if output.status.success() {
            return Ok(Go(site));
        }
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let name = site.source.name()?;
        if text.contains("not supported") {
            return Err(Failure::not_applicable(
                excuses::NOT_IN_GO,
                format!("{TOOL} has no driver `{name}` for this file system"),
            ));
        }
        Err(Failure::harness(format!("{TOOL} with `{name}`: {text}")))
    }

    fn command(&self, operation: &str) -> Result<Command, Failure> {
        let configuration = self.0.root.join("storage.conf");
        let name = self.0.source.name()?;
        fs::write(&configuration, format!("[storage]\ndriver = \"{name}\"\n"))?;
        let mut command = Command::new(TOOL);
        command
            .env("CONTAINERS_STORAGE_CONF", configuration)
            .env_remove("STORAGE_OPTS")
            .arg(operation)
            .arg("--graph")
            .arg(self.0.root.join("graph"))
            .arg("--run")
            .arg(self.0.root.join("run"))
            .arg("--storage-driver")
            .arg(name);
        Ok(command)
    }

    fn run(&self, operation: &str, arguments: &[&str]) -> Result<Vec<u8>, Failure> {
        let output = self.command(operation)?.args(arguments).output()?;
        demand!(
            output.status.success(),
            "`{TOOL} {operation} {}` failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(output.stdout)
    }
}

fn child_tar() -> Vec<u8> {
    TarFile::new()
        .whiteout(".wh.plain")
        .directory("d/")
        .whiteout("d/.wh..wh..opq")
        .file("d/of-child", b"child")
        .done()
}

fn written_by_go(site: &Site) -> Outcome {
    let go = Go::find(site)?;
    let place = site.scratch("tars")?;
    let import = |id: &str, parent: &[&str], tar: &[u8]| -> Outcome {
        let file = place.join(format!("{id}.tar"));
        fs::write(&file, tar)?;
        let file = file.display().to_string();
        let arguments = [&["--id", id, "--file", &file], parent].concat();
        go.run("import-layer", &arguments).map(drop)
    };
    import("base", &[], &sample())?;
    import("child", &["base"], &child_tar())?;
    go.run("create-layer", &["--id", "top", "child"])?;
    unmount_all(site)?;
    let target = site.open()?;
    let layers: Vec<_> = target
        .layers()?
        .into_iter()
        .map(|layer| (layer.id, layer.parent))
        .collect();
    let some = |id: &str| Some(id.to_owned());
    same!(
        vec![
            ("base".to_owned(), None),
            ("child".to_owned(), some("base")),
            ("top".to_owned(), some("child")),
        ],
        layers,
        "the layers of a store that containers/storage wrote"
    );
    for (id, tar) in [("base", sample()), ("child", child_tar())] {
        demand!(
            target.diff(id)? == tar,
            "the diff of `{id}` is not the stream that containers/storage imported"
        );
    }
    let child = target.manifest("child")?;
    demand!(
        child.has("d/of-child") && !child.has("plain") && !child.has("d/e"),
        "the layer with deletions shows {child}"
    );
    let differences = child
        .without_root_time()
        .differences(&target.manifest("top")?.without_root_time());
    demand!(
        differences.is_empty(),
        "an empty child differs: {differences:?}"
    );
    usable(&target, "top")?;
    // Both go on with it.
    target.put("ours", Some("child"), &sample())?;
    target.close()?;
    let listed = String::from_utf8_lossy(&go.run("layers", &[])?).into_owned();
    demand!(
        listed.contains("ours"),
        "containers/storage does not list the new layer: {listed}"
    );
    go.run("delete-layer", &["ours"])?;
    unmount_all(site)
}

fn read_by_go(site: &Site) -> Outcome {
    let go = Go::find(site)?;
    let target = site.open()?;
    target.put("base", None, &sample())?;
    target.put("child", Some("base"), &child_tar())?;
    target.create_writable("top", Some("child"))?;
    target.within("top", |path| {
        Ok::<_, Failure>(fs::write(path.join("written"), "written")?)
    })?;
    let expected = target.manifest("top")?.without_root_time();
    target.close()?;
    let listed = String::from_utf8_lossy(&go.run("layers", &["--json"])?).into_owned();
    for id in ["base", "child", "top"] {
        demand!(
            listed.contains(&format!("\"id\":\"{id}\"")),
            "containers/storage does not list `{id}`: {listed}"
        );
    }
    let place = String::from_utf8_lossy(&go.run("mount", &["top"])?).into_owned();
    let seen = manifest::of(Path::new(place.trim()))?.without_root_time();
    go.run("unmount", &["top"])?;
    let differences = expected.differences(&seen);
    demand!(
        differences.is_empty(),
        "containers/storage shows something else when it mounts the layer: {}",
        differences.join("; ")
    );
    for (id, tar) in [("base", sample()), ("child", child_tar())] {
        let diff = go.run("diff", &["--uncompressed", id])?;
        demand!(
            diff == tar,
            "the diff of `{id}` by containers/storage is not the stream that was loaded"
        );
    }
    let changes = String::from_utf8_lossy(&go.run("changes", &["top"])?).into_owned();
    demand!(
        changes.contains("/written"),
        "containers/storage does not see the change: {changes}"
    );
    go.run("delete-layer", &["top"])?;
    unmount_all(site)?;
    let target = site.open()?;
    same!(
        2,
        target.layers()?.len(),
        "the layers after containers/storage removed one"
    );
    target.close()?;
    Ok(())
}
