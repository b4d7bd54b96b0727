// SPDX-License-Identifier: Apache-2.0
//! The same store and the same files used by podman, buildah and skopeo.

use super::support::{Answer, Place, can_run, podman_script, same};

const TOOLS: [&str; 4] = ["podman", "skopeo", "unshare", "bash"];

/// A script after which `$P` is podman and `$C` our program, both on the store of `place`.
#[track_caller]
fn script(place: &Place, text: &str) -> Answer {
    podman_script(place, text)
}

/// Makes the image `example.com/bb:1` with podman: busybox in one layer, a file in the next.
pub(super) const BUILD: &str = "mkdir ctx; cp \"$(command -v busybox)\" ctx/busybox; echo data > ctx/data; \
    printf 'FROM scratch\\nCOPY busybox /bin/busybox\\nCOPY data /data\\n\
    CMD [\"/bin/busybox\",\"cat\",\"/data\"]\\n' > ctx/Dockerfile; \
    $P build --layers -q -t example.com/bb:1 ctx >/dev/null 2>build.log || { cat build.log; exit 1; }; ";

#[test]
fn interop_images_go_to_podman_and_back() {
    let tools = [&TOOLS[..], &["busybox", "buildah"]].concat();
    if !can_run(&tools) {
        return;
    }
    let build = Place::new("overlay");
    script(
        &build,
        &format!(
            "{BUILD} $P save -q --format docker-archive -o da.tar example.com/bb:1; \
             $P save -q --format oci-archive -o oa.tar example.com/bb:1; \
             $P save -q --format oci-dir -o oci example.com/bb:1"
        ),
    )
    .ok();
    for file in ["da.tar", "oa.tar", "oci"] {
        let place = Place::new("overlay");
        let from = build.path(file).display().to_string();
        // We load, podman runs.
        let answer = script(
            &place,
            &format!(
                "$C image load {from} >&2; test \"$($P images -q example.com/bb:1 | wc -l)\" = 1; \
                 run example.com/bb:1; $P image inspect --format '{{{{.Digest}}}}' example.com/bb:1"
            ),
        )
        .ok();
        assert!(
            answer.out.starts_with("data\nsha256:"),
            "{file}: {answer:?}"
        );
        // Podman names a directory's image after its path.
        if file == "oci" {
            continue;
        }
        // Podman loads the same: the records are the same but for the layers' times.
        let other = Place::new("overlay");
        script(&other, &format!("$P load -q -i {from} >&2")).ok();
        let [ours, theirs] = [&place, &other].map(|place| {
            let image = place
                .plywood(&["image", "-j", "example.com/bb:1"])
                .ok()
                .json();
            let mut layers = place.plywood(&["layers", "-j"]).ok().json();
            for layer in layers.as_array_mut().unwrap() {
                layer["created"] = serde_json::Value::Null;
            }
            format!("{image:#}\n{layers:#}")
        });
        same(file, &ours, &theirs);
    }
}

#[test]
fn interop_saved_files_are_read_by_podman_and_skopeo() {
    let tools = [&TOOLS[..], &["busybox"]].concat();
    if !can_run(&tools) {
        return;
    }
    let place = Place::new("overlay");
    let answer = script(
        &place,
        &format!(
            "{BUILD} $C image save example.com/bb:1 oci:lay:v1 >&2; \
             $C image save example.com/bb:1 oci-archive:oa.tar >&2; \
             $C image save example.com/bb:1 docker-archive:da.tar >&2; \
             for from in oci:lay:v1 oci-archive:oa.tar docker-archive:da.tar; do \
               skopeo copy -q $from dir:copied >&2; rm -r copied; \
               skopeo inspect --format '{{{{.Digest}}}}' $from; \
             done; \
             id=$($P images -q --no-trunc example.com/bb:1 2>/dev/null); \
             $P rmi -f example.com/bb:1 >/dev/null 2>&1; \
             $P load -q -i oa.tar >/dev/null 2>&1; \
             test \"$($P images -q --no-trunc example.com/bb:1 2>/dev/null)\" = \"$id\"; \
             run example.com/bb:1; $P rmi -f example.com/bb:1 >/dev/null 2>&1; \
             $P load -q -i da.tar >/dev/null 2>&1; run example.com/bb:1; \
             $C images -q | wc -l"
        ),
    )
    .ok();
    let lines: Vec<&str> = answer.out.lines().collect();
    assert_eq!(lines[0], lines[1], "{answer:?}");
    assert_eq!(lines[3..], ["data", "data", "1"], "{answer:?}");
}

#[test]
fn interop_layers_are_shared_with_podman() {
    let tools = [&TOOLS[..], &["busybox", "buildah"]].concat();
    if !can_run(&tools) {
        return;
    }
    let place = Place::new("overlay");
    let answer = script(
        &place,
        &format!(
            "{BUILD} $P save -q --format oci-archive -o oa.tar example.com/bb:1; \
             $C image load -j oa.tar second:1; \
             buildah --root $PWD/graph --runroot $PWD/run --storage-driver overlay from --name w \
               localhost/second:1 >&2; \
             buildah --root $PWD/graph --runroot $PWD/run --storage-driver overlay rm w >&2; \
             run second:1"
        ),
    )
    .ok();
    let (json, rest) = answer.out.split_once('\n').unwrap();
    let loaded: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(loaded[0]["layers_added"], 0, "{answer:?}");
    assert_eq!(loaded[0]["layers_reused"], 2, "{answer:?}");
    assert_eq!(rest, "data\n");
}

#[test]
fn interop_other_forms_of_files_are_loaded() {
    let tools = [&TOOLS[..], &["busybox", "gzip"]].concat();
    if !can_run(&tools) {
        return;
    }
    let place = Place::new("overlay");
    let answer = script(
        &place,
        &format!(
            "{BUILD} $P tag example.com/bb:1 example.com/bb:2 >&2; \
             $P save -q -m -o many.tar example.com/bb:1 example.com/bb:2 >&2; \
             $P save -q -o one.tar example.com/bb:1 >&2; gzip -k one.tar; \
             skopeo copy -q --dest-compress-format zstd docker-archive:one.tar oci:z:v1 >&2; \
             skopeo copy -q docker-archive:one.tar docker-archive:two.tar:q.io/two:9 >&2; \
             again() {{ $P rmi -fa >/dev/null 2>&1; }}; \
             again; $C image load many.tar >&2; $C images | grep name: | sort; run example.com/bb:2; \
             again; $C image load one.tar.gz >&2; run example.com/bb:1; \
             again; $C image load oci:z:v1 zstd >&2; run localhost/zstd; \
             again; $C image load - <two.tar >&2; run q.io/two:9; \
             $C layers -j"
        ),
    )
    .ok();
    let lines: Vec<&str> = answer.out.lines().map(str::trim).collect();
    let expected = [
        "name: example.com/bb:1",
        "name: example.com/bb:2",
        "data",
        "data",
        "data",
        "data",
    ];
    assert_eq!(lines[..6], expected, "{answer:?}");
}
