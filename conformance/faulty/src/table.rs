// SPDX-License-Identifier: Apache-2.0
//! Every fault: its type, the driver's name, what the driver remembers, what is wrong with it, and
//! the cases that must find it.

/// Calls the macro `$with` with every fault: `Type "name" State "sentence" ["GD-...", ...];`.
///
/// A program links all the drivers in with
///
/// ```
/// macro_rules! embed {
///     ($($fault:ident $name:literal $state:tt $text:literal $cases:tt;)*) => {
///         $(plywood_plugin_sdk::embed_driver!(plywood_conformance_faulty::$fault);)*
///     };
/// }
/// plywood_conformance_faulty::for_each_fault!(embed);
/// ```
#[macro_export]
macro_rules! for_each_fault {
    ($with:ident) => {
        $with! {
            KeepsDeleted "faulty-keeps-deleted" Nothing
                "Leaves what a tar's whiteouts delete where it is."
                ["GD-WHO-011"];
            SaysEmpty "faulty-says-empty" Nothing
                "Says that what a tar is unpacked into is empty when it is not."
                ["GD-WHO-012"];
            BreaksHardLinks "faulty-breaks-hard-links" Nothing
                "Makes an inode of its own of each name when it copies a parent."
                ["GD-FID-004"];
            LosesNanoseconds "faulty-loses-nanoseconds" Nothing
                "Cuts times to whole seconds when it copies a parent."
                ["GD-FID-013"];
            ForgetsXattrs "faulty-forgets-xattrs" Nothing
                "Copies a parent without `user.*` attributes."
                ["GD-FID-008", "GD-FID-028", "GD-DIF-033"];
            LosesOwners "faulty-loses-owners" Nothing
                "Gives every file of a copied parent to root."
                ["GD-FID-002"];
            LosesSetId "faulty-loses-setid" Nothing
                "Sets the owner after the mode when it copies a parent, which clears set-id bits."
                ["GD-FID-001"];
            LosesDevices "faulty-loses-devices" Nothing
                "Copies a parent without its devices."
                ["GD-FID-006", "GD-MNT-022"];
            FollowsSymlinks "faulty-follows-symlinks" Nothing
                "Copies the target of a parent's symbolic link instead of the link."
                ["GD-SEC-009"];
            SharesFiles "faulty-shares-files" Nothing
                "Links to a parent's files instead of copying them."
                ["GD-COW-001"];
            SharesTemplate "faulty-shares-template" Nothing
                "Links to a template's files instead of copying them."
                ["GD-LIF-006"];
            FillsHoles "faulty-fills-holes" Nothing
                "Writes the holes of sparse files out when it copies a parent."
                ["GD-FID-020"];
            CutsFiles "faulty-cuts-files" Nothing
                "Loses the last byte of files that do not end with a page when it copies a parent."
                ["GD-LIF-003"];
            ForeignEntry "faulty-foreign-entry" Nothing
                "Leaves a `lost+found` in the root of every base layer."
                ["GD-FID-025", "GD-DIF-020"];
            OpenRoot "faulty-open-root" Nothing
                "Makes the root of base layers writable for everybody."
                ["GD-LIF-001"];

            IgnoresReadOnly "faulty-ignores-ro" Nothing
                "Mounts writable when it is asked for a read-only mount."
                ["GD-MNT-009"];
            IgnoresMountOptions "faulty-ignores-mount-options" Nothing
                "Drops mount options that it does not know."
                ["GD-MNT-012"];
            MountsElsewhere "faulty-mounts-elsewhere" Nothing
                "Shows layers in the directory for temporary files."
                ["GD-MNT-001"];
            RestlessInodes "faulty-restless-inodes" Nothing
                "Shows copies of a layer's files with inodes of their own at each mount."
                ["GD-MNT-023"];
            NeedsRunDir "faulty-needs-run-dir" Nothing
                "Cannot mount once its run directory was lost."
                ["GD-MNT-019"];
            ShortPaths "faulty-short-paths" Nothing
                "Cannot mount what has a path of more than 512 bytes."
                ["GD-INI-010"];
            VolatileOnce "faulty-volatile-once" Nothing
                "Cannot mount again what was mounted volatile by a process that died."
                ["GD-MNT-015"];
            PrivateView "faulty-private-view" Nothing
                "Shows each process a copy of the layer of its own."
                ["GD-MNT-017"];
            DetachedView "faulty-detached-view" Nothing
                "Shows layers at a place that is in no mount table."
                ["GD-MNT-024"];
            IgnoresBusy "faulty-ignores-busy" Nothing
                "Takes a mount that is in use for unmounted."
                ["GD-MNT-018"];
            FailsIdlePut "faulty-fails-idle-put" Nothing
                "Fails to unmount what is not mounted."
                ["GD-MNT-005", "GD-ERR-012"];
            InventsTrees "faulty-invents-trees" Nothing
                "Shows an empty directory when a layer's tree is lost."
                ["GD-MNT-020"];
            CorruptsSecondMount "faulty-corrupts-second-mount" Ids
                "Empties the layer's files when it is mounted for the second time."
                ["GD-MNT-002", "GD-LIF-015", "GD-DIF-005", "GD-DIF-006", "GD-DIF-014", "GD-CON-004"];
            IgnoresNosuid "faulty-ignores-nosuid" Nothing
                "Accepts the mount options nosuid, nodev and noexec and does nothing with them."
                ["GD-MNT-013"];

            IgnoresIdMaps "faulty-ignores-id-maps" Nothing
                "Mounts a layer by itself with the owners on disk, whatever id maps are asked for."
                ["GD-IDM-008", "GD-IDM-009"];

            IgnoresQuota "faulty-ignores-quota" Nothing
                "Accepts the limit of a layer and does not enforce it."
                ["GD-QUO-001"];
            HalvesQuota "faulty-halves-quota" Nothing
                "Enforces half the limit that a layer was given."
                ["GD-QUO-003"];
            IgnoresInodeLimit "faulty-ignores-inode-limit" Nothing
                "Accepts the limit of a layer's inodes and does not enforce it."
                ["GD-QUO-004"];

            LeaksMount "faulty-leaks-mount" Nothing
                "Leaves a mount behind for each layer it makes."
                ["GD-LEK-001"];
            LeaksDescriptor "faulty-leaks-descriptor" Nothing
                "Leaves a file open for each layer it makes."
                ["GD-LEK-002"];
            InheritsDescriptor "faulty-inherits-descriptor" Descriptors
                "Has a file open that programs inherit which are started meanwhile."
                ["GD-CON-014"];
            HoardsMemory "faulty-hoards-memory" Memory
                "Keeps memory for each layer it makes until it is closed."
                ["GD-LEK-007"];
            KeepsHomeMounted "faulty-keeps-home-mounted" Nothing
                "Mounts its home on itself and leaves that so when it is closed."
                ["GD-LEK-008"];
            LeaksLoopDevice "faulty-leaks-loop-device" Nothing
                "Leaves a loop device behind for each layer it makes."
                ["GD-LEK-003"];
            LeavesThread "faulty-leaves-thread" Nothing
                "Leaves a thread running when it is closed."
                ["GD-LEK-005"];
            LeavesProcess "faulty-leaves-process" Nothing
                "Leaves a child process running when it is closed."
                ["GD-LEK-005"];
            LittersTmp "faulty-litters-tmp" Nothing
                "Leaves a file in the directory for temporary files for each layer it makes."
                ["GD-LEK-006"];
            LittersGraphRoot "faulty-litters-graph-root" Nothing
                "Writes a file beside its home for each layer it makes."
                ["GD-LEK-006"];
            KeepsSpace "faulty-keeps-space" Nothing
                "Hides removed layers instead of deleting them."
                ["GD-LIF-013"];

            FoldsCase "faulty-folds-case" Nothing
                "Takes ids that differ in case for the same layer."
                ["GD-IDS-003"];
            CutsIds "faulty-cuts-ids" Nothing
                "Uses the first 64 characters of an id only."
                ["GD-IDS-004"];

            AcceptsUnknownParent "faulty-accepts-unknown-parent" Nothing
                "Makes a base layer when the parent does not exist."
                ["GD-ERR-005"];
            ReplacesExisting "faulty-replaces-existing" Nothing
                "Replaces a layer that is created again."
                ["GD-ERR-006"];
            FailsToRemoveUnknown "faulty-fails-remove-unknown" Nothing
                "Fails to remove a layer that is not there."
                ["GD-ERR-002"];
            AnswersUndeclared "faulty-answers-undeclared" Nothing
                "Lists its layers without declaring that it can."
                ["GD-ERR-021", "GD-LIF-009"];
            RefusesSync "faulty-refuses-sync" Nothing
                "Declares that it can sync a layer and answers that it cannot."
                ["GD-ERR-022"];
            HalfCreates "faulty-half-creates" Nothing
                "Leaves a layer behind when its disk is full while it copies the parent."
                ["GD-ERR-015"];
            Panics "faulty-panics" Nothing
                "Panics when it is asked for the metadata of a layer."
                ["GD-LIF-023", "GD-LIF-027"];
            Crashes "faulty-crashes" Nothing
                "Kills its process when it is asked for the metadata of a layer."
                ["GD-LIF-023"];
            Deadlocks "faulty-deadlocks" Lock
                "Waits for itself when it removes a layer."
                ["GD-LIF-012"];
            FailsSecondClose "faulty-fails-second-close" Flag
                "Fails to be closed twice."
                ["GD-LIF-026"];
            LocksItselfOut "faulty-locks-itself-out" Nothing
                "Cannot be opened when opening it was interrupted before."
                ["GD-CRA-009"];
            LongErrors "faulty-long-errors" Nothing
                "Explains a missing layer in a megabyte of text."
                ["GD-ERR-014"];

            ExistsLies "faulty-exists-lies" Nothing
                "Says that every layer exists."
                ["GD-LIF-008"];
            ListsDeleted "faulty-lists-deleted" Ids
                "Lists layers that were removed."
                ["GD-LIF-009"];
            RemovesParent "faulty-removes-parent" Requests
                "Removes the parent together with a layer."
                ["GD-LIF-012"];
            RemembersDeleted "faulty-remembers-deleted" Nothing
                "Brings the old content back when an id is used again."
                ["GD-LIF-014"];
            FollowsLayerLink "faulty-follows-layer-link" Nothing
                "Deletes what a symbolic link in the place of a layer's directory leads to."
                ["GD-SEC-012"];
            UsageIsZero "faulty-usage-zero" Nothing
                "Says that no layer occupies anything."
                ["GD-LIF-024"];
            MetadataOutside "faulty-metadata-outside" Nothing
                "Names a directory outside its home in the metadata."
                ["GD-LIF-023"];
            StatusTwice "faulty-status-twice" Nothing
                "Has one key twice in its status."
                ["GD-OPT-008"];
            ForgetsOnRestart "faulty-forgets-on-restart" Ids
                "Lists only what was made since it was opened."
                ["GD-PER-001"];
            ForgetsTheDeep "faulty-forgets-the-deep" Nothing
                "Loses a file when it copies a parent that stands on more than a hundred layers."
                ["GD-DEP-002", "GD-DEP-004"];
            OverstatesDepth "faulty-overstates-depth" Nothing
                "Declares eight layers more than it takes."
                ["GD-DEP-005"];

            IgnoresStorageOptions "faulty-ignores-layer-options" Nothing
                "Drops options of a layer that it does not know."
                ["GD-OPT-007"];
            IgnoresDriverOptions "faulty-ignores-driver-options" Nothing
                "Drops driver options that it does not know."
                ["GD-OPT-001"];
            RefusesForeignOptions "faulty-refuses-foreign-options" Nothing
                "Refuses to open when there are options for other drivers."
                ["GD-OPT-002"];
            FirstOptionWins "faulty-first-option-wins" Nothing
                "Uses the first of several options of the same name, and checks none but that."
                ["GD-OPT-006"];
            RestlessStatus "faulty-restless-status" Nothing
                "Reports the time in its status."
                ["GD-OPT-005"];
            VagueRefusal "faulty-vague-refusal" Nothing
                "Does not say that it lacks permission when a user without rights opens it."
                ["GD-INI-004"];
            OpenHome "faulty-open-home" Nothing
                "Lets everybody write to its home."
                ["GD-INI-013"];

            WritesStdout "faulty-writes-stdout" Nothing
                "Writes to standard output for each layer it makes."
                ["GD-ABI-028"];
            ChangesUmask "faulty-changes-umask" Nothing
                "Sets the process's umask to make a layer and leaves it so."
                ["GD-ABI-026"];
            ChangesDirectory "faulty-changes-directory" Nothing
                "Changes to its home to make a layer and stays there."
                ["GD-ABI-026"];
            SharesState "faulty-shares-state" Nothing
                "Keeps the ids of its layers for all stores of the process."
                ["GD-ABI-014"];

            DiffsAgainstNothing "faulty-diffs-against-nothing" Nothing
                "Compares a layer with the empty tree instead of with its parent."
                ["GD-DIF-003", "GD-DIF-018", "GD-DIF-044"];
            ForgetsDeletions "faulty-forgets-deletions" Nothing
                "Leaves deleted paths out of its list of changes."
                ["GD-DIF-001", "GD-DIF-011", "GD-DIF-012", "GD-DIF-040"];

            StagesInSight "faulty-stages-in-sight" Nothing
                "Shows a staged layer before it is adopted."
                ["GD-DIF-049"];
            DiscardsNothing "faulty-discards-nothing" Nothing
                "Keeps what is staged when it is to be discarded."
                ["GD-DIF-050"];
            AdoptReplaces "faulty-adopt-replaces" Nothing
                "Replaces an existing layer by a staged one."
                ["GD-DIF-052"];
            TrashesNothing "faulty-trashes-nothing" Nothing
                "Leaves a layer usable until what was to be thrown away is reaped."
                ["GD-LIF-021"];
            RecoversTheLiving "faulty-recovers-the-living" Nothing
                "Deletes the staged places of living processes when it recovers."
                ["GD-CRA-013"];
            RecoversNothing "faulty-recovers-nothing" Nothing
                "Leaves what dead processes staged or threw away."
                ["GD-LIF-022"];

            TakesFiles "faulty-takes-files" Nothing
                "Moves the files of a layer source into the layer that refers to it."
                ["GD-ALS-004"];
            KeepsExternalDeletions "faulty-keeps-external-deletions" Nothing
                "Leaves what a layer of a layer source deletes where it is."
                ["GD-ALS-009"];
            ForgetsSource "faulty-forgets-source" Nothing
                "Does not say which layer of a layer source a layer refers to."
                ["GD-ALS-006"];
            PatientWithSources "faulty-patient-with-sources" Nothing
                "Waits six times as long for a layer source as it is told."
                ["GD-ALS-007"];
            AnyStorePath "faulty-any-store-path" Nothing
                "Takes whatever the option of additional layer stores says."
                ["GD-ALS-008"];

            AdoptsNothing "faulty-adopts-nothing" Nothing
                "Makes an empty layer of what was staged."
                [
                    "GD-DIF-027", "GD-DIF-029", "GD-DIF-030", "GD-DIF-031", "GD-DIF-034",
                    "GD-SEC-006", "GD-PRF-015", "GD-CON-005"
                ];
            ComparesWithItself "faulty-compares-with-itself" Nothing
                "Compares a layer with itself instead of with its parent."
                [
                    "GD-DIF-002", "GD-DIF-013", "GD-DIF-039", "GD-DIF-041", "GD-DIF-042",
                    "GD-DIF-047", "GD-SEC-008"
                ];
            RestlessChanges "faulty-restless-changes" Flag
                "Leaves deleted paths out of every second list of changes."
                ["GD-DIF-007"];
            OwnsWhatItAdopts "faulty-owns-what-it-adopts" Nothing
                "Gives every file to root when it adopts what was staged."
                ["GD-IDM-004"];
            VagueDepth "faulty-vague-depth" Nothing
                "Calls the request for a layer that is too deep a wrong one."
                ["GD-DEP-006"];
            RemembersHome "faulty-remembers-home" Nothing
                "Opens a store where it was made, also when it was moved."
                ["GD-PER-006"];
            UsesFirstHome "faulty-uses-first-home" Nothing
                "Keeps all stores of a process in the first one's home."
                ["GD-CON-015"];
        }
    };
}
