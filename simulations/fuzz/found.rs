//! Inputs that once failed: `found/TARGET-few-words.txt`, a sentence on the first line, the bytes in hex below.
//!
//! Invariant: each is tried before anything else, in every run. Caller: `main`.

use std::path::{Path, PathBuf};

use crate::target::find;

/// Tries every input again; false when one fails.
pub fn run_all() -> bool {
    crate::drive::quiet_panics();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("simulations/fuzz/found");
    let listed = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        listed.filter(|path| path.extension().is_some_and(|extension| extension == "txt")).collect();
    files.sort();
    let failed = files.iter().filter(|path| !run(path)).count();
    println!("{} inputs that once failed: {}", files.len(), if failed == 0 { "ok" } else { "FAILED" });
    failed == 0
}

fn run(path: &Path) -> bool {
    let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let (sentence, hex) = text.split_once('\n').unwrap_or_default();
    let hex: String = hex.split_whitespace().collect();
    let Ok(input) = data_encoding::HEXLOWER.decode(hex.as_bytes()) else {
        println!("{name}: not hex");
        return false;
    };
    // A target of another build (the API needs the daemon) is left to that build.
    let Some(target) = name.split('-').next().and_then(find) else { return true };
    match crate::drive::attempt_fresh(target, &input) {
        Ok(_) => true,
        Err(words) => {
            println!("{name} fails again ({sentence}): {words}");
            false
        }
    }
}
