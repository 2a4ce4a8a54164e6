//! Registers the functions of a program, at its request.

use std::collections::BTreeMap;

use super::caller::Caller;
use super::function::{check_env_file, site, variable_name};
use super::program::{Here, find_program};
use super::queue::Queue;
use crate::domain::function::{Registered, WantedFunction};
use crate::domain::json::MAX_BYTES;
use crate::domain::text::escape_control;
use crate::error::{Error, Kind, Result};
#[cfg(doc)]
use crate::store::Store;

impl Queue {
    /// Makes sure that these functions exist. Adds missing ones, and changes those that differ if `change` says so. Looks up
    /// programs and sites as [`Queue::add_function`] does.
    ///
    /// # Errors
    /// As for [`Queue::add_function`], and as [`Store::define_functions`]; then nothing is added or changed.
    pub fn register_functions(
        &mut self,
        mut wanted: Vec<WantedFunction>,
        change: bool,
        caller: &Caller,
    ) -> Result<Vec<Registered>> {
        for function in &mut wanted {
            self.look_up(function, caller)?;
        }
        self.store.define_functions(&wanted, change)
    }

    /// Makes sure that the wanted parts of a function can be recorded.
    fn look_up(&mut self, wanted: &mut WantedFunction, caller: &Caller) -> Result<()> {
        check_texts(wanted.command.iter().flatten(), wanted.site.as_ref(), &wanted.env)?;
        let here = Here { folder: &caller.folder()?, caller };
        if let Some(typed) = &wanted.site {
            if !typed.starts_with('/') {
                let message = format!("`site` is `{}`, which is not an absolute path", escape_control(typed));
                return Err(Error::new(Kind::Invalid, message));
            }
            wanted.site = Some(site(typed, here)?);
        }
        for name in wanted.env.keys() {
            variable_name(name)?;
        }
        if let Some(Some(file)) = &wanted.inputs.env_file {
            check_env_file(file)?;
        }
        let Some(command) = &wanted.command else { return Ok(()) };
        let program = command.first().ok_or_else(|| Error::new(Kind::Invalid, "`command` is empty"))?;
        let in_site = match &wanted.site {
            Some(site) => site.clone(),
            // Only a relative path needs the site.
            None if !program.starts_with('/') => self.recorded_site(wanted)?,
            None => String::new(),
        };
        let found = find_program(program, &in_site, here)?;
        if let Some(program) = wanted.command.iter_mut().flatten().next() {
            *program = found;
        }
        Ok(())
    }

    /// The site of an existing function, as it is recorded.
    fn recorded_site(&mut self, wanted: &WantedFunction) -> Result<String> {
        match self.store.function(&wanted.service, &wanted.name) {
            Ok(function) => Ok(function.definition.site),
            Err(error) if error.kind() == Kind::NotFound => {
                self.store.service(&wanted.service)?;
                Err(wanted.definition().err().unwrap_or(error))
            }
            Err(error) => Err(error),
        }
    }
}

/// Refuses texts with which the system cannot start a program. The schema does the same for clients.
pub(super) fn check_texts<'a>(
    command: impl IntoIterator<Item = &'a String>,
    site: Option<&'a String>,
    env: &'a BTreeMap<String, String>,
) -> Result<()> {
    let command = command.into_iter().map(|text| ("command", text));
    let site = site.map(|text| ("site", text));
    let env = env.values().map(|text| ("env", text));
    let mut length = 0;
    for (member, text) in command.chain(site).chain(env) {
        length += text.len();
        if text.contains('\0') {
            return Err(Error::new(Kind::Invalid, format!("`{member}` contains a NUL character"))
                .with_hint("the system cannot pass one to a program"));
        }
    }
    if length > MAX_BYTES {
        return Err(Error::new(Kind::Invalid, format!("`command`, `site` and `env` have more than {MAX_BYTES} bytes"))
            .with_hint("put the data into a file and pass its path"));
    }
    Ok(())
}
