//! Whether this machine saves power just now: a laptop on its battery, a governor or a profile that keeps clock rates low.

use std::fs;
use std::path::Path;

/// Why the machine is slower than it could be, in words; `None` where nothing of the kind is told.
pub(crate) fn power() -> Option<String> {
    saving(Path::new("/sys"))
}

fn read(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_string())
}

fn saving(sys: &Path) -> Option<String> {
    let all: Vec<String> = [battery(sys), governor(sys), profile(sys)].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// On a battery that is being emptied, with no line that gives power.
fn battery(sys: &Path) -> Option<String> {
    let supplies: Vec<_> = fs::read_dir(sys.join("class/power_supply")).ok()?.flatten().map(|e| e.path()).collect();
    let of = |kind: &str| {
        supplies
            .iter()
            .filter(|s| read(&s.join("type")).as_deref() == Some(kind))
            .map(|s| s.as_path())
            .collect::<Vec<_>>()
    };
    let powered = ["Mains", "USB"].iter().flat_map(|k| of(k)).any(|s| read(&s.join("online")).as_deref() == Some("1"));
    // A mouse's battery is not the machine's.
    let own = |s: &&Path| read(&s.join("scope")).as_deref() != Some("Device");
    let emptied =
        of("Battery").into_iter().filter(own).any(|s| read(&s.join("status")).as_deref() == Some("Discharging"));
    (emptied && !powered).then(|| "the machine runs on its battery".into())
}

/// Where the processor itself chooses its clock rates, a governor of that name is the usual one, and its preference says more.
fn governor(sys: &Path) -> Option<String> {
    let folder = sys.join("devices/system/cpu/cpu0/cpufreq");
    if let Some(preference) = read(&folder.join("energy_performance_preference")) {
        return (preference == "power").then(|| "the processor's energy preference is `power`".into());
    }
    let governor = read(&folder.join("scaling_governor"))?;
    (governor == "powersave").then(|| "the CPU frequency governor is `powersave`".into())
}

fn profile(sys: &Path) -> Option<String> {
    let profile = read(&sys.join("firmware/acpi/platform_profile"))?;
    matches!(profile.as_str(), "low-power" | "quiet").then(|| format!("the platform's profile is `{profile}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Option<String> {
        let sys = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        saving(sys.path())
    }

    #[test]
    fn a_laptop_off_its_line_says_so_and_one_on_it_does_not() {
        let battery = [("class/power_supply/BAT0/type", "Battery"), ("class/power_supply/BAT0/status", "Discharging")];
        let with = |online| {
            machine(
                &[&battery[..], &[("class/power_supply/AC/type", "Mains"), ("class/power_supply/AC/online", online)]]
                    .concat(),
            )
        };
        assert_eq!(with("0").unwrap(), "the machine runs on its battery");
        assert_eq!(with("1"), None);
        let mouse = [&battery[..], &[("class/power_supply/BAT0/scope", "Device")]].concat();
        assert_eq!(machine(&mouse), None);
        assert_eq!(machine(&[]), None, "a server tells nothing");
    }

    #[test]
    fn powersave_is_what_it_says_only_where_the_kernel_chooses() {
        let cpufreq = |name: &str| format!("devices/system/cpu/cpu0/cpufreq/{name}");
        let (governor, preference) = (cpufreq("scaling_governor"), cpufreq("energy_performance_preference"));
        assert!(machine(&[(&governor, "powersave")]).unwrap().contains("governor is `powersave`"));
        assert_eq!(machine(&[(&governor, "powersave"), (&preference, "balance_performance")]), None);
        assert!(machine(&[(&governor, "powersave"), (&preference, "power")]).is_some());
        assert_eq!(
            machine(&[("firmware/acpi/platform_profile", "low-power")]).unwrap(),
            "the platform's profile is `low-power`"
        );
    }
}
