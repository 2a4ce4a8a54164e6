//! The protocol of claim, rescue, finish and cancel, in every order in which its steps can happen.

use std::time::Instant;

use asyncq::domain::job::State;
use asyncq::domain::needs::Need;
use asyncq::domain::new_job::KeyUntil;

use crate::explorer::{Explored, explore};
use crate::protocol::{Check, Protocol, Times};
use crate::scale::{figure, full};
use crate::ties::Tie;

const NONE: Times =
    Times { crashes: 0, stops: 0, put_backs: 0, cancels: 0, retries: 0, unheard: 0, restores: 0, unseen: 0 };

fn protocol(processors: usize, jobs: usize, times: Times) -> Protocol {
    Protocol { processors, jobs, last: State::Queued, times, tie: Tie::Nothing, without: None }
}

fn explored(protocol: &Protocol) -> Explored {
    let began = Instant::now();
    let found = explore(protocol);
    let Explored { states, transitions, deepest, .. } = found;
    let Protocol { processors, jobs, times, tie, without, .. } = protocol;
    let tie = if *tie == Tie::Nothing { String::new() } else { format!(" tied by {tie:?}") };
    let left_out = without.map(|check| format!(" without {check:?}")).unwrap_or_default();
    figure(
        "model",
        format!(
            "{processors} processors, {jobs} jobs{tie}, {times}{left_out}: {states} states, {transitions} transitions, \
             {deepest} steps deep, {:.1} s",
            began.elapsed().as_secs_f64()
        ),
    );
    found
}

fn hold(protocols: &[Protocol]) {
    for protocol in protocols {
        if let Some(fault) = explored(protocol).fault {
            panic!("{protocol:?}: {fault}");
        }
    }
}

#[test]
fn every_order_of_claim_rescue_finish_and_cancel_keeps_the_promises() {
    let small = [
        protocol(2, 1, Times { crashes: 1, cancels: 1, ..NONE }),
        protocol(2, 1, Times { unheard: 2, put_backs: 1, stops: 1, ..NONE }),
        protocol(2, 2, NONE),
        Protocol { last: State::Held, ..protocol(2, 2, NONE) },
        protocol(3, 1, Times { crashes: 1, ..NONE }),
    ];
    let large = [
        protocol(2, 1, Times { crashes: 3, ..NONE }),
        protocol(2, 1, Times { crashes: 1, cancels: 1, retries: 1, unheard: 1, ..NONE }),
        protocol(2, 2, Times { crashes: 1, cancels: 1, ..NONE }),
        protocol(3, 1, Times { crashes: 1, cancels: 1, ..NONE }),
    ];
    hold(&small);
    hold(if full() { &large } else { &[] });
}

const TIES: [Tie; 6] = [
    Tie::Lane,
    Tie::Needs(Need::Completed),
    Tie::Needs(Need::Ended),
    Tie::Needs(Need::Failed),
    Tie::Key(KeyUntil::Started),
    Tie::Key(KeyUntil::Ended),
];

/// Of a lane, one runs at once, and it never stands still; nobody waits for nothing, or begins before what it needs has ended;
/// a key is held by one, and for as long as it said.
#[test]
fn every_order_keeps_the_promises_of_lanes_needs_and_keys() {
    for tie in TIES {
        hold(&[Protocol { tie, ..protocol(1, 2, Times { cancels: 1, ..NONE }) }]);
        let large = [
            Protocol { tie, ..protocol(1, 2, Times { crashes: 1, cancels: 1, retries: 1, ..NONE }) },
            Protocol { tie, ..protocol(2, 2, Times { crashes: 1, ..NONE }) },
            Protocol { tie, ..protocol(2, 2, Times { cancels: 1, retries: 1, unheard: 1, ..NONE }) },
        ];
        hold(if full() { &large } else { &[] });
    }
    for tie in [Tie::Lane, Tie::Needs(Need::Completed), Tie::Key(KeyUntil::Ended)] {
        hold(&[Protocol { tie, ..protocol(1, 2, Times { crashes: 1, ..NONE }) }]);
    }
}

