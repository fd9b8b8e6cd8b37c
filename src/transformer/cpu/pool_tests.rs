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
