//! Processing, as the command line asks for it.

pub use crate::processor::*;
pub use crate::runner::process::identity::user_name as user;
