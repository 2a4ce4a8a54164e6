//! Hooks: functions that are called when a job ends for good.

use std::{fmt, sync::Arc};

use super::name::{FunctionName, ServiceName};
use super::state::State;
use super::text::{escape_control, has_names};
use crate::error::{Error, Kind, Result};

/// After which end of a job a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    /// The job has ended in an error.
    OnError,
    /// The job is completed.
    OnSuccess,
}

has_names! { HookKind { OnError: "on_error", OnSuccess: "on_success", } }

impl HookKind {
    /// The kind for a job that has entered this state.
    #[must_use]
    pub fn of(state: State) -> Option<HookKind> {
        match state {
            State::Error => Some(HookKind::OnError),
            State::Completed => Some(HookKind::OnSuccess),
            _ => None,
        }
    }

    /// When that is, in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            HookKind::OnError => "on error",
            HookKind::OnSuccess => "on success",
        }
    }

    /// The option that names such a hook, without its dashes.
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            HookKind::OnError => "on-error",
            HookKind::OnSuccess => "on-success",
        }
    }
}

/// A function with its service, as the target of a hook.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HookTarget {
    /// Its service.
    pub service: ServiceName,
    /// Its name.
    pub function: FunctionName,
}

impl HookTarget {
    /// Parses `SERVICE/FUNCTION`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it is not that, in words that can follow "`TEXT`: ".
    pub fn parse(text: &str) -> Result<HookTarget> {
        HookTarget::parse_as("a hook", text)
    }

    /// Parses `SERVICE/FUNCTION`, which is `what`.
    ///
    /// # Errors
    /// As for [`HookTarget::parse`].
    pub fn parse_as(what: &str, text: &str) -> Result<HookTarget> {
        let Some((service, function)) = text.split_once('/') else {
            let hint = match text.split_once(['.', ':', ' ']) {
                Some((service, function)) if ServiceName::parse(service).is_ok() && !function.is_empty() => {
                    format!("did you mean `{service}/{}`?", escape_control(function))
                }
                _ => "name the service and the function, as in `alerts/page`".to_owned(),
            };
            return Err(Error::new(Kind::Usage, format!("{what} is SERVICE/FUNCTION")).with_hint(hint));
        };
        Ok(HookTarget { service: ServiceName::parse(service)?, function: FunctionName::parse(function)? })
    }
}

/// As [`HookTarget::parse`] reads it.
impl fmt::Display for HookTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.function)
    }
}

/// The hooks of a function or a service. Most have none, which takes hardly any memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks(Option<Arc<[Option<HookTarget>; HookKind::ALL.len()]>>);

impl Hooks {
    /// These hooks, in the order of [`HookKind::ALL`].
    #[must_use]
    pub fn new(targets: [Option<HookTarget>; HookKind::ALL.len()]) -> Hooks {
        Hooks(targets.iter().any(Option::is_some).then(|| Arc::new(targets)))
    }

    /// The hook of this kind.
    #[must_use]
    pub fn get(&self, kind: HookKind) -> Option<&HookTarget> {
        self.0.as_ref().and_then(|targets| targets[kind as usize].as_ref())
    }

    /// The functions that are hooks, each with the end after which asyncq calls it.
    pub fn targets(&self) -> impl Iterator<Item = (HookKind, &HookTarget)> {
        HookKind::ALL.into_iter().filter_map(|kind| Some((kind, self.get(kind)?)))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// These hooks, with those of the service in place of missing ones.
    #[must_use]
    pub fn or(self, of_service: &Hooks) -> Hooks {
        if of_service.is_empty() {
            return self;
        }
        Hooks::new(HookKind::ALL.map(|kind| self.get(kind).or(of_service.get(kind)).cloned()))
    }
}

/// What a processor knows about the hooks of a job that ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndHooks {
    /// These, with those of its service.
    Known(Hooks),
    /// Nothing: they are looked up.
    Unknown,
}

