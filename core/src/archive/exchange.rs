// SPDX-License-Identifier: Apache-2.0
//! A fixed number of chunks that go round between two threads.
//!
//! Channels spin and yield before they sleep, which on a busy machine gives the processor away for
//! a whole round of the scheduler each time. Here a thread sleeps at once, and the reading side is
//! woken only when it can fill several chunks.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// How many empty chunks are worth waking the reading side for.
const WORTH_WAKING: usize = 4;

/// The two piles of chunks.
pub(super) struct Exchange<C> {
    piles: Mutex<Piles<C>>,
    emptied: Condvar,
    filled: Condvar,
}

struct Piles<C> {
    empty: Vec<C>,
    full: VecDeque<C>,
    /// One side went away: nothing more will be filled, or emptied.
    closed: bool,
}

/// One side of an exchange, which is over when either side is dropped.
pub(super) struct Side<'e, C>(&'e Exchange<C>);

impl<C> Exchange<C> {
    /// An exchange of at least [`WORTH_WAKING`] chunks.
    pub(super) fn new(chunks: Vec<C>) -> Self {
        debug_assert!(chunks.len() >= WORTH_WAKING, "the reading side would sleep");
        Self {
            piles: Mutex::new(Piles {
                full: VecDeque::with_capacity(chunks.len()),
                empty: chunks,
                closed: false,
            }),
            emptied: Condvar::new(),
            filled: Condvar::new(),
        }
    }

    pub(super) fn side(&self) -> Side<'_, C> {
        Side(self)
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Piles<C>> {
        self.piles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Side<'_, C> {
    /// An empty chunk, or `None` when the other side went away.
    pub(super) fn take_empty(&self) -> Option<C> {
        let mut piles = self.0.lock();
        if piles.empty.is_empty() {
            let waits = |piles: &mut Piles<C>| !piles.closed && piles.empty.len() < WORTH_WAKING;
            let woken = self.0.emptied.wait_while(piles, waits);
            piles = woken.unwrap_or_else(PoisonError::into_inner);
        }
        if piles.closed {
            None
        } else {
            piles.empty.pop()
        }
    }

    /// Hands over a filled chunk; answers whether somebody will read it.
    pub(super) fn put_full(&self, chunk: C) -> bool {
        let mut piles = self.0.lock();
        piles.full.push_back(chunk);
        self.0.filled.notify_one();
        !piles.closed
    }

    /// The next filled chunk; `None` when there will be no more.
    pub(super) fn take_full(&self) -> Option<C> {
        let waits = |piles: &mut Piles<C>| !piles.closed && piles.full.is_empty();
        let woken = self.0.filled.wait_while(self.0.lock(), waits);
        woken
            .unwrap_or_else(PoisonError::into_inner)
            .full
            .pop_front()
    }

    /// Gives back an emptied chunk.
    pub(super) fn put_empty(&self, chunk: C) {
        let mut piles = self.0.lock();
        piles.empty.push(chunk);
        if piles.empty.len() == WORTH_WAKING {
            self.0.emptied.notify_one();
        }
    }
}

impl<C> Drop for Side<'_, C> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.emptied.notify_all();
        self.0.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn everything_arrives_in_order() {
        let exchange = Exchange::new(vec![0; 5]);
        let consumer = exchange.side();
        let producer = exchange.side();
        thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..10_000 {
                    producer.take_empty().unwrap();
                    assert!(producer.put_full(number));
                }
            });
            let mut expected = 0;
            while let Some(number) = consumer.take_full() {
                assert_eq!(number, expected);
                expected += 1;
                consumer.put_empty(number);
            }
            assert_eq!(expected, 10_000);
        });
    }

    #[test]
    fn a_consumer_that_leaves_stops_the_producer() {
        let exchange = Exchange::new(vec![0; 5]);
        let consumer = exchange.side();
        let producer = exchange.side();
        thread::scope(|scope| {
            let sent = scope.spawn(move || {
                let mut sent = 0;
                while let Some(chunk) = producer.take_empty() {
                    producer.put_full(chunk);
                    sent += 1;
                }
                sent
            });
            consumer.take_full().unwrap();
            drop(consumer);
            assert!(sent.join().unwrap() <= 5);
        });
    }
}
