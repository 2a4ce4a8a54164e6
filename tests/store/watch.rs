//! Hearing of changes.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::fixture::{enqueue, with_events};

conformance! {
    fn who_watches_hears_of_every_write(store: &mut Store) {
        with_events(store);
        let mut watch = store.watch().unwrap();
        let mut other = asyncq::store::Store::open(store.location(), asyncq::store::Patience::Endless).unwrap();
        while watch.heard() {}
        store.changed().unwrap();
        for number in 1..4 {
            enqueue(&mut other, number);
            let forever = Timespec { tv_sec: 3600, tv_nsec: 0 };
            let mut fds = [PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)];
            assert_eq!(poll(&mut fds, Some(&forever)), Ok(1));
            assert!(watch.heard() && !watch.heard());
            assert!(store.changed().unwrap());
        }
    }
}
