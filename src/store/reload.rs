//! Workers that start anew, as after a deploy.

use super::Store;
use super::engine::Value;
use super::function::{find, next_generation};
use super::service;
use crate::domain::{function::FunctionName, service::ServiceName};
#[cfg(doc)]
use crate::error::Kind;
use crate::error::Result;

/// A name that is NULL means all.
const RELOAD: &str = "UPDATE asyncq_function SET generation = ?3
    WHERE service = COALESCE(?1, service) AND name = COALESCE(?2, name)";

impl Store {
    /// From now on, no call of one function, of all of a service, or of all that exist, begins in a worker that was started before.
    /// Returns how many functions this concerns.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such service or function.
    pub fn reload_functions(&mut self, service: Option<&ServiceName>, name: Option<&FunctionName>) -> Result<u64> {
        self.write(|tx| {
            match (service, name) {
                (Some(service), Some(name)) => drop(find(tx, service, name)?),
                (Some(service), None) => drop(service::find(tx, service)?),
                (None, _) => {}
            }
            let key = [service.map(ServiceName::as_str), name.map(FunctionName::as_str)].map(Value::from);
            let next = next_generation(tx)?;
            let changed = tx.execute(RELOAD, &[key[0], key[1], next.into()])?;
            if name.is_some() && changed == 0 { Err(tx.passed_over()) } else { Ok(changed) }
        })
    }
}
