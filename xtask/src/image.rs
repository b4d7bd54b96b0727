// SPDX-License-Identifier: Apache-2.0
//! Makes a small runnable image as an OCI layout directory, from this machine's static busybox.

use std::{fs, io::Cursor, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::run;

const BUSYBOX: &str = "/bin/busybox";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Writes a two-layer image to `directory`: busybox with its applets, and a greeting on top.
pub(crate) fn write_layout(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory.join("blobs/sha256")).context("cannot make the layout")?;
    let layers = [base_layer()?, greeting_layer()?];
    let descriptors = layers
        .iter()
        .map(|tar| blob(directory, LAYER, tar))
        .collect::<Result<Vec<_>>>()?;
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": { "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": layers.iter().map(|t| digest(t)).collect::<Vec<_>>() },
        "history": [{ "created_by": "busybox" }, { "created_by": "greeting" }],
    });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": blob(directory, CONFIG, config.to_string().as_bytes())?,
        "layers": descriptors,
    });
    let manifest = blob(directory, MANIFEST, manifest.to_string().as_bytes())?;
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest] });
    fs::write(directory.join("index.json"), index.to_string()).context("cannot write the index")?;
    let layout = json!({ "imageLayoutVersion": "1.0.0" });
    fs::write(directory.join("oci-layout"), layout.to_string()).context("cannot write the layout")
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(bytes: &[u8]) -> String {
    format!(
        "sha256:{}",
        data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
    )
}

fn blob(directory: &Path, media_type: &str, bytes: &[u8]) -> Result<Value> {
    let digest = digest(bytes);
    let path = directory.join("blobs").join(digest.replace(':', "/"));
    fs::write(&path, bytes).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
}

struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn entry(&mut self, name: &str, kind: tar::EntryType, mode: u32, data: &[u8]) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        header.set_mtime(1_700_000_000);
        self.0.append_data(&mut header, name, Cursor::new(data))?;
        Ok(())
    }

    fn directory(&mut self, name: &str, mode: u32) -> Result<()> {
        self.entry(name, tar::EntryType::Directory, mode, &[])
    }

    fn file(&mut self, name: &str, mode: u32, data: &[u8]) -> Result<()> {
        self.entry(name, tar::EntryType::Regular, mode, data)
    }

    fn link(&mut self, name: &str, target: &str) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        header.set_mtime(1_700_000_000);
        self.0.append_link(&mut header, name, target)?;
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }
}

fn base_layer() -> Result<Vec<u8>> {
    let busybox = fs::read(BUSYBOX).with_context(|| format!("cannot read `{BUSYBOX}`"))?;
    let applets = run::output(run::command(BUSYBOX, ["--list"]))?;
    let mut layer = Layer::new();
    for (name, mode) in [
        ("bin/", 0o755),
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("proc/", 0o555),
        ("sys/", 0o555),
        ("tmp/", 0o1777),
    ] {
        layer.directory(name, mode)?;
    }
    layer.file("bin/busybox", 0o755, &busybox)?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        layer.link(&format!("bin/{applet}"), "busybox")?;
    }
    layer.file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n")?;
    layer.file("etc/group", 0o644, b"root:x:0:\n")?;
    layer.finish()
}

fn greeting_layer() -> Result<Vec<u8>> {
    let mut layer = Layer::new();
    layer.directory("etc/", 0o755)?;
    layer.file("etc/greeting", 0o644, b"hello from a layer\n")?;
    layer.finish()
}
