// SPDX-License-Identifier: Apache-2.0
//! Podman's and buildah's images in our hands and ours in theirs, on every driver that works here.

use super::{
    abuse_support::{DRIVERS, check_store},
    podman::BUILD,
    support::{LIST, Place, can_run, podman_script, same},
};

const TOOLS: [&str; 7] = [
    "podman",
    "buildah",
    "unshare",
    "bash",
    "busybox",
    "containers-storage",
    "mkfs.btrfs",
];

/// Podman runs what we load; what it wrote in a container is what we see in the container.
#[test]
fn interop_podman_runs_what_was_loaded_and_we_see_what_it_changed() {
    if !can_run(&TOOLS) {
        return;
    }
    let build = Place::new("overlay");
    podman_script(
        &build,
        &format!("{BUILD} $P save -q --format docker-archive -o da.tar example.com/bb:1"),
    )
    .ok();
    let archive = build.path("da.tar").display().to_string();
    for driver in DRIVERS {
        let place = Place::new(driver);
        place.plywood(&["image", "load", &archive]).ok();
        let answer = podman_script(
            &place,
            &format!(
                "run example.com/bb:1; \
                 $P run --name c --network=none --cgroups=disabled example.com/bb:1 /bin/busybox \
                   sh -c '/bin/busybox rm /data; echo new > /new'; \
                 layer=$($C container -j c | sed 's/.*\"layer\":\"\\([0-9a-f]*\\)\".*/\\1/'); \
                 $C changes $layer; $C diff -u $layer > ours.tar; \
                 containers-storage ${{C#* }} diff -u $layer > theirs.tar; \
                 {LIST}; diff <(list ours.tar) <(list theirs.tar); \
                 $P rm c >/dev/null; $P rmi example.com/bb:1 >/dev/null"
            ),
        )
        .ok();
        assert!(answer.out.starts_with("data\n"), "{driver}: {answer:?}");
        assert!(
            answer.out.contains("Delete \"/data\"\n"),
            "{driver}: {answer:?}"
        );
        assert!(
            answer.out.contains("Add \"/new\"\n"),
            "{driver}: {answer:?}"
        );
        assert_eq!(place.plywood(&["layers"]).ok().out, "", "{driver}");
        check_store(&place, true);
    }
}

/// We mount, list, export and save what podman built and buildah committed.
#[test]
fn interop_images_of_podman_and_buildah_are_mounted_exported_and_saved() {
    if !can_run(&TOOLS) {
        return;
    }
    for driver in DRIVERS {
        let place = Place::new(driver);
        let answer = podman_script(
            &place,
            &format!(
                "{BUILD} B=\"buildah --root $PWD/graph --runroot $PWD/run --storage-driver {driver}\"; \
                 w=$($B from example.com/bb:1); $B add -q $w ctx/data /more >/dev/null; \
                 $B commit -q $w example.com/more:1 >/dev/null; $B rm $w >/dev/null; \
                 m=$($C mount -r example.com/more:1); cat $m/data $m/more; \
                 $C unmount example.com/more:1 >/dev/null; \
                 for l in $($C layers -j | grep -o '\"id\":\"[0-9a-f]*\"' | cut -d'\"' -f4); do \
                   $C diff -u $l | sha256sum >> ours; \
                   containers-storage ${{C#* }} diff -u $l | sha256sum >> theirs; \
                 done; cat ours; echo; cat theirs; \
                 $C image save example.com/more:1 oci-archive:oa.tar >&2; \
                 $P rmi -f -a >/dev/null 2>&1; $P load -q -i oa.tar >/dev/null; \
                 echo; run example.com/more:1 /bin/busybox cat /more"
            ),
        )
        .ok();
        let parts: Vec<&str> = answer.out.split("\n\n").collect();
        assert_eq!(parts.len(), 3, "{driver}: {answer:?}");
        let ours = parts[0].strip_prefix("data\ndata\n").unwrap();
        assert_eq!(ours.lines().count(), 3, "{driver}: {answer:?}");
        same(driver, ours, parts[1]);
        assert_eq!(parts[2], "data\n", "{driver}: {answer:?}");
        check_store(&place, true);
    }
}
