use super::*;
use crate::net::rendezvous::listen;

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `each` as every process of a world of `size` on loopback; what each returned, in the order of their ranks.
pub(crate) fn on_loopback<T: Send>(size: usize, each: impl Fn(Net) -> T + Sync) -> Vec<T> {
    let listener = listen("127.0.0.1", 0).unwrap();
    let port = listener.local_addr().unwrap().port();
    let world = |rank| World {
        rank,
        size,
        local_rank: rank,
        local_size: size,
        own_cores: false,
        host: "127.0.0.1".into(),
        port,
    };
    std::thread::scope(|scope| {
        let (each, listener) = (&each, &listener);
        let start = |rank| {
            let at = (rank == 0).then_some(listener);
            scope.spawn(move || each(Net::meet(world(rank), 7, at, PATIENCE).unwrap()))
        };
        let started: Vec<_> = (0..size).map(start).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn all_are_told_what_rank_0_says_and_which_ranks_are_theirs() {
    for (rank, (told, part, refused)) in
        on_loopback(3, |net| (net.told(vec![net.world.rank as u8 + 5; 3]).unwrap(), net.part_of(6), net.part_of(4)))
            .into_iter()
            .enumerate()
    {
        assert_eq!(told, [5, 5, 5]);
        assert_eq!(part.unwrap(), rank * 2..rank * 2 + 2);
        let refused = refused.unwrap_err().to_string();
        assert_eq!(refused, "4 devices do not divide among 3 processes; use a multiple of 3");
    }
    assert!(does_not_divide(1, 2).starts_with("1 device does not divide"));
}