impl EndHooks {
    /// Whether nothing is called after such an end.
    #[must_use]
    pub fn has_none(&self, kind: HookKind) -> bool {
        matches!(self, EndHooks::Known(hooks) if hooks.get(kind).is_none())
    }
}

impl Default for EndHooks {
    fn default() -> EndHooks {
        EndHooks::Known(Hooks::default())
    }
}

/// Changes of hooks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookChange {
    /// Another hook after an error, or none (`Some(None)`).
    pub on_error: Option<Option<HookTarget>>,
    /// The same after a success.
    pub on_success: Option<Option<HookTarget>>,
}

impl HookChange {
    /// The change of the hook of this kind.
    #[must_use]
    pub fn get(&self, kind: HookKind) -> Option<&Option<HookTarget>> {
        match kind {
            HookKind::OnError => self.on_error.as_ref(),
            HookKind::OnSuccess => self.on_success.as_ref(),
        }
    }

    /// The functions that become hooks, each with the end after which asyncq calls it.
    pub fn targets(&self) -> impl Iterator<Item = (HookKind, &HookTarget)> {
        HookKind::ALL.into_iter().filter_map(|kind| Some((kind, self.get(kind)?.as_ref()?)))
    }

    /// The changes that would change something in these hooks.
    #[must_use]
    pub fn beyond(&self, hooks: &Hooks) -> HookChange {
        let differs =
            |kind| self.get(kind).cloned().filter(|wanted: &Option<HookTarget>| wanted.as_ref() != hooks.get(kind));
        HookChange { on_error: differs(HookKind::OnError), on_success: differs(HookKind::OnSuccess) }
    }

    /// The hooks with these changes.
    #[must_use]
    pub fn apply(&self, to: &Hooks) -> Hooks {
        if *self == HookChange::default() {
            return to.clone();
        }
        Hooks::new(HookKind::ALL.map(|kind| self.get(kind).cloned().unwrap_or_else(|| to.get(kind).cloned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> HookTarget {
        HookTarget::parse(text).unwrap()
    }

    #[test]
    fn a_hook_is_a_service_and_a_function() {
        assert_eq!(target("alerts/page").to_string(), "alerts/page");
        let name_both = "name the service and the function, as in `alerts/page`";
        for (text, message, hint) in [
            ("page", "a hook is SERVICE/FUNCTION", name_both),
            ("", "a hook is SERVICE/FUNCTION", name_both),
            ("alerts.page", "a hook is SERVICE/FUNCTION", "did you mean `alerts/page`?"),
            ("alerts page", "a hook is SERVICE/FUNCTION", "did you mean `alerts/page`?"),
        ] {
            let error = HookTarget::parse(text).expect_err(text);
            assert_eq!((error.to_string().as_str(), error.hint()), (message, Some(hint)), "{text}");
        }
        assert_eq!(HookTarget::parse("/page").unwrap_err().to_string(), "`` cannot be the name of a service");
        assert_eq!(HookTarget::parse("alerts/").unwrap_err().to_string(), "`` cannot be the name of a function");
    }

    #[test]
    fn a_function_has_the_hooks_of_its_service_where_it_has_none() {
        let (own, of_service) = (target("a/own"), target("a/service"));
        let hooks =
            Hooks::new([Some(own.clone()), None]).or(&Hooks::new([Some(of_service.clone()), Some(of_service.clone())]));
        assert_eq!(hooks.get(HookKind::OnError), Some(&own));
        assert_eq!(hooks.get(HookKind::OnSuccess), Some(&of_service));
        assert!(Hooks::new([None, None]).is_empty() && Hooks::default().or(&Hooks::default()).is_empty());
    }

    #[test]
    fn a_change_keeps_the_other_hook() {
        let hooks = Hooks::new([Some(target("a/b")), Some(target("a/c"))]);
        let change = HookChange { on_error: Some(None), ..HookChange::default() };
        assert_eq!(change.apply(&hooks), Hooks::new([None, Some(target("a/c"))]));
        assert_eq!(HookChange::default().apply(&hooks), hooks);
    }
}
