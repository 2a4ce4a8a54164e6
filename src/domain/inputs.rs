//! What a function takes: its signature, its secret arguments, and a file of variables.

use super::secret::Secrets;
use super::signature::Signature;

/// What a function takes, and what only this function may know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs {
    /// Its signature; without one, it takes any arguments.
    pub takes: Option<Signature>,
    /// Which of its arguments are secret.
    pub secret: Secrets,
    /// A file of variables, as somebody gave it: a relative path begins at the site. It is read at each start of the program.
    pub env_file: Option<String>,
}

/// Changes of these. `None` leaves a field unchanged, and `Some(None)` removes its value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InputChange {
    /// Another signature, or none.
    pub takes: Option<Option<Signature>>,
    /// Other secret arguments.
    pub secret: Option<Secrets>,
    /// Another file of variables, or none.
    pub env_file: Option<Option<String>>,
}

impl InputChange {
    /// Those of these changes that would change this.
    #[must_use]
    pub fn beyond(&self, inputs: &Inputs) -> InputChange {
        InputChange {
            takes: self.takes.clone().filter(|takes| *takes != inputs.takes),
            secret: self.secret.clone().filter(|secret| *secret != inputs.secret),
            env_file: self.env_file.clone().filter(|file| *file != inputs.env_file),
        }
    }

    /// Makes these changes.
    pub fn apply(&self, to: &mut Inputs) {
        if let Some(takes) = &self.takes {
            to.takes.clone_from(takes);
        }
        if let Some(secret) = &self.secret {
            to.secret.clone_from(secret);
        }
        if let Some(env_file) = &self.env_file {
            to.env_file.clone_from(env_file);
        }
    }
}
