//! Backups, of stores in use and by processes that are killed.
