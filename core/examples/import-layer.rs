// SPDX-License-Identifier: Apache-2.0
//! Unpacks a layer file into an empty directory and prints what its record would say:
//! `import-layer LAYER DIRECTORY [RECORD]`.

use std::{fs::File, io::Write as _, path::Path, process::ExitCode};

use plywood::{
    Error, ErrorKind, IoContext as _,
    archive::import::{ImportOptions, import},
    sdk::{IdMaps, UnpackTarget, WhiteoutForm},
};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let arguments: Vec<&Path> = arguments.iter().map(Path::new).collect();
    let mut stderr = std::io::stderr();
    match run(&arguments) {
        Ok(text) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            let about = error.about().unwrap_or_default().to_owned();
            drop(writeln!(stderr, "error: {error:?} ({about})"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&Path]) -> plywood::Result<String> {
    let (layer, directory, record) = match arguments {
        [layer, directory] => (layer, directory, Path::new("/dev/null")),
        [layer, directory, record] => (layer, directory, *record),
        _ => {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "usage: import-layer LAYER DIRECTORY [RECORD]",
            ));
        }
    };
    let mut target = UnpackTarget::tree(*directory);
    target.whiteouts = WhiteoutForm::Overlay;
    target.apply_root = false;
    target.fresh = true;
    let input = File::open(layer).at("cannot open", layer)?;
    let output = File::create(record).at("cannot create", record)?;
    let maps = IdMaps::default();
    let imported = import(input, &ImportOptions::new(&target, &maps), output)?;
    Ok(format!("{imported:#?}\n"))
}
