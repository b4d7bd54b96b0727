// SPDX-License-Identifier: Apache-2.0
//! Bounded queues between threads, for work that comes in pieces of some hundred kilobytes.
//!
//! The channels of libraries spin and yield before they sleep. On a machine whose processors are
//! busy each yield gives the processor away for a whole round of the scheduler, which cost an
//! import half of its wall time; here a thread sleeps at once.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

/// The other side is gone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed;

struct Shared<T> {
    state: Mutex<State<T>>,
    not_empty: Condvar,
    not_full: Condvar,
}

struct State<T> {
    queue: VecDeque<T>,
    capacity: usize,
    senders: usize,
    receivers: usize,
}

impl<T> Shared<T> {
    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side that puts in; when the last one goes, receivers get what is left and then nothing.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// The side that takes out; when the last one goes, what is left is dropped.
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

/// A queue of at most `capacity` pieces.
pub(crate) fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            queue: VecDeque::with_capacity(capacity),
            capacity: capacity.max(1),
            senders: 1,
            receivers: 1,
        }),
        not_empty: Condvar::new(),
        not_full: Condvar::new(),
    });
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

impl<T> Sender<T> {
    /// Puts a piece in, waiting while the queue is full.
    pub(crate) fn send(&self, piece: T) -> Result<(), Closed> {
        let full =
            |state: &mut State<T>| state.receivers > 0 && state.queue.len() >= state.capacity;
        let state = self.0.not_full.wait_while(self.0.lock(), full);
        self.put(state.unwrap_or_else(PoisonError::into_inner), piece)
    }

    /// Puts a piece in unless the queue is full, in which case the piece is dropped.
    pub(crate) fn offer(&self, piece: T) {
        let state = self.0.lock();
        if state.queue.len() < state.capacity {
            // Without receivers nobody misses the piece.
            drop(self.put(state, piece));
        }
    }

    fn put(&self, mut state: MutexGuard<'_, State<T>>, piece: T) -> Result<(), Closed> {
        if state.receivers == 0 {
            return Err(Closed);
        }
        state.queue.push_back(piece);
        drop(state);
        self.0.not_empty.notify_one();
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// Takes a piece out, waiting for one; `None` when there will be no more.
    pub(crate) fn recv(&self) -> Option<T> {
        let empty = |state: &mut State<T>| state.senders > 0 && state.queue.is_empty();
        let state = self.0.not_empty.wait_while(self.0.lock(), empty);
        self.take(state.unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a piece out if there is one.
    pub(crate) fn try_recv(&self) -> Option<T> {
        self.take(self.0.lock())
    }

    fn take(&self, mut state: MutexGuard<'_, State<T>>) -> Option<T> {
        let piece = state.queue.pop_front()?;
        drop(state);
        self.0.not_full.notify_one();
        Some(piece)
    }

    /// All pieces, until there will be no more.
    pub(crate) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.recv())
    }
}

/// All pieces of a receiver, which is dropped with it.
pub(crate) struct Pieces<T>(Receiver<T>);

impl<T> Iterator for Pieces<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.recv()
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = Pieces<T>;

    fn into_iter(self) -> Pieces<T> {
        Pieces(self)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.0.lock().receivers += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        if state.senders == 0 {
            drop(state);
            self.0.not_empty.notify_all();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.receivers -= 1;
        if state.receivers == 0 {
            // Pieces may hold the ends of other queues, whose waiting side learns of it now.
            let left = std::mem::take(&mut state.queue);
            drop(state);
            drop(left);
            self.0.not_full.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn pieces_of_several_senders_all_arrive_at_several_receivers() {
        let (sender, receiver) = bounded(3);
        let sum = thread::scope(|scope| {
            for part in 0..4_u64 {
                let sender = sender.clone();
                scope.spawn(move || (0..1000).for_each(|n| sender.send(part * 1000 + n).unwrap()));
            }
            drop(sender);
            let receivers: Vec<_> = (0..3)
                .map(|_| {
                    let receiver = receiver.clone();
                    scope.spawn(move || receiver.iter().sum::<u64>())
                })
                .collect();
            receivers
                .into_iter()
                .map(|one| one.join().unwrap())
                .sum::<u64>()
        });
        assert_eq!(sum, (0..4000).sum::<u64>());
    }

    #[test]
    fn order_is_kept_and_the_end_comes_after_what_is_left() {
        let (sender, receiver) = bounded(2);
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        sender.offer(3);
        drop(sender);
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(receiver.try_recv(), None);
    }

    #[test]
    fn a_sender_that_waits_learns_that_nobody_receives() {
        let (sender, receiver) = bounded(1);
        sender.send(0).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(move || sender.send(1));
            drop(receiver);
            assert_eq!(waiting.join().unwrap(), Err(Closed));
        });
    }

    #[test]
    fn ends_inside_pieces_are_dropped_with_the_last_receiver() {
        let (outer, pieces) = bounded(1);
        let (inner, end) = bounded::<u8>(1);
        assert!(outer.send(end).is_ok());
        drop(pieces);
        assert_eq!(inner.send(1), Err(Closed));
    }
}
