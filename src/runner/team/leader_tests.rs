use super::*;
use crate::transformer::memory::MemoryParts;

fn ended(status: Status, reason: &str, elsewhere: bool) -> Option<Part> {
    let bytes = [3, 2, 1];
    Some(Part::Ended(Box::new(Ended { status, reason: reason.into(), elsewhere, bytes, disturbance: None })))
}

fn leader(status: Status) -> Measurement {
    let reason = if status == Status::Ok { "" } else { "rank 1 is gone" };
    let mut m = Measurement::without_figures(status, reason, MemoryParts::default());
    let records = crate::runner::measurement::Figures {
        peak_rss_bytes: 10,
        baseline_rss_bytes: 10,
        peak_allocated_bytes: 10,
        step_seconds: vec![0.1],
        first_token_seconds: vec![],
        launches: vec![],
        warmup_steps: 1,
        tokens_per_step: 8,
        stopped_by: crate::runner::measurement::Stop::Precision,
        precision_reached: None,
        loss: None,
        checksum: 0,
        quantization_loss: None,
        steal_share: None,
        watts: None,
        telemetry: None,
        first_allocated_bytes: None,
        machine_rates: Vec::new(),
        disturbance: None,
        served: vec![],
        profile: None,
        learned: vec![],
        device_memory: None,
        expert_loads: None,
    };
    m.figures = (status == Status::Ok).then_some(records);
    m
}

#[test]
fn the_reason_is_that_of_the_process_at_fault() {
    let others = [
        ended(Status::Crashed, "rank 0 is gone", true),
        None,
        ended(Status::Oom, "memory allocation of 4096 bytes failed", false),
    ];
    let m = judged(leader(Status::Crashed), true, &others);
    assert_eq!((m.status, m.reason.as_str()), (Status::Oom, "rank 3: memory allocation of 4096 bytes failed"));
    let gone = Lost { peer: Peer::Rank(1), how: crate::net::lost::How::Gone };
    let m = judged(leader(Status::Crashed), true, &[Some(Part::Lost(gone.into())), None]);
    assert_eq!((m.status, m.reason.as_str()), (Status::Crashed, "rank 1 is gone"), "its name is said once");
    let m = judged(leader(Status::Crashed), false, &others);
    assert_eq!(m.reason, "rank 1 is gone", "the leader's own fault stays");
    let m = judged(leader(Status::Ok), false, &others);
    assert_eq!((m.status, m.figures), (Status::Oom, None), "figures of a part that failed count for nothing");
}

#[test]
fn memory_is_that_of_all_processes() {
    let m = judged(leader(Status::Ok), false, &[ended(Status::Ok, "", false), ended(Status::Ok, "", false)]);
    let figures = m.figures.unwrap();
    assert_eq!((figures.peak_rss_bytes, figures.baseline_rss_bytes, figures.peak_allocated_bytes), (16, 14, 12));
}
