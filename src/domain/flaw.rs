//! Why a function cannot run, and what lets it run.

use std::path::PathBuf;

/// Why a function cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// That, in words about the function.
    pub what: String,
    /// What helps.
    pub remedy: Remedy,
}

/// What lets a function run that cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// To add it.
    Function,
    /// To give it another program.
    Program,
    /// The right to run this file.
    Executable(PathBuf),
    /// To give it another site.
    Site,
    /// This folder, which is the site of the call, not of its function.
    Folder(PathBuf),
    /// To give it another file of variables.
    EnvFile,
    /// To keep others from this file of variables.
    Private(PathBuf),
}
