//! Answers what programs ask about jobs and services, and pauses them.

use super::queue::Queue;
use super::rpc_answers::RpcResult;
use crate::domain::rpc_look::{LookRequest, PauseRequest};
use crate::error::Result;

impl Queue {
    /// Looks at jobs or services.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] when something does not exist.
    pub(super) fn look(&mut self, request: LookRequest) -> Result<RpcResult<'static>> {
        Ok(match request {
            LookRequest::Log(job, attempt) => RpcResult::Log(self.job_log(job, attempt)?),
            LookRequest::Explain(job) => RpcResult::Explained(Box::new(self.explain(job)?)),
            LookRequest::Status(services, exact) => RpcResult::Overview(Box::new(self.overview(&services, exact)?)),
            LookRequest::Check(services, limits) => {
                let overview = self.overview(&services, false)?;
                RpcResult::Problems(self.troubles(&overview, limits)?, overview.now)
            }
        })
    }

    /// Pauses the store or services, or ends their pauses.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] when a named service does not exist.
    pub(super) fn carry_out_pause(&mut self, request: PauseRequest) -> Result<RpcResult<'static>> {
        Ok(match request {
            PauseRequest::Store(pause, _) => {
                self.set_pause(Some(&pause))?;
                RpcResult::Done
            }
            PauseRequest::ResumeStore => {
                self.set_pause(None)?;
                RpcResult::Done
            }
            PauseRequest::Services(services, pause) => {
                RpcResult::Services(self.pause_services(&services, Some(&pause))?)
            }
            PauseRequest::ResumeServices(services) => RpcResult::Services(self.pause_services(&services, None)?),
        })
    }
}
