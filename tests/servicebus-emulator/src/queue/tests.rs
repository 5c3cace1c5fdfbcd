use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const LOCK: Millis = 1000;

fn rules() -> Rules {
    Rules {
        lock: Duration::from_millis(1000),
        max_deliveries: 3,
        time_to_live: None,
        dead_letter_expired: false,
    }
}

fn token(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn reason(message: &Message<u32>) -> Option<&str> {
    message.dead_letter.as_ref().and_then(|why| why.reason.as_deref())
}

#[test]
fn messages_come_oldest_first_and_one_at_a_time() {
    let mut queue = Queue::new(rules());
    for payload in 0..3 {
        queue.send(0, payload, None, None);
    }
    let received: Vec<u32> =
        (0..3).map(|n| queue.lock_next(0, Part::Main, token(n)).unwrap().message.payload).collect();
    assert_eq!(received, [0, 1, 2]);
    assert_eq!(queue.lock_next(0, Part::Main, token(9)), None);
}

#[test]
fn a_lock_lasts_to_the_millisecond_and_then_the_message_is_one_delivery_older() {
    let mut queue = Queue::new(rules());
    queue.send(0, 7, None, None);
    let delivery = queue.lock_next(10, Part::Main, token(1)).unwrap();
    assert_eq!(delivery.locked_until, 10 + LOCK);
    assert_eq!(queue.lock_next(9 + LOCK, Part::Main, token(2)), None);
    let again = queue.lock_next(10 + LOCK, Part::Main, token(2)).unwrap();
    assert_eq!(again.message.deliveries, 1);
    let late = queue.settle(10 + LOCK, Part::Main, token(1), Settlement::Complete);
    assert_eq!(late, Err(LockLost), "the first receiver lost its lock");
    assert_eq!(queue.settle(10 + LOCK, Part::Main, token(2), Settlement::Complete), Ok(()));
    assert_eq!(queue.counts(10 + LOCK), Counts::default());
}

#[test]
fn renewal_counts_from_now() {
    let mut queue = Queue::new(rules());
    queue.send(0, 7, None, None);
    queue.lock_next(0, Part::Main, token(1)).unwrap();
    assert_eq!(queue.renew(600, Part::Main, token(1)), Ok(600 + LOCK));
    assert_eq!(queue.counts(LOCK).locked, 1, "the old end has no effect");
    assert_eq!(queue.renew(600 + LOCK, Part::Main, token(1)), Err(LockLost));
    assert_eq!(queue.counts(600 + LOCK).ready, 1);
}

#[test]
fn a_message_is_dead_after_the_last_delivery_in_whatever_way_it_failed() {
    let mut queue = Queue::new(rules());
    queue.send(0, 7, None, None);
    let mut now = 0;
    for delivery in 0..3 {
        let locked = queue.lock_next(now, Part::Main, token(delivery)).unwrap();
        assert_eq!(u128::from(locked.message.deliveries), delivery);
        match delivery {
            0 => queue.settle(now, Part::Main, token(delivery), Settlement::Abandon).unwrap(),
            1 => now += LOCK,
            _ => queue.lose_lock(now, Part::Main, token(delivery)).unwrap(),
        }
    }
    assert_eq!(queue.lock_next(now, Part::Main, token(9)), None);
    let dead = queue.take_next(now, Part::DeadLetter).unwrap();
    assert_eq!(reason(&dead), Some(MAX_DELIVERIES_EXCEEDED));
}

#[test]
fn releasing_does_not_age_a_message() {
    let mut queue = Queue::new(rules());
    queue.send(0, 7, None, None);
    for attempt in 0..10 {
        let locked = queue.lock_next(0, Part::Main, token(attempt)).unwrap();
        assert_eq!(locked.message.deliveries, 0);
        queue.settle(0, Part::Main, token(attempt), Settlement::Release).unwrap();
    }
}

#[test]
fn the_dead_letter_queue_is_read_like_any_other_but_never_gives_up() {
    let mut queue = Queue::new(rules());
    let sequence = queue.send(0, 7, None, Some(Duration::from_millis(50)));
    queue.lock_next(0, Part::Main, token(0)).unwrap();
    let why = DeadLetter { reason: Some("NotARaster".to_owned()), description: None };
    queue.settle(0, Part::Main, token(0), Settlement::DeadLetter(why.clone())).unwrap();
    for attempt in 1..10 {
        let locked = queue.lock_next(5000, Part::DeadLetter, token(attempt)).unwrap();
        assert_eq!((locked.message.sequence, locked.message.dead_letter), (sequence, Some(why.clone())));
        queue.settle(5000, Part::DeadLetter, token(attempt), Settlement::Abandon).unwrap();
    }
    queue.lock_next(5000, Part::DeadLetter, token(10)).unwrap();
    let elsewhere = queue.settle(5000, Part::Main, token(10), Settlement::Complete);
    assert_eq!(elsewhere, Err(LockLost), "a lock of one part is none of the other");
    assert_eq!(queue.settle(5000, Part::DeadLetter, token(10), Settlement::Complete), Ok(()));
    assert_eq!(queue.counts(5000), Counts::default());
}

#[test]
fn a_scheduled_message_comes_at_its_time_unless_cancelled() {
    let mut queue = Queue::new(rules());
    let kept = queue.send(0, 1, Some(100), None);
    let cancelled = queue.send(0, 2, Some(100), None);
    assert!(queue.cancel(99, cancelled));
    assert!(!queue.cancel(99, cancelled));
    assert_eq!(queue.lock_next(99, Part::Main, token(1)), None);
    let delivery = queue.lock_next(100, Part::Main, token(1)).unwrap();
    assert_eq!((delivery.message.sequence, delivery.message.enqueued), (kept, 100));
    assert!(!queue.cancel(100, kept), "it is not scheduled any more");
}

#[test]
fn a_deferred_message_stays_deferred_until_it_is_completed() {
    let mut queue = Queue::new(rules());
    let sequence = queue.send(0, 1, None, None);
    assert_eq!(queue.lock_deferred(0, Part::Main, sequence, token(1)), None, "it is not deferred yet");
    queue.lock_next(0, Part::Main, token(1)).unwrap();
    queue.settle(0, Part::Main, token(1), Settlement::Defer).unwrap();
    assert_eq!(queue.lock_next(0, Part::Main, token(2)), None);
    queue.lock_deferred(0, Part::Main, sequence, token(3)).unwrap();
    assert_eq!(queue.lock_deferred(0, Part::Main, sequence, token(4)), None, "it is locked");
    assert_eq!(queue.peek(0, Part::Main, 0, 9)[0].1, Visibility::Deferred);
    queue.advance(LOCK);
    assert_eq!(queue.counts(LOCK).deferred, 1);
    queue.lock_deferred(LOCK, Part::Main, sequence, token(5)).unwrap();
    queue.settle(LOCK, Part::Main, token(5), Settlement::Complete).unwrap();
    assert_eq!(queue.counts(LOCK), Counts::default());
}

#[test]
fn a_message_that_outlives_its_time_is_dropped_or_dead_but_not_under_a_lock() {
    for dead_letter_expired in [false, true] {
        let time_to_live = Some(Duration::from_millis(500));
        let mut queue = Queue::new(Rules { time_to_live, dead_letter_expired, ..rules() });
        queue.send(0, 1, None, Some(Duration::from_secs(60)));
        queue.send(0, 2, Some(400), None);
        queue.lock_next(499, Part::Main, token(1)).unwrap();
        assert_eq!(queue.counts(899), Counts { ready: 1, locked: 1, ..Counts::default() });
        assert_eq!(queue.counts(900).ready, 0, "the second lived 500 ms from 400 on");
        queue.settle(901, Part::Main, token(1), Settlement::Abandon).unwrap();
        let dead = if dead_letter_expired { 2 } else { 0 };
        assert_eq!(queue.counts(901), Counts { dead, ..Counts::default() });
        if let Some(message) = queue.take_next(901, Part::DeadLetter) {
            assert_eq!(reason(&message), Some(TIME_TO_LIVE_EXPIRED));
        }
    }
}

#[test]
fn purging_forgets_the_messages_but_not_the_count() {
    let mut queue = Queue::new(rules());
    queue.send(0, 1, None, None);
    queue.purge();
    assert_eq!(queue.counts(0), Counts::default());
    assert_eq!(queue.send(0, 2, None, None), 2);
}

/// Something a client or the clock does.
#[derive(Debug, Clone)]
enum Step {
    Send { delay: Millis },
    Lock(Part),
    Settle { nth: usize, settlement: Settlement },
    Renew { nth: usize },
    Wait(Millis),
}

fn step() -> impl Strategy<Value = Step> {
    let part = prop_oneof![4 => Just(Part::Main), 1 => Just(Part::DeadLetter)];
    let settlement = prop_oneof![
        Just(Settlement::Complete),
        Just(Settlement::Abandon),
        Just(Settlement::Release),
        Just(Settlement::Defer),
        Just(Settlement::DeadLetter(DeadLetter::default())),
    ];
    prop_oneof![
        (0..2 * LOCK).prop_map(|delay| Step::Send { delay }),
        part.prop_map(Step::Lock),
        (0..8_usize, settlement).prop_map(|(nth, settlement)| Step::Settle { nth, settlement }),
        (0..8_usize).prop_map(|nth| Step::Renew { nth }),
        (0..LOCK).prop_map(Step::Wait),
    ]
}

/// A lock as its holder knows it.
struct Held {
    token: Uuid,
    part: Part,
    sequence: Sequence,
    until: Millis,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 100, ..ProptestConfig::default() })]

    /// Whatever is done: no message is lost or doubled, no two hold one message, a lock is good exactly until its end,
    /// and nobody is handed a message for the fourth time.
    #[test]
    fn messages_are_kept_and_held_by_one_at_a_time(steps in prop::collection::vec(step(), 1..120)) {
        let mut queue = Queue::new(rules());
        let (mut now, mut sent, mut completed, mut tokens) = (0, 0, 0, 0);
        let mut held: Vec<Held> = Vec::new();
        for step in steps {
            match step {
                Step::Send { delay } => {
                    sent += 1;
                    prop_assert_eq!(queue.send(now, sent, Some(now + delay), None), Sequence::from(sent));
                }
                Step::Lock(part) => {
                    tokens += 1;
                    if let Some(delivery) = queue.lock_next(now, part, token(tokens)) {
                        let sequence = delivery.message.sequence;
                        let other = held.iter().find(|other| other.sequence == sequence && other.until > now);
                        prop_assert!(other.is_none(), "{sequence} is held twice");
                        prop_assert!(part == Part::DeadLetter || delivery.message.deliveries < 3);
                        held.push(Held { token: delivery.token, part, sequence, until: delivery.locked_until });
                    }
                }
                Step::Settle { nth, settlement } if nth < held.len() => {
                    let lock = held.remove(nth);
                    let settled = queue.settle(now, lock.part, lock.token, settlement.clone());
                    prop_assert_eq!(settled.is_ok(), lock.until > now);
                    completed += u32::from(settled.is_ok() && settlement == Settlement::Complete);
                }
                Step::Renew { nth } if nth < held.len() => {
                    let lock = &mut held[nth];
                    let renewed = queue.renew(now, lock.part, lock.token);
                    prop_assert_eq!(renewed.is_ok(), lock.until > now);
                    lock.until = renewed.unwrap_or(lock.until);
                }
                Step::Wait(time) => now += time,
                Step::Settle { .. } | Step::Renew { .. } => {}
            }
            let Counts { ready, locked, deferred, scheduled, dead } = queue.counts(now);
            prop_assert_eq!(ready + locked + deferred + scheduled + dead, (sent - completed) as usize);
            let holding = |lock: &&Held| lock.part == Part::Main && lock.until > now;
            prop_assert_eq!(locked, held.iter().filter(holding).count());
            let by_sequence: HashMap<_, _> = held.iter().map(|lock| (lock.sequence, lock.until)).collect();
            prop_assert_eq!(queue.locks.len(), by_sequence.values().filter(|until| **until > now).count());
        }
    }
}
