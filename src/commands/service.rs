//! Services: named queues and their limits.

use super::queue::Queue;
use crate::domain::pattern::ServiceSelection;
use crate::domain::removal::{IfWaiting, Removed};
use crate::domain::service::{Added, Defined, Service, ServiceChange, ServiceName};
use crate::error::Result;
use crate::processor::put_back_copied;
#[cfg(doc)]
use crate::store::Store;

impl Queue {
    /// Adds a service. It may exist already if it does not differ from what is wanted.
    ///
    /// # Errors
    /// As [`Store::add_service`].
    pub fn add_service(&mut self, name: &ServiceName, wanted: &ServiceChange) -> Result<Added> {
        self.store.add_service(name, wanted)
    }

    /// Makes sure that there is a service with these limits. An existing service keeps everything else; a new one gets the default
    /// of 1.
    ///
    /// # Errors
    /// As [`Store::define_service`].
    pub fn define_service(&mut self, name: &ServiceName, wanted: &ServiceChange) -> Result<Defined> {
        self.store.define_service(name, wanted)
    }

    /// All services, by name.
    ///
    /// # Errors
    /// Whatever the store answers.
    pub fn services(&mut self) -> Result<Vec<Service>> {
        self.store.services()
    }

    /// One service.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] when there is none with this name.
    pub fn service(&mut self, name: &ServiceName) -> Result<Service> {
        self.store.service(name)
    }

    /// Changes a service.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] when there is none with this name.
    pub fn set_service(&mut self, name: &ServiceName, change: &ServiceChange) -> Result<Service> {
        self.store.set_service(name, change)
    }

    /// Removes a service and its functions. Ended jobs stay.
    ///
    /// # Errors
    /// As [`Store::remove_service`].
    pub fn remove_service(&mut self, name: &ServiceName, waiting: IfWaiting) -> Result<Removed> {
        put_back_copied(&mut self.store)?;
        self.store.remove_service(name, waiting)
    }

    /// Whether there is a service of a selection.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] when there is no service of a name in it.
    pub fn has_service(&mut self, services: &ServiceSelection) -> Result<bool> {
        Ok(!self.store.select_services(services)?.is_empty())
    }
}
