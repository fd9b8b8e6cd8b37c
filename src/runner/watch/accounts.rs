//! One reading of the kernel's accounts. Parsing is apart from reading, so that it can be tested on any system.

use std::fs;

/// Seconds of a tick of /proc/stat, by which any account of a core may be late or early.
pub(super) const TICK: f64 = 0.01;

/// Microseconds to seconds.
const MICRO: f64 = 1e-6;

/// Everything that is read at the start, now and then, and at the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Accounts {
    /// On the trial's clock, in seconds.
    pub at: f64,
    /// The same on a clock that stands still in pauses; only differences count.
    pub active: f64,
    /// Processor time of this process, in seconds.
    pub own: Option<f64>,
    /// Of the cores that it may run on.
    pub cores: Vec<Core>,
    pub preemptions: Option<u64>,
    pub major_faults: Option<u64>,
    pub numa_misses: Option<u64>,
    /// Seconds in which some task waited for a processor, for memory, for a disk.
    pub pressure: [Option<f64>; 3],
    /// Seconds for which the control group, or one above it, was held by its quota.
    pub throttled: Option<f64>,
    /// Seconds of each core in which heat slowed it down.
    pub hot: Vec<f64>,
    pub clock_mhz: Option<f64>,
}

/// A core's account, in ticks: a hundredth of a second each, whatever the kernel's own are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Core {
    pub number: usize,
    pub busy: u64,
    pub stolen: u64,
}

/// A thread of this process: nanoseconds that it ran, and that it was runnable and did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub id: u32,
    pub ran: u64,
    pub waited: u64,
}

impl Accounts {
    /// Now, over these cores.
    pub(super) fn now(at: f64, cores: &[usize]) -> Self {
        let pressure = |of: &str| parse_pressure(&fs::read_to_string(format!("/proc/pressure/{of}")).ok()?);
        Self {
            at,
            active: at,
            own: own_seconds(),
            cores: these(cores).collect(),
            preemptions: preemptions(),
            major_faults: fs::read_to_string("/proc/self/stat").ok().and_then(|text| parse_major_faults(&text)),
            numa_misses: numa_misses(),
            pressure: [pressure("cpu"), pressure("memory"), pressure("io")],
            throttled: throttled(),
            hot: cores.iter().filter_map(|c| heat(*c)).collect(),
            clock_mhz: clock_mhz(cores),
        }
    }
}

impl Accounts {
    /// Makes what was counted from `before` to `after`, both later than this reading, not count: nothing was measured in that time.
    pub(super) fn leave_out(&mut self, before: &Self, after: &Self) {
        let add = |to: &mut f64, a: f64, b: f64| *to += b - a;
        let add_some =
            |to: &mut Option<f64>, a: Option<f64>, b: Option<f64>| *to = to.zip(b.zip(a)).map(|(x, (b, a))| x + b - a);
        let add_count = |to: &mut Option<u64>, a: Option<u64>, b: Option<u64>| {
            *to = to.zip(b.zip(a)).map(|(x, (b, a))| x.saturating_add(b.saturating_sub(a)));
        };
        add(&mut self.active, before.active, after.active);
        add_some(&mut self.own, before.own, after.own);
        add_some(&mut self.throttled, before.throttled, after.throttled);
        for (mine, (a, b)) in self.pressure.iter_mut().zip(before.pressure.into_iter().zip(after.pressure)) {
            add_some(mine, a, b);
        }
        for (mine, (a, b)) in self.hot.iter_mut().zip(before.hot.iter().zip(&after.hot)) {
            add(mine, *a, *b);
        }
        for (mine, (a, b)) in self.cores.iter_mut().zip(before.cores.iter().zip(&after.cores)) {
            mine.busy += b.busy.saturating_sub(a.busy);
            mine.stolen += b.stolen.saturating_sub(a.stolen);
        }
        add_count(&mut self.preemptions, before.preemptions, after.preemptions);
        add_count(&mut self.major_faults, before.major_faults, after.major_faults);
        add_count(&mut self.numa_misses, before.numa_misses, after.numa_misses);
    }
}

/// Seconds for which these cores were busy, all together.
pub(super) fn busy_seconds(cores: &[usize]) -> f64 {
    these(cores).map(|c| c.busy).sum::<u64>() as f64 * TICK
}

