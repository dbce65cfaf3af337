//! What strace wrote, as a list of calls that can be struck: call, file, number.
//!
//! Invariant: the number is the one that strace's `when=` takes: it counts per thread, and per file because of `-P`. Where
//! two threads make a call of the same number on the same file, only the first one can be struck; the others are counted
//! as shadowed (the daemon opens every file once on its main thread before the node's thread does the same). Callers: cycle, syscalls.

use std::collections::BTreeMap;
use std::fmt;

/// Calls that change what is on a disk, or make sure that it is there.
pub const CALLS: &str = "write,pwrite64,writev,pwritev,fsync,fdatasync,ftruncate,fallocate,rename,renameat,renameat2,\
                         unlink,unlinkat,openat,mkdir,mkdirat,chmod,fchmod";

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its name.
    pub call: String,
    /// The file, absolute.
    pub path: String,
    /// The how manyeth of its kind on this file.
    pub number: u32,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.path.rsplit('/').next().unwrap_or(&self.path);
        write!(f, "{} {} of {file}", self.call, self.number)
    }
}

/// The points of a trace below a folder, and the number of shadowed calls. `openat` counts only where it creates.
pub fn points(trace: &str, folder: &str) -> (Vec<Point>, u64) {
    let mut counted: BTreeMap<(String, String, String), u32> = BTreeMap::new();
    let (mut found, mut shadowed): (Vec<Point>, u64) = (Vec::new(), 0);
    for line in trace.lines() {
        let Some((call, path)) = call_and_path(line) else { continue };
        let thread = line.split(' ').next().unwrap_or_default();
        if !path.starts_with(folder) || path.ends_with("stderr.txt") || path.ends_with("stdout.txt") {
            continue;
        }
        let number = counted.entry((thread.to_owned(), call.to_owned(), path.to_owned())).or_default();
        *number += 1;
        if call != "openat" || line.contains("O_CREAT") {
            let point = Point { call: call.to_owned(), path: path.to_owned(), number: *number };
            if found.contains(&point) { shadowed += 1 } else { found.push(point) }
        }
    }
    (found, shadowed)
}

/// `123 pwrite64(12</a/b>, …` or `123 rename("/a/b", …`: the call and the file it is about.
fn call_and_path(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once(' ')?;
    let (call, arguments) = rest.trim_start().split_once('(')?;
    if !CALLS.split(',').any(|known| known == call) {
        return None;
    }
    let of_descriptor = || arguments.split_once('<')?.1.split_once('>').map(|(path, _)| path);
    let path = if call.contains("at") && !call.contains("trunc") && !call.contains("fdata") && call != "fallocate"
        || ["rename", "unlink", "mkdir", "chmod"].contains(&call)
    {
        arguments.split_once('"')?.1.split_once('"')?.0
    } else {
        of_descriptor()?
    };
    Some((call, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_per_file_and_opening_counts_only_where_it_creates() {
        let trace = "7 openat(AT_FDCWD</x>, \"/r/a\", O_RDWR|O_CLOEXEC) = 3</r/a>\n\
                     7 openat(AT_FDCWD</x>, \"/r/a\", O_RDWR|O_CREAT, 0600) = 3</r/a>\n\
                     8 pwrite64(3</r/a>, \"\\0\"..., 1, 4095) = 1\n\
                     7 pwrite64(4</r/b>, \"<\\0\"..., 1, 4095) = 1\n\
                     7 fdatasync(3</r/a>) = 0\n\
                     7 pwrite64(3</r/a>, \"\\0\"..., 1, 4095 <unfinished ...>\n\
                     7 <... pwrite64 resumed>) = 1\n\
                     7 fsync(9</elsewhere>) = 0\n\
                     7 rename(\"/r/b\", \"/r/c\") = 0\n7 +++ exited with 0 +++\n";
        let (found, shadowed) = points(trace, "/r");
        let found: Vec<String> = found.iter().map(Point::to_string).collect();
        let expected = ["openat 2 of a", "pwrite64 1 of a", "pwrite64 1 of b", "fdatasync 1 of a", "rename 1 of b"];
        assert_eq!(shadowed, 1, "thread 7 makes its first pwrite64 after thread 8");
        assert_eq!(found, expected);
    }
}
