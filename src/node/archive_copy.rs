//! The season's archive: all segments and a manifest, in a directory that can be put on a stick, and its check.
//!
//! ```text
//! DIR/manifest       lines: `litemesh archive 1`, cluster, made, one `origin` and one `segment` each, and a check of them
//! DIR/HASH.segment   the segments, as they lie in the data directory
//! ```
//! The check needs nothing but the directory: every file against its name, every event against the chain that it stands
//! in, every signature against its author's key, and the manifest's word on how far each author's chain reaches. Whether
//! an author was a member only a node can say (`litemesh bundle` carries that).
//!
//! Invariant: a segment that is there already is not written again, so the same directory takes season after season; the
//! manifest comes last, made aside, synced and renamed: it names only what is there. Callers: http, daemon, cli.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::archive_view::{ArchiveView, MadeView, OriginView, SegmentView};
use super::query::rfc3339;
use super::{Node, NodeError, Now};
use crate::log::segment::segment_name;
use crate::log::{ArchiveCheck, Log, SegmentFolder, SegmentStore};
use crate::model::Head;

/// The manifest's file.
const MANIFEST: &str = "manifest";

/// Its first line.
const FORMAT: &str = "litemesh archive 1";

/// Bytes of a manifest, and of a segment, that are read.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What is needed to copy an archive beside the node.
pub struct ArchiveCopy {
    log: Arc<Log>,
    cluster: String,
    cluster_name: String,
    node: String,
    made_ms: u64,
    names: BTreeMap<[u8; 32], String>,
}

impl Node {
    /// All segments, and how far each author's chain lies in them.
    pub fn archive_list(&self) -> Result<ArchiveView, NodeError> {
        let read = self.log.read()?;
        let missing: BTreeSet<String> = read.archive_size()?.missing.into_iter().map(|(name, _)| name).collect();
        let mut view = ArchiveView::default();
        for segment in read.archive_segments()? {
            let name = hex(&segment.name);
            let present = !missing.contains(&name[..16]);
            view.segments.push(SegmentView { name, bytes: segment.bytes, events: segment.events, present });
        }
        for (origin, head) in &self.heads {
            let through = read.archived_through(origin)?;
            if through > 0 {
                let node = self.member_name(&head.origin.node);
                view.origins.push(OriginView { origin: origin.to_string(), node, through, of: head.seq });
            }
        }
        Ok(view)
    }

    /// What is needed to copy the archive elsewhere.
    pub fn archive_copy(&self, now: Now) -> Result<ArchiveCopy, NodeError> {
        let names = self.heads.values().map(|head| head.origin.node);
        Ok(ArchiveCopy {
            log: self.log.clone(),
            cluster: hex(&self.membership.cluster().0),
            cluster_name: self.membership.cluster_name().to_string(),
            node: self.settings.name.clone(),
            made_ms: now.wall_ms,
            names: names.map(|node| (node.0, self.member_name(&node))).collect(),
        })
    }
}

impl ArchiveCopy {
    /// Writes all segments and the manifest into a directory. What is there of an earlier time is kept.
    pub fn write(&self, out: &Path) -> Result<MadeView, NodeError> {
        let failed = |source| NodeError::Io { path: out.display().to_string(), source };
        std::fs::create_dir_all(out).map_err(failed)?;
        let folder = SegmentFolder::at(out);
        let read = self.log.read()?;
        let mut made = MadeView { path: out.display().to_string(), ..MadeView::default() };
        let mut lines = format!(
            "{FORMAT}\ncluster {} {}\nmade {} {}\n",
            self.cluster,
            one_word(&self.cluster_name),
            rfc3339(self.made_ms),
            one_word(&self.node)
        );
        for (origin, head) in read.heads()? {
            let through = read.archived_through(&origin)?;
            if let Some(last) = read.event(&origin, through)?.filter(|_| through > 0) {
                lines += &origin_line(&head, through, &last.hash, self.names.get(&head.origin.node.0));
            }
        }
        for segment in read.archive_segments()? {
            let bytes = read.segment_bytes(&segment.name, segment.bytes).map_err(failed)?;
            if segment_name(&bytes) != segment.name {
                let problem =
                    format!("the archive's segment {} is damaged: see `litemesh log verify`", hex(&segment.name));
                return Err(NodeError::Invalid(problem));
            }
            folder.put(&segment.name, &bytes).map_err(failed)?;
            lines += &format!("segment {} {} {}\n", hex(&segment.name), segment.bytes, segment.events);
            made.segments += 1;
            made.events += segment.events;
            made.bytes += segment.bytes;
        }
        lines += &format!("check {}\n", hex(blake3::hash(lines.as_bytes()).as_bytes()));
        write_aside(&out.join(MANIFEST), lines.as_bytes()).map_err(failed)?;
        Ok(made)
    }
}

