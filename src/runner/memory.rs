//! Memory of this process, and the evidence that the kernel killed somebody for want of it.

use std::fs;

/// Resident bytes of this process now, and the most there ever were.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Resident {
    pub now: u64,
    pub peak: u64,
}

/// Reads this process's resident memory from /proc/self/status (VmRSS and VmHWM); `None` where there is none.
pub(super) fn resident() -> Option<Resident> {
    parse_status(&fs::read_to_string("/proc/self/status").ok()?)
}

/// The same of another process.
pub(super) fn resident_of(pid: u32) -> Option<Resident> {
    parse_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse_status(status: &str) -> Option<Resident> {
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    };
    let now = field("VmRSS:")?;
    // Some sandboxes leave the peak out: then what is held now is the best lower bound.
    Some(Resident { now, peak: field("VmHWM:").unwrap_or(now).max(now) })
}

/// Has the peak of this process begin anew, from what it holds now; where the system does not know how, it stays.
pub(super) fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Asks the kernel to take this process first when memory runs out, rather than the parent, who holds the results.
pub(super) fn volunteer_for_the_oom_killer() {
    // Where it is not allowed, the kernel's own choice stands.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
}

/// How many processes the kernel has killed for want of memory: in this control group where it counts them, and on the
/// whole machine. A trial that was killed while this grew was killed for that.
pub(super) fn oom_kills() -> u64 {
    let count = |path: String| fs::read_to_string(path).ok().and_then(|text| parse_oom_kills(&text));
    let group = |wanted: fn(&str) -> bool| {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let line = groups.lines().find(|l| l.split(':').nth(1).is_some_and(wanted))?;
        Some(line.splitn(3, ':').nth(2)?.to_string())
    };
    let v2 = group(str::is_empty).and_then(|g| count(format!("/sys/fs/cgroup{g}/memory.events")));
    let v1 = group(|c| c.split(',').any(|c| c == "memory"))
        .and_then(|g| count(format!("/sys/fs/cgroup/memory{g}/memory.oom_control")));
    let machine = count("/proc/vmstat".into());
    [v2, v1, machine].into_iter().flatten().fold(0, u64::saturating_add)
}

/// The line "oom_kill N", which the three files share.
fn parse_oom_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_bytes_are_kibibytes_in_the_file() {
        let status = "Name:\tcentime\nVmPeak:\t  900 kB\nVmHWM:\t    300 kB\nVmRSS:\t    200 kB\n";
        assert_eq!(parse_status(status), Some(Resident { now: 200 * 1024, peak: 300 * 1024 }));
        assert_eq!(parse_status("VmRSS:\t 200 kB\n"), Some(Resident { now: 200 * 1024, peak: 200 * 1024 }));
        assert_eq!(parse_status("Name:\tcentime\n"), None);
    }

    #[test]
    fn kills_are_counted_by_the_line_of_that_name() {
        assert_eq!(parse_oom_kills("low 0\noom 4\noom_kill 3\noom_group_kill 9\n"), Some(3));
        assert_eq!(parse_oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), Some(2));
        assert_eq!(parse_oom_kills("oom 1\n"), None);
    }
}
