// SPDX-License-Identifier: Apache-2.0
//! The self-test notices when a case does not find what it is there to find.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::process::{Command, Output};

fn selftest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_plywood-conformance"))
        .arg("selftest")
        .args(arguments)
        .output()
        .unwrap()
}

fn last_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn root_a_sabotaged_case_is_noticed() {
    for (fault, case) in [
        ("faulty-exists-lies", "GD-LIF-008"),
        ("faulty-accepts-unknown-parent", "GD-ERR-005"),
        ("faulty-keeps-deleted", "GD-WHO-011"),
        ("faulty-diffs-against-nothing", "GD-DIF-003"),
    ] {
        let good = selftest(&["--only", fault]);
        assert_eq!(good.status.code(), Some(0), "{good:?}");
        assert_eq!(
            last_line(&good),
            "1 of 1 faults caught, reference not run",
            "{good:?}"
        );
        let sabotaged = selftest(&["--only", fault, "--sabotage", case]);
        assert_eq!(sabotaged.status.code(), Some(3), "{sabotaged:?}");
        assert_eq!(
            last_line(&sabotaged),
            "0 of 1 faults caught, reference not run",
            "{sabotaged:?}"
        );
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    for arguments in [["--only", "faulty-nosuch"], ["--sabotage", "GD-LIF-999"]] {
        let refused = selftest(&arguments);
        assert_eq!(refused.status.code(), Some(4), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(arguments[1]));
    }
}
