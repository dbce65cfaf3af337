//! What apps and their migration tools do to a schema.
