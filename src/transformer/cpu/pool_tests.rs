//! The pool calls every part once, whatever happens.

use super::*;

#[test]
fn every_part_is_called_once_whatever_their_number() {
    for threads in [1, 2, 5] {
        let pool = Pool::new(threads, None).unwrap();
        for round in 0..300 {
            let parts = round % 17;
            let calls: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
            pool.each(parts, |i| {
                calls[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(calls.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads} {parts}");
            if round % 100 == 0 {
                // Long enough for the workers to fall asleep.
                std::thread::sleep(std::time::Duration::from_millis(3));
            }
        }
    }
}

#[test]
fn pieces_cover_the_data_and_do_not_overlap() {
    let pool = Pool::new(3, None).unwrap();
    let source: Vec<u32> = (0..1003).collect();
    let mut to = vec![0u32; 1003];
    pool.over((writing(&mut to, 64), reading(&source, 64)), |_, (to, from)| to.copy_from_slice(from));
    assert_eq!(to, source);
}

#[test]
fn a_job_inside_a_job_and_from_several_threads_is_done() {
    let pool = Pool::new(2, None).unwrap();
    let count = AtomicUsize::new(0);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..50 {
                    pool.each(4, |_| {
                        pool.each(3, |_| {
                            count.fetch_add(1, Ordering::Relaxed);
                        });
                    });
                }
            });
        }
    });
    assert_eq!(count.load(Ordering::Relaxed), 4 * 50 * 12);
}

#[test]
fn a_panic_in_an_operation_reaches_the_caller_and_the_pool_goes_on() {
    let pool = Pool::new(2, None).unwrap();
    let failed = catch_unwind(AssertUnwindSafe(|| pool.each(64, |i| assert!(i != 40, "planted"))));
    assert!(failed.is_err());
    let count = AtomicUsize::new(0);
    pool.each(64, |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    assert_eq!(count.load(Ordering::Relaxed), 64);
}

/// Processor time of the calling thread.
#[cfg(target_os = "linux")]
fn thread_seconds() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

#[test]
#[cfg(target_os = "linux")]
fn a_caller_whose_workers_take_long_sleeps_and_leaves_them_its_core() {
    use std::time::{Duration, Instant};
    let pool = Pool::new(2, None).unwrap();
    let begun = AtomicBool::new(false);
    let caller = std::thread::current().id();
    let (wall, computed) = (Instant::now(), thread_seconds());
    pool.each(2, |_| {
        if std::thread::current().id() == caller {
            // The other part is the worker's.
            while !begun.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(1));
            }
        } else {
            begun.store(true, Ordering::Release);
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    assert!(wall.elapsed() >= Duration::from_millis(300));
    let computed = thread_seconds() - computed;
    assert!(computed < 0.1, "it computed for {computed} s of 0.3");
}

#[test]
fn every_thread_has_scratch_of_its_own_and_the_pool_keeps_one_piece_whoever_comes_first() {
    for threads in [1, 2, 4] {
        let pool = Pool::new(threads, None).unwrap();
        for round in 0..100 {
            pool.each_with(round % 9, 33, |i, scratch| {
                assert_eq!(scratch.len(), 33);
                scratch.fill(i as f32);
                std::hint::spin_loop();
                assert!(scratch.iter().all(|x| *x == i as f32), "another thread wrote here");
            });
        }
        assert_eq!(held(&pool.scratch).len(), 1);
    }
}
