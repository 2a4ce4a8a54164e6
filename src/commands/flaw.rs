//! Why functions cannot run, as far as this user can see.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::domain::env_file::{LARGEST_ENV_FILE, parse_env_file};
use crate::domain::flaw::{Flaw, Remedy};
use crate::domain::function::Definition;
use crate::domain::job::Job;
use crate::system::private_file::read_private;

/// Why a call cannot run.
pub(super) fn flaw(job: &Job, definition: Option<&Definition>) -> Option<Flaw> {
    let Some(definition) = definition else {
        let what = format!("service `{}` has no function `{}`", job.call.service, job.call.function);
        return Some(Flaw { what, remedy: Remedy::Function });
    };
    broken(definition, job.call.site.as_deref())
}

/// Why a function cannot run in its own site, or in that of a call.
pub(super) fn broken(definition: &Definition, of_call: Option<&str>) -> Option<Flaw> {
    let site = Path::new(of_call.unwrap_or(&definition.site));
    if is_missing(site) {
        let is_own = of_call.is_none_or(|site| site == definition.site);
        let remedy = if is_own { Remedy::Site } else { Remedy::Folder(site.to_owned()) };
        return Some(Flaw { what: format!("its site `{}` is missing", site.display()), remedy });
    }
    broken_program(definition, site).or_else(|| broken_env_file(definition))
}

fn is_missing(path: &Path) -> bool {
    path.metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn broken_program(definition: &Definition, site: &Path) -> Option<Flaw> {
    let program = definition.command.first().filter(|program| program.contains('/'))?;
    let program: PathBuf = site.join(program).components().collect();
    if is_missing(&program) {
        return Some(Flaw { what: format!("its program `{}` is missing", program.display()), remedy: Remedy::Program });
    }
    let what = format!("its program `{}` is not executable", program.display());
    let mode = program.metadata().ok()?.permissions().mode();
    (mode & 0o111 == 0).then_some(Flaw { what, remedy: Remedy::Executable(program) })
}

/// Why the file of variables of a function cannot be used.
pub(super) fn broken_env_file(definition: &Definition) -> Option<Flaw> {
    let path = definition.env_file()?;
    let (flaw, is_open) = match read_private(&path, LARGEST_ENV_FILE) {
        Ok(bytes) => (format!("cannot be used: {}", parse_env_file(&bytes).err()?), false),
        // The processor may run as another user, who can read the file.
        Err(unreadable) if unreadable.is_denied => return None,
        Err(unreadable) => (unreadable.what, unreadable.is_open),
    };
    let what = format!("its environment file `{}` {flaw}", path.display());
    Some(Flaw { what, remedy: if is_open { Remedy::Private(path) } else { Remedy::EnvFile } })
}
