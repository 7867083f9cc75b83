//! The queue under every order of its steps, as loom finds them: nothing is lost, nobody sleeps on, nobody waits in vain.
//!
//!     RUSTFLAGS="--cfg loom" cargo test --target-dir target/loom --test loom --release
#![cfg(loom)]
#![allow(dead_code, unreachable_pub)] // the queue has more than is tried here

/// What the queue is made of here.
mod sync {
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
}

#[path = "../src/queue.rs"]
mod queue;

use loom::sync::{Arc, Notify};
use loom::thread;
use queue::{Pulled, Pushed, Queue, Reader, Wait, Wake};

/// A side that sleeps elsewhere. A wake before the sleep is kept, as a host keeps it.
struct Host(Arc<Notify>);

impl Wake for Host {
    fn wake(&self) {
        self.0.notify();
    }
}

/// A queue with room for one small item, and what wakes the host.
fn queue() -> (Arc<Queue<Host>>, Arc<Notify>) {
    let bell = Arc::new(Notify::new());
    (Arc::new(Queue::new(8, Host(Arc::clone(&bell)))), bell)
}

/// Every order with no more than three threads interrupted, in which nearly all that goes wrong is found;
/// LOOM_MAX_PREEMPTIONS asks for others.
fn model(body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(body);
}

/// Reads as a host does, up to the end, or to `most` items: each is asked for, and slept for when there is none.
fn read(queue: &Queue<Host>, bell: &Notify, most: usize) -> (Vec<u8>, bool) {
    let (mut reader, mut items) = (Reader::default(), Vec::new());
    while items.len() < most {
        match reader.pull(queue, Wait::Away) {
            Pulled::Item(payload, _) => items.push(payload[0]),
            Pulled::Nothing => bell.wait(),
            Pulled::Ended | Pulled::Closed => return (items, true),
        }
    }
    (items, false)
}

/// A job that sends more than there is room for, and ends: the host reads all of it, in order, and then the end.
#[test]
fn all_that_is_sent_is_read() {
    model(|| {
        let (queue, bell) = queue();
        let job = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                for item in 0..3 {
                    assert_eq!(queue.push(&[item], &[], Wait::Here), Pushed::Taken);
                }
                assert_eq!(queue.end(), Pushed::Taken);
            })
        };
        assert_eq!(read(&queue, &bell, 9), (vec![0, 1, 2], true));
        job.join().unwrap();
    });
}

/// Two threads of a job's send: each one's items come in its order.
#[test]
fn two_threads_send() {
    model(|| {
        let (queue, bell) = queue();
        let jobs = [0, 10].map(|first| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || assert_eq!(queue.push(&[first], &[], Wait::Here), Pushed::Taken))
        });
        let (mut items, _) = read(&queue, &bell, 2);
        items.sort_unstable();
        assert_eq!(items, [0, 10]);
        jobs.into_iter().for_each(|job| job.join().unwrap());
    });
}

/// A host that feeds more than there is room for, and sleeps until it is woken: the job reads all of it, and the end.
#[test]
fn all_that_is_fed_is_read() {
    model(|| {
        let (queue, bell) = queue();
        let job = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let (mut reader, mut items) = (Reader::default(), Vec::new());
                while let Pulled::Item(payload, _) = reader.pull(&queue, Wait::Here) {
                    items.push(payload[0]);
                }
                items
            })
        };
        for item in 0..3 {
            while queue.push(&[item], &[], Wait::Away) == Pushed::Full {
                bell.wait();
            }
        }
        queue.end();
        assert_eq!(queue.push(&[9], &[], Wait::Away), Pushed::Ended);
        assert_eq!(job.join().unwrap(), [0, 1, 2]);
    });
}

/// A reader that goes away in between: the job that waits for room hears of it, and so does the one that comes later.
#[test]
fn close_frees_a_sender() {
    model(|| {
        let (queue, bell) = queue();
        let job = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let sent = (0..3).take_while(|item| queue.push(&[*item], &[], Wait::Here) == Pushed::Taken).count();
                assert!(sent < 3);
                queue.end();
            })
        };
        let (items, _) = read(&queue, &bell, 1);
        assert_eq!(items, [0]);
        queue.close();
        job.join().unwrap();
    });
}

/// A close from a third thread, as cancel comes: the host that sleeps is woken, and the job that waits is freed.
#[test]
fn close_wakes_both() {
    model(|| {
        let (queue, bell) = queue();
        let canceller = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.close())
        };
        let job = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let _ = (0..2).all(|_| queue.push(&[1], &[], Wait::Here) == Pushed::Taken);
                queue.end();
            })
        };
        let (_, over) = read(&queue, &bell, usize::MAX);
        assert!(over);
        canceller.join().unwrap();
        job.join().unwrap();
    });
}