fn origin_line(head: &Head, through: u64, hash: &[u8; 32], name: Option<&String>) -> String {
    let name = one_word(name.map_or("", String::as_str));
    format!("origin {} {} {through} {} {name}\n", hex(&head.origin.node.0), head.origin.incarnation, hex(hash))
}

/// Names are for people: what would end a line or a word does not stand in them.
fn one_word(text: &str) -> String {
    let plain = |c: char| if c.is_control() || c.is_whitespace() { '_' } else { c };
    let text: String = text.chars().map(plain).collect();
    if text.is_empty() { "-".to_string() } else { text }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn write_aside(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = std::fs::File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    // Not every stick's file system can sync a folder.
    let _ = std::fs::File::open(path.parent().unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Checks an archive's directory, or one segment's file. Reads only; faults are listed, not errors.
pub fn check_archive(path: &Path) -> Result<ArchiveCheck, NodeError> {
    let failed = |path: &Path, source| NodeError::Io { path: path.display().to_string(), source };
    let mut check = ArchiveCheck::default();
    if !path.is_dir() {
        let bytes = read_bounded(path).map_err(|source| failed(path, source))?;
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if hex(&segment_name(&bytes)) != stem {
            check.fault(format!("{}: its bytes are not those that its name says", path.display()));
        }
        check.take(&bytes);
        check.finish(&[]);
        return Ok(check);
    }
    let manifest = path.join(MANIFEST);
    let bytes = read_bounded(&manifest).map_err(|source| failed(&manifest, source))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if !is_whole(&text) {
        check.fault("the manifest is damaged: its check does not fit it".to_string());
    }
    let mut stated: Vec<(String, u64, String)> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["cluster", id, ..] => check.cluster = data_encoding::HEXLOWER.decode(id.as_bytes()).unwrap_or_default(),
            ["origin", node, incarnation, through, hash, ..] => {
                stated.push((format!("{node} {incarnation}"), through.parse().unwrap_or(0), hash.to_string()));
            }
            ["segment", name, ..] => check_file(&path.join(format!("{name}.segment")), name, &mut check),
            _ => {}
        }
    }
    check.finish(&stated);
    Ok(check)
}

fn check_file(path: &Path, name: &str, check: &mut ArchiveCheck) {
    match read_bounded(path) {
        Ok(bytes) if hex(&segment_name(&bytes)) == name => check.take(&bytes),
        Ok(bytes) => {
            check.fault(format!("{name}: its bytes are not those that its name says"));
            check.take(&bytes);
        }
        Err(error) => check.fault(format!("{name}: {error}")),
    }
}

/// Whether the last line is the check of those before it.
fn is_whole(text: &str) -> bool {
    let Some((lines, check)) = text.rsplit_once("check ") else { return false };
    text.starts_with(FORMAT) && check.trim_end() == hex(blake3::hash(lines.as_bytes()).as_bytes())
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let length = std::fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX {
        return Err(std::io::Error::other("is larger than any file of an archive"));
    }
    std::fs::read(path)
}
