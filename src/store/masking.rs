//! Hides the secret arguments of calls before anybody sees them.

use super::columns::groups;
use super::engine::Tx;
use crate::domain::call::Call;
use crate::domain::json::Json;
use crate::domain::secret::{MASK, Secrets};
use crate::domain::signature::Signature;
use crate::error::Result;

const OF_FUNCTION: &str = "SELECT secret, takes FROM asyncq_function WHERE service = ?1 AND name = ?2";

/// Which arguments of a function are secret, by the store.
#[derive(Default)]
pub(super) struct Masking {
    secret: Option<String>,
    takes: Option<String>,
}

groups! { Masking { secret, takes } }

impl Masking {
    /// Hides secret arguments. Hides all arguments if it is unknown which ones are secret.
    pub(super) fn mask(&self, args: &mut String, kwargs: &mut String) {
        let Some(secret) = &self.secret else { return };
        let takes = self.takes.as_deref().map(Signature::parse).transpose();
        (*args, *kwargs) = match (Secrets::from_json(secret), takes) {
            (Some(secret), Ok(takes)) => secret.mask(takes.as_ref(), args, kwargs),
            _ => (MASK.to_owned(), MASK.to_owned()),
        };
    }
}

/// Hides the secret arguments of a call.
pub(super) fn mask_call(tx: &mut dyn Tx, call: &mut Call) -> Result<()> {
    let masking: Masking = tx.row(OF_FUNCTION, &[(&call.service).into(), (&call.function).into()])?.unwrap_or_default();
    let (mut args, mut kwargs) = (call.args.to_string(), call.kwargs.to_string());
    masking.mask(&mut args, &mut kwargs);
    let json = |text: &str| Json::parse(text).or_else(|_| Json::string(MASK));
    if let (Ok(args), Ok(kwargs)) = (json(&args), json(&kwargs)) {
        (call.args, call.kwargs) = (args, kwargs);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::plan;

    #[test]
    fn a_function_is_found_by_its_key() {
        let steps = plan(OF_FUNCTION);
        assert!(steps.iter().all(|step| step.starts_with("SEARCH ")), "{steps:?}");
    }
}
