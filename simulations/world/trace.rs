//! What happened, in order: one hash over all of it, and one line per event when somebody reads.
//!
//! The hash covers every step, every input of every node, every frame with the time it was sent, and at the end the rows.
//! Lines are written only when asked for; they cover the same events in the same order, so two runs that differ can be
//! compared line by line. Invariant: writing lines changes nothing else. Callers: the world, `play`.

/// The trace of a run.
#[derive(Default)]
pub struct Trace {
    hasher: blake3::Hasher,
    /// Events so far.
    pub events: u64,
    /// The lines, when they are kept.
    pub lines: Option<Vec<String>>,
    /// Lines go to standard output at once.
    pub loud: bool,
}

impl Trace {
    /// Adds bytes that belong to the event under way.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Whether lines are wanted: making them costs.
    pub fn is_told(&self) -> bool {
        self.loud || self.lines.is_some()
    }

    /// Ends an event.
    pub fn event(&mut self, at_ms: u64, line: impl FnOnce() -> String) {
        self.hasher.update(&at_ms.to_be_bytes());
        self.events += 1;
        if self.is_told() {
            let told = format!("{:>12.3} {} {}", at_ms as f64 / 1000.0, self.hash(), line());
            if self.loud {
                println!("{told}");
            }
            if let Some(lines) = &mut self.lines {
                lines.push(told);
            }
        }
    }

    /// The hash so far.
    pub fn hash(&self) -> String {
        self.hasher.finalize().to_hex()[..16].to_string()
    }
}
