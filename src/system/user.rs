//! The users of the system.

/// The system's name for a user, or the number when there is no name.
pub fn user_name(number: u32) -> String {
    nix::unistd::User::from_uid(number.into()).ok().flatten().map_or_else(|| number.to_string(), |user| user.name)
}
