//! Options that choose services.

use clap::Args;

use crate::domain::pattern::{ServicePattern, ServiceSelection};

/// Which services a command is about.
#[derive(Debug, Args)]
pub struct ServiceOptions {
    /// The services, by names or patterns such as 'site-*' [default: all, by name]
    #[arg(value_name = "SERVICE|PATTERN", value_parser = ServicePattern::parse)]
    services: Vec<ServicePattern>,
    /// Leave out these services
    #[arg(long, value_name = "SERVICE|PATTERN", value_parser = ServicePattern::parse)]
    except: Vec<ServicePattern>,
}

impl ServiceOptions {
    /// The selection.
    pub fn selection(&self) -> ServiceSelection {
        ServiceSelection { services: self.services.clone(), except: self.except.clone() }
    }
}
