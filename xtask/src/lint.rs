// SPDX-License-Identifier: Apache-2.0
//! House rules that no compiler knows: licence lines, plain ASCII, file sizes, stray references.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::run;

const HARD_LIMIT: usize = 800;

/// Checks every tracked source file.
pub(crate) fn run() -> Result<()> {
    let files = run::output(run::command(
        "git",
        ["ls-files", "*.rs", "*.toml", "*.md", "*.sh"],
    ))?;
    let mut findings = Vec::new();
    for name in files.lines() {
        let path = run::workspace().join(name);
        if !path.exists() {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{name}`"))?;
        inspect(Path::new(name), &text, &mut findings);
    }
    if findings.is_empty() {
        return Ok(());
    }
    bail!("{} finding(s):\n{}", findings.len(), findings.join("\n"));
}

/// The suite treats every driver alike: capabilities decide, never names. Kernel file systems and
/// tools that share a driver's name are another matter.
fn inspect_suite(name: &Path, text: &str, findings: &mut Vec<String>) {
    let shared = ["\"overlay\"", "\"btrfs\"", "\"zfs\""];
    for (number, line) in text.lines().enumerate() {
        let asked = line.contains("name()") && shared.iter().any(|driver| line.contains(driver));
        if asked || line.contains("\"vfs\"") || line.contains("plywood_driver_overlay") {
            let (shown, number) = (name.display(), number + 1);
            findings.push(format!("{shown}:{number}: the suite's code names a driver"));
        }
    }
}

fn inspect(name: &Path, text: &str, findings: &mut Vec<String>) {
    let shown = name.display();
    let source = name.extension().is_some_and(|extension| extension == "rs");
    if source && !text.starts_with("// SPDX-License-Identifier: Apache-2.0\n") {
        findings.push(format!(
            "{shown}: the first line is not the licence identifier"
        ));
    }
    if source && let Some(line) = text.lines().position(|line| !line.is_ascii()) {
        findings.push(format!("{shown}:{}: not ASCII (write an escape)", line + 1));
    }
    let code = text
        .lines()
        .take_while(|line| *line != "mod tests {")
        .count();
    if source && code > HARD_LIMIT {
        findings.push(format!(
            "{shown}: {code} lines of code, the limit is {HARD_LIMIT}"
        ));
    }
    if source && name.starts_with("conformance/src") {
        inspect_suite(name, text, findings);
    }
    // Spelt in two parts, so that this file does not find itself.
    let outside = concat!("../", "shared");
    if let Some(line) = text.lines().position(|line| line.contains(outside)) {
        findings.push(format!(
            "{shown}:{}: refers to something outside the project",
            line + 1
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        inspect(Path::new(name), text, &mut found);
        found
    }

    #[test]
    fn a_clean_file_has_no_findings() {
        assert!(findings("a.rs", "// SPDX-License-Identifier: Apache-2.0\n//! x\n").is_empty());
    }

    #[test]
    fn each_rule_finds_its_fault() {
        let head = "// SPDX-License-Identifier: Apache-2.0\n";
        assert_eq!(findings("a.rs", "fn x() {}\n").len(), 1);
        assert_eq!(findings("a.rs", &format!("{head}// \u{e9}\n")).len(), 1);
        assert_eq!(
            findings("a.rs", &format!("{head}{}", "x\n".repeat(900))).len(),
            1
        );
        assert_eq!(findings("a.md", concat!("see ../", "shared/x\n")).len(), 1);
    }
}
