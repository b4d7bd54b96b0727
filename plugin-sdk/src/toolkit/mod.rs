//! What several drivers need.