/// The accounts of these cores now.
fn these(cores: &[usize]) -> impl Iterator<Item = Core> {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    parse_cores(&stat).into_iter().filter(|c| cores.contains(&c.number))
}

/// The cores that this process may run on, ascending; none where the system does not tell. To be asked before threads bind themselves.
pub(super) fn allowed_cores() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
    list.map(parse_list).unwrap_or_default()
}

/// Every thread of this process; `None` where the kernel keeps no such account.
pub(super) fn tasks() -> Option<Vec<Task>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc/self/task").ok()?.flatten() {
        // A thread that ends between the listing and the reading is none.
        let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
        let id = entry.file_name().to_str().and_then(|n| n.parse().ok());
        all.extend(id.and_then(|id| parse_task(id, &text)));
    }
    (!all.is_empty()).then_some(all)
}

fn parse_task(id: u32, text: &str) -> Option<Task> {
    let mut fields = text.split_whitespace().map(str::parse);
    Some(Task { id, ran: fields.next()?.ok()?, waited: fields.next()?.ok()? })
}

/// Lines "cpu0 user nice system idle iowait irq softirq steal ...".
fn parse_cores(stat: &str) -> Vec<Core> {
    let one = |line: &str| {
        let (number, rest) = line.strip_prefix("cpu")?.split_once(' ')?;
        let fields: Vec<u64> = rest.split_whitespace().map_while(|f| f.parse().ok()).collect();
        let [user, nice, system, _, _, irq, softirq, stolen, ..] = fields[..] else { return None };
        Some(Core { number: number.parse().ok()?, busy: user + nice + system + irq + softirq, stolen })
    };
    stat.lines().filter_map(one).collect()
}

/// Cores as the kernel lists them: "0-3,8".
fn parse_list(text: &str) -> Vec<usize> {
    let mut all = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            all.extend(first..=last.min(first + 65_535));
        }
    }
    all
}

/// The line "some ... total=N", in microseconds.
fn parse_pressure(text: &str) -> Option<f64> {
    let some = text.lines().find(|l| l.starts_with("some "))?;
    let total: u64 = some.rsplit_once("total=")?.1.trim().parse().ok()?;
    Some(total as f64 * MICRO)
}

/// The twelfth field; the second is a name in parentheses, with whatever characters.
fn parse_major_faults(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(9)?.parse().ok()
}

/// A number after a name, as most files of the kernel have them.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

fn preemptions() -> Option<u64> {
    let tasks = fs::read_dir("/proc/self/task").ok()?.flatten();
    let one =
        |e: fs::DirEntry| field(&fs::read_to_string(e.path().join("status")).ok()?, "nonvoluntary_ctxt_switches:");
    tasks.filter_map(one).reduce(u64::saturating_add)
}

fn numa_misses() -> Option<u64> {
    let nodes = fs::read_dir("/sys/devices/system/node").ok()?.flatten();
    let one = |e: fs::DirEntry| field(&fs::read_to_string(e.path().join("numastat")).ok()?, "numa_miss ");
    nodes.filter_map(one).reduce(u64::saturating_add)
}

/// Of this process's control group and those above it, the one that was held longest: a quota may stand at any of them.
fn throttled() -> Option<f64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let of_mounts = [("/sys/fs/cgroup", ""), ("/sys/fs/cgroup/cpu", "cpu"), ("/sys/fs/cgroup/cpu,cpuacct", "cpu")];
    let mut all = Vec::new();
    for (mount, controller) in of_mounts {
        let mut path = parse_group(&groups, controller).unwrap_or("/");
        loop {
            let text = fs::read_to_string(format!("{mount}{}/cpu.stat", path.trim_end_matches('/')));
            all.extend(text.ok().and_then(|t| parse_throttled(&t)));
            let Some((above, last)) = path.rsplit_once('/') else { break };
            if last.is_empty() {
                break;
            }
            path = if above.is_empty() { "/" } else { above };
        }
    }
    all.into_iter().reduce(f64::max)
}

/// The path of the group with this controller; the unified hierarchy's has no name.
fn parse_group<'a>(groups: &'a str, controller: &str) -> Option<&'a str> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        fields.next()?.split(',').any(|c| c == controller).then_some(())?;
        fields.next()
    })
}