/// Where a lock is lost, or a store put back to an older copy in place, a call may run twice at once, but the fences go on
/// to hold: at most one success is recorded, with its own result.
#[test]
fn without_a_proof_of_death_the_fences_are_left() {
    let times = if full() { Times { crashes: 1, unheard: 1, ..NONE } } else { NONE };
    hold(&[protocol(2, 1, Times { unseen: 1, ..times }), protocol(2, 1, Times { restores: 1, ..times })]);
}

/// The processor's number is needed only where claims can be counted twice, as after a restored copy: otherwise a job and
/// the count of its claims name one claim.
#[test]
fn each_check_is_needed() {
    let crash = Times { crashes: 1, ..NONE };
    for (check, times, fault) in [
        (Check::Claim, Times { unheard: 2, ..NONE }, "NotTheirs"),
        (Check::Claim, Times { unheard: 1, put_backs: 1, ..NONE }, "NotTheirs"),
        (Check::Claim, Times { restores: 1, ..NONE }, "NotTheirs"),
        (Check::Processor, Times { restores: 1, ..NONE }, "NotTheirs"),
        (Check::Lock, NONE, "a program runs whose attempt is over"),
        (Check::LockWhileStarting, crash, "a program runs whose attempt is over"),
        (Check::Starting, crash, "a program runs whose attempt is over"),
        (Check::Leftovers, crash, "a program runs whose attempt is over"),
        (Check::TokensAfterLock, crash, "a program runs whose attempt is over"),
        (Check::MarkFirst, crash, "NotCharged"),
        (Check::Cancelling, Times { cancels: 1, ..NONE }, "what was to be cancelled waits to be run"),
        (Check::Unheard, Times { unheard: 1, ..NONE }, "the end cannot be reached from here"),
    ] {
        let whole = protocol(2, 1, times);
        assert_eq!(explore(&whole).fault, None, "with all checks, {times}");
        let found = explored(&Protocol { without: Some(check), ..whole }).fault.unwrap_or_default();
        assert!(found.starts_with(fault), "without {check:?}: {found}");
    }
}

#[test]
fn each_rule_of_lanes_needs_and_keys_is_needed() {
    let (crash, cancel) = (Times { crashes: 1, ..NONE }, Times { cancels: 1, ..NONE });
    let retry = Times { retries: 1, ..NONE };
    let (lane, needs, key) = (Tie::Lane, Tie::Needs(Need::Completed), Tie::Key(KeyUntil::Ended));
    let own = Tie::Key(KeyUntil::Started);
    for (tie, check, times, fault) in [
        (lane, Check::FollowEnd, NONE, "a lane stands still"),
        (lane, Check::FollowRescue, Times { cancels: 1, ..crash }, "a lane stands still"),
        (lane, Check::FollowClient, NONE, "a lane stands still"),
        (lane, Check::Line, NONE, "too many heads"),
        (needs, Check::FollowEnd, NONE, "waits for nothing"),
        (needs, Check::FollowRescue, Times { cancels: 1, ..crash }, "waits for nothing"),
        (needs, Check::FollowClient, cancel, "waits for nothing"),
        (needs, Check::Need, NONE, "TooEarly"),
        (needs, Check::Noted, NONE, "the end cannot be reached from here"),
        (needs, Check::Revive, retry, "stays cancelled"),
        (Tie::Needs(Need::Failed), Check::Need, NONE, "TooEarly"),
        (key, Check::FollowEnd, NONE, "keeps its key"),
        (key, Check::FollowRescue, Times { cancels: 1, ..crash }, "keeps its key"),
        (key, Check::FollowClient, cancel, "keeps its key"),
        (own, Check::KeyAtStart, NONE, "keeps its key"),
    ] {
        let whole = Protocol { tie, ..protocol(1, 2, times) };
        let found = explored(&Protocol { without: Some(check), ..whole }).fault.unwrap_or_default();
        assert!(found.starts_with(fault), "{tie:?} without {check:?}: {found}");
    }
}
