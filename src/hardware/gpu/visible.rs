//! Which of the machine's GPUs a CUDA program sees.
//!
//! Source: CUDA C++ Programming Guide, CUDA environment variables: CUDA_VISIBLE_DEVICES is a list of places or of beginnings of
//! UUIDs; what stands after an entry that means nothing is not seen. NVML counts GPUs by their place on the bus; CUDA does so with
//! CUDA_DEVICE_ORDER=PCI_BUS_ID and else puts the fastest first, which is the same where all GPUs are alike.

use super::Gpu;

/// The variable that narrows the choice down.
pub(super) const VARIABLE: &str = "CUDA_VISIBLE_DEVICES";

/// Places in `all` of the GPUs that are seen, in the program's order; `setting` is the variable's value where it is set.
pub(crate) fn visible(all: &[Gpu], setting: Option<&str>) -> Vec<usize> {
    let Some(setting) = setting else { return (0..all.len()).collect() };
    let mut seen = Vec::new();
    for entry in setting.split(',').map(str::trim) {
        match place(all, entry) {
            Some(i) if !seen.contains(&i) => seen.push(i),
            // Two instances of one partitioned GPU.
            Some(_) if entry.starts_with("MIG-") => {}
            _ => break,
        }
    }
    seen
}

fn place(all: &[Gpu], entry: &str) -> Option<usize> {
    if let Ok(i) = entry.parse::<usize>() {
        return (i < all.len()).then_some(i);
    }
    // "MIG-GPU-<uuid>/1/0" names the GPU; "MIG-<uuid>" does not, and belongs to one that is partitioned.
    let uuid = entry.strip_prefix("MIG-").unwrap_or(entry).split('/').next().unwrap_or(entry);
    let named = uuid.len() > 4 && uuid.starts_with("GPU-");
    if named {
        return all.iter().position(|g| g.uuid.starts_with(uuid));
    }
    entry.starts_with("MIG-").then(|| all.iter().position(|g| g.mig == Some(true)))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus() -> Vec<Gpu> {
        let uuids = ["GPU-aaaa-1", "GPU-aabb-2", "GPU-cccc-3"];
        let gpu = |(i, uuid): (usize, &&str)| Gpu { index: i as u32, uuid: (*uuid).into(), ..Gpu::default() };
        uuids.iter().enumerate().map(gpu).collect()
    }

    #[test]
    fn places_and_beginnings_of_uuids_are_understood() {
        let all = gpus();
        assert_eq!(visible(&all, None), [0, 1, 2]);
        assert_eq!(visible(&all, Some("2, 0")), [2, 0]);
        assert_eq!(visible(&all, Some("GPU-cc,GPU-aabb")), [2, 1]);
        assert_eq!(visible(&all, Some("MIG-GPU-cccc-3/1/0")), [2]);
    }

    #[test]
    fn nothing_is_seen_after_an_entry_that_means_nothing() {
        let all = gpus();
        for (setting, seen) in
            [("", vec![]), ("-1", vec![]), ("1,9,0", vec![1]), ("GPU-,0", vec![]), ("0,0,1", vec![0])]
        {
            assert_eq!(visible(&all, Some(setting)), seen, "{setting}");
        }
    }

    #[test]
    fn an_instance_belongs_to_the_gpu_that_is_partitioned() {
        let mut all = gpus();
        assert_eq!(visible(&all, Some("MIG-1234")), [0usize; 0]);
        all[1].mig = Some(true);
        assert_eq!(visible(&all, Some("MIG-1234,MIG-5678")), [1]);
    }
}
