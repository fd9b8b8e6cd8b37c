//! What on this machine would disturb a measurement now, and what to do about it.

use std::fs;

/// Something that makes figures worth less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disturbance {
    pub what: String,
    pub remedy: &'static str,
}

/// Everything that the system tells of. Nothing is guessed: what the system does not tell is not in the list.
pub(crate) fn disturbances(cores: u32) -> Vec<Disturbance> {
    [load(cores), governor(), swapping(), quota(cores)].into_iter().flatten().collect()
}

/// A first number of a file of the kernel.
fn number(path: &str) -> Option<f64> {
    fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

/// Clock rates of the cores in MHz as the kernel reports them now, lowest and highest; `None` where it does not. Hypervisors
/// often show a constant.
pub(crate) fn clock_mhz() -> Option<(f64, f64)> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let lines = text.lines().filter(|l| l.starts_with("cpu MHz"));
    let all: Vec<f64> = lines.filter_map(|l| l.split(':').nth(1)?.trim().parse().ok()).collect();
    let (low, high) = all.iter().fold((f64::INFINITY, 0.0_f64), |(l, h), x| (l.min(*x), h.max(*x)));
    (high > 0.0).then_some((low, high))
}

/// Mean number of tasks that wanted a core in the last minute; `None` where the kernel does not say.
pub(crate) fn load_average() -> Option<f64> {
    number("/proc/loadavg")
}

fn load(cores: u32) -> Option<Disturbance> {
    let load = load_average()?;
    (load > 0.5 * f64::from(cores)).then(|| Disturbance {
        what: format!("load average {load:.2} on {cores} cores: other programs are computing"),
        remedy: "stop them, or wait until they are done",
    })
}

fn governor() -> Option<Disturbance> {
    let governor = fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").ok()?;
    let governor = governor.trim();
    (governor != "performance").then(|| Disturbance {
        what: format!("CPU frequency governor `{governor}`: clock rates follow the load"),
        remedy: "cpupower frequency-set -g performance, where it is your machine",
    })
}

fn swapping() -> Option<Disturbance> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib = |name: &str| -> Option<u64> {
        let line = text.lines().find(|l| l.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let used = kib("SwapTotal:")?.checked_sub(kib("SwapFree:")?)?;
    (used > 64 << 10).then(|| Disturbance {
        what: format!("{} MiB are in swap: memory is short, or was", used >> 10),
        remedy: "free memory before measuring",
    })
}

/// A quota that is no whole number of cores stops the process within each period.
fn quota(cores: u32) -> Option<Disturbance> {
    let text = fs::read_to_string("/sys/fs/cgroup/cpu.max").ok()?;
    let mut fields = text.split_whitespace().map(str::parse::<f64>);
    let (limit, period) = (fields.next()?.ok()?, fields.next()?.ok()?);
    let granted = limit / period;
    (granted < f64::from(cores)).then(|| Disturbance {
        what: format!(
            "the container's quota is {granted:.2} cores, and {cores} are visible: the kernel pauses the process"
        ),
        remedy: "pin to whole cores (cpuset) instead of a quota",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_of_many_cores_is_not_called_loaded() {
        // The load of any machine that runs these tests is below half a million.
        assert!(disturbances(1_000_000).iter().all(|d| !d.what.starts_with("load average")));
        assert!(disturbances(2).iter().all(|d| !d.remedy.is_empty()));
    }
}
