//! The options that name hooks, of functions and of services.

use clap::Args;

use super::output::FieldList;
use crate::domain::hook::{HookChange, HookKind, HookTarget, Hooks};

/// Hooks.
#[derive(Debug, Args)]
pub struct HookOptions {
    /// The function that is called when a job has ended in an error (docs/retries.md)
    #[arg(long, value_name = "SERVICE/FUNCTION", value_parser = HookTarget::parse)]
    on_error: Option<HookTarget>,
    /// The function that is called when a job is completed
    #[arg(long, value_name = "SERVICE/FUNCTION", value_parser = HookTarget::parse)]
    on_success: Option<HookTarget>,
}

impl HookOptions {
    /// What they change.
    pub fn change(&self) -> HookChange {
        HookChange { on_error: self.on_error.clone().map(Some), on_success: self.on_success.clone().map(Some) }
    }
}

/// Hooks to take away.
#[derive(Debug, Args)]
pub struct NoHookOptions {
    /// Call no function when a job has ended in an error
    #[arg(long, conflicts_with = "on_error")]
    no_on_error: bool,
    /// Call no function when a job is completed
    #[arg(long, conflicts_with = "on_success")]
    no_on_success: bool,
}

impl NoHookOptions {
    /// Adds what they change.
    pub fn add_to(&self, change: &mut HookChange) {
        if self.no_on_error {
            change.on_error = Some(None);
        }
        if self.no_on_success {
            change.on_success = Some(None);
        }
    }
}

/// Adds the hooks that there are.
pub fn print_hooks(sheet: &mut FieldList, hooks: &Hooks) {
    for kind in HookKind::ALL {
        if let Some(target) = hooks.get(kind) {
            sheet.line(kind.words(), target.to_string());
        }
    }
}