/// Version 2 counts microseconds, version 1 nanoseconds.
fn parse_throttled(stat: &str) -> Option<f64> {
    let v2 = field(stat, "throttled_usec ").map(|us| us as f64 * MICRO);
    v2.or_else(|| field(stat, "throttled_time ").map(|ns| ns as f64 * 1e-9))
}

/// Seconds for which heat slowed a core, or its package, down.
fn heat(core: usize) -> Option<f64> {
    let folder = format!("/sys/devices/system/cpu/cpu{core}/thermal_throttle");
    let read = |name: &str| fs::read_to_string(format!("{folder}/{name}")).ok()?.trim().parse::<u64>().ok();
    let (core, package) = (read("core_throttle_total_time_ms"), read("package_throttle_total_time_ms"));
    core.max(package).map(|ms| ms as f64 * 1e-3)
}

/// Mean clock rate of the cores, where the system tells it of each: a hypervisor's constant is not told there.
fn clock_mhz(cores: &[usize]) -> Option<f64> {
    let one = |core: &usize| {
        let path = format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq");
        fs::read_to_string(path).ok()?.trim().parse::<f64>().ok()
    };
    let all: Vec<f64> = cores.iter().filter_map(one).collect();
    (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64 / 1e3)
}

/// Processor seconds of this process, of threads that have ended as well.
#[cfg(target_os = "linux")]
fn own_seconds() -> Option<f64> {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9)
}

#[cfg(not(target_os = "linux"))]
fn own_seconds() -> Option<f64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_read_by_their_numbers_and_the_sum_is_none() {
        let stat = "cpu  10 0 0 0 0 0 0 0 0 0\ncpu0 1 2 3 400 5 6 7 8 9 9\ncpu12 1 0 0 4 0 0 0 2 0 0\nintr 1 2\n";
        let [first, second] = parse_cores(stat)[..] else { panic!("two cores") };
        assert_eq!(first, Core { number: 0, busy: 1 + 2 + 3 + 6 + 7, stolen: 8 });
        assert_eq!(second, Core { number: 12, busy: 1, stolen: 2 });
        assert!(parse_cores("cpu0 1 2 3\n").is_empty(), "a kernel without steal tells too little");
    }

    #[test]
    fn threads_pressure_and_faults_are_read_from_their_places() {
        assert_eq!(parse_task(7, "398181643 335229 22\n"), Some(Task { id: 7, ran: 398_181_643, waited: 335_229 }));
        assert_eq!(parse_task(7, "398181643\n"), None);
        let psi = "some avg10=0.24 avg60=1.45 avg300=4.68 total=8290098\nfull avg10=0.00 total=1\n";
        assert_eq!(parse_pressure(psi), Some(8.290_098));
        assert_eq!(parse_pressure("full total=1\n"), None);
        let stat = "12 (a) b c) S 1 12 12 0 -1 4194304 100 0 33 0 1 2";
        assert_eq!(parse_major_faults(stat), Some(33));
    }

    #[test]
    fn lists_of_cores_are_ranges_and_single_ones() {
        assert_eq!(parse_list("\t0-2,5,8-9\n"), [0, 1, 2, 5, 8, 9]);
        assert!(parse_list("").is_empty());
    }

    #[test]
    fn quotas_are_counted_in_the_units_of_either_version() {
        assert_eq!(parse_throttled("nr_throttled 3\nthrottled_usec 1500000\n"), Some(1.5));
        assert_eq!(parse_throttled("nr_periods 0\nthrottled_time 2000000000\n"), Some(2.0));
        assert_eq!(parse_throttled("usage_usec 9\n"), None);
        let groups = "4:memory:/a/b\n2:cpu,cpuacct:/docker/x\n0::/user.slice/c\n";
        assert_eq!(parse_group(groups, "cpu"), Some("/docker/x"));
        assert_eq!(parse_group(groups, ""), Some("/user.slice/c"));
        assert_eq!(parse_group(groups, "pids"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_system_tells_of_its_cores_and_of_this_process() {
        let cores = allowed_cores();
        assert!(!cores.is_empty());
        let now = Accounts::now(1.0, &cores);
        assert!(now.own.is_some_and(|s| s > 0.0) && now.cores.len() <= cores.len());
        assert!(tasks().is_none_or(|t| t.iter().all(|t| t.id > 0)));
    }
}
