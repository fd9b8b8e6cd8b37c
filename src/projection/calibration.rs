//! The calibration file: constants with what they were fitted to, error bars, and how a program of one's own compares.

use super::bars::{Bar, Bars, Effects};
use super::constants::{Constants, PRIORS};
use super::device::{Kind, Unit};
use super::published::{Group, Quantity};
use super::traits::{self, NAMES, TRAITS, Traits};
use crate::yaml::{Entry, Node, Origin, Sources, Value, YamlError, fields};
use std::fmt::Write;
use std::sync::OnceLock;

/// Everything that a projection is made with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    /// When and to what it was fitted.
    pub fitted: String,
    /// What hardware and programs attain.
    pub constants: Constants,
    /// From rows whose source was left out of the fit.
    pub bars: Bars,
    /// Architectures that the rows were measured on.
    pub seen: Vec<String>,
    /// How this program compares with a good engine, where it was measured.
    pub own: Vec<Own>,
}

/// One program's time over the projection of a good engine on the same device.
#[derive(Clone, Debug, PartialEq)]
pub struct Own {
    pub quantity: Quantity,
    /// Geometric mean of measured over projected time: 1.2 is a fifth slower than a good engine.
    pub time_ratio: f64,
    /// Half width in ln that holds 90 % of the measured trials.
    pub spread: f64,
    pub trials: u64,
    /// On which device.
    pub device: String,
}

impl Own {
    /// What is taken of it for a device: on a GPU, which has kernels of its own, a program that is faster than a good engine on a
    /// CPU is not assumed to be so as well.
    pub fn time_ratio_on(&self, device: &Unit) -> f64 {
        if device.kind == Kind::Cpu { self.time_ratio } else { self.time_ratio.max(1.0) }
    }
}

const BUILT_IN: &str = include_str!("../../hardware/projection.yaml");
const TOP: &[&str] = &["version", "fitted", "constants", "bars", "seen", "own"];
const BAR: &[&str] = &["sources", "half", "between", "within", "factors"];
const OWN: &[&str] = &["quantity", "time_ratio", "spread", "trials", "device"];

impl Calibration {
    /// Whether rows that the bars rest on were measured on such a device.
    pub fn has_seen(&self, device: &Unit) -> bool {
        self.seen.is_empty() || self.seen.contains(&device.architecture)
    }

    /// What widens the bar of a projection.
    pub fn traits(&self, quantity: Quantity, device: &Unit, devices: f64, short: bool) -> Traits {
        traits::of(quantity, device, devices, 0, self.has_seen(device), false, short)
    }

    /// What this program carries.
    ///
    /// # Errors
    /// A fault in our own file, which the tests exclude.
    pub fn built_in() -> Result<&'static Self, &'static YamlError> {
        static ONE: OnceLock<Result<Calibration, YamlError>> = OnceLock::new();
        ONE.get_or_init(|| Self::parse(BUILT_IN, Origin::File { path: "hardware/projection.yaml".into(), place: None }))
            .as_ref()
    }

    /// Reads a file's text; constants that it leaves out have their priors.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str, origin: Origin) -> Result<Self, YamlError> {
        let mut s = Sources::default();
        let root = s.parse(origin, text)?;
        fields::entries("a calibration", Some(&root), TOP, &[], &s)?;
        match root.get("version").map(|e| &e.node.value) {
            Some(Value::Integer(1)) => {}
            _ => {
                return Err(
                    s.fault(root.place, "version: this program reads version 1; begin the file with `version: 1`")
                );
            }
        }
        let fitted = root.get("fitted").map(|e| fields::text(e, "", &s)).transpose()?.unwrap_or_default();
        let over_zero = |e, section: &str| fields::number(e, section, |x| x > 0.0, "a number above 0", &s);
        let mut constants = Constants::default();
        let known: Vec<&str> = PRIORS.iter().map(|p| p.name).collect();
        let section = root.get("constants").map(|e| &e.node);
        for e in fields::entries("constants", section, &known, &[], &s)? {
            let value = over_zero(e, "constants.")?;
            if let Some(c) = constants.named(&e.key) {
                *c = value;
            }
        }
        let quantities: Vec<&str> = Quantity::ALL.iter().map(|q| q.name()).collect();
        let quantity = |name: &str| Quantity::ALL.into_iter().find(|q| q.name() == name);
        let groups: Vec<&str> = Group::ALL.iter().map(|g| g.name()).collect();
        let mut bars = Vec::new();
        for e in fields::entries("bars", root.get("bars").map(|e| &e.node), &groups, &[], &s)? {
            let Some(group) = Group::ALL.into_iter().find(|g| g.name() == e.key) else { continue };
            bars.push(bar(group, e, &s)?);
        }
        let seen = seen(&root, &s)?;
        let mut own = Vec::new();
        if let Some(e) = root.get("own") {
            let Value::List(items) = &e.node.value else {
                return Err(s.fault(e.node.place, "own: expected a list"));
            };
            for node in items {
                fields::entries("own", Some(node), OWN, &[], &s)?;
                let need =
                    |key: &str| node.get(key).ok_or_else(|| s.fault(node.place, format!("own: `{key}` is missing")));
                let named = need("quantity")?;
                let name = fields::text(named, "own.", &s)?;
                let quantity = quantity(&name).ok_or_else(|| {
                    s.fault(named.node.place, format!("own.quantity: expected one of {}", quantities.join(", ")))
                })?;
                own.push(Own {
                    quantity,
                    time_ratio: over_zero(need("time_ratio")?, "own.")?,
                    spread: over_zero(need("spread")?, "own.")?,
                    trials: fields::whole(need("trials")?, "own.", 1, &s)?,
                    device: fields::text(need("device")?, "own.", &s)?,
                });
            }
        }
        Ok(Self { fitted, constants, bars: Bars(bars), seen, own })
    }

    /// The file's text.
    pub fn to_yaml(&self) -> String {
        let mut t = String::from(
            "# Constants of the projection: `centime project calibrate` writes this file. Each is one number for all devices of\n\
             # its class, fitted to published measurements with a prior; the line above it says what it means, its prior with\n\
             # the spread of its logarithm, and where the prior is from. No constant belongs to one publication.\n",
        );
        // Writing to a string cannot fail.
        let _ = writeln!(t, "version: 1\nfitted: {:?}\nconstants:", self.fitted);
        for (p, value) in PRIORS.iter().zip(self.constants.values()) {
            let _ = writeln!(t, "  #{} Prior {} x/ {:.2}: {}", p.meaning, plain(p.value), p.spread.exp(), p.source);
            let _ = writeln!(t, "  {}: {}", p.name, plain(value));
        }
        t.push_str(
            "# Bars that hold 90 % of a source that took no part: half width in ln, what each trait of a configuration widens it by\n\
             # (in ln), and standard deviations of a source's own part of the errors and of its rows about it.\nbars:\n",
        );
        for b in &self.bars.0 {
            let factors: Vec<String> = NAMES.iter().zip(b.factors).map(|(n, f)| format!("{n}: {f:.3}")).collect();
            let _ = writeln!(
                t,
                "  {}: {{ sources: {}, half: {:.4}, between: {:.4}, within: {:.4}, factors: {{ {} }} }}",
                b.group.name(),
                b.sources,
                b.half,
                b.effects.between,
                b.effects.within,
                factors.join(", ")
            );
        }
        if !self.seen.is_empty() {
            let seen: Vec<String> = self.seen.iter().map(|a| format!("{a:?}")).collect();
            let _ = writeln!(t, "# Architectures that the rows were measured on.\nseen: [{}]", seen.join(", "));
        }
        if !self.own.is_empty() {
            t.push_str("# Measured over projected time of this program, on the devices where it was measured.\nown:\n");
            for o in &self.own {
                let _ = writeln!(
                    t,
                    "  - {{ quantity: {}, time_ratio: {:.4}, spread: {:.4}, trials: {}, device: {:?} }}",
                    o.quantity.name(),
                    o.time_ratio,
                    o.spread,
                    o.trials,
                    o.device
                );
            }
        }
        t
    }
}

fn seen(root: &Node, s: &Sources) -> Result<Vec<String>, YamlError> {
    let Some(e) = root.get("seen") else { return Ok(vec![]) };
    let wrong = |place| s.fault(place, "seen: expected a list of architectures");
    let Value::List(items) = &e.node.value else { return Err(wrong(e.node.place)) };
    let one = |n: &Node| match &n.value {
        Value::Text(text) => Ok(text.clone()),
        _ => Err(wrong(n.place)),
    };
    items.iter().map(one).collect()
}

fn bar(group: Group, entry: &Entry, s: &Sources) -> Result<Bar, YamlError> {
    let at = format!("bars.{}.", group.name());
    let node = &entry.node;
    fields::entries("a bar", Some(node), BAR, &[], s)?;
    let need = |key: &str| {
        let found = node.get(key).ok_or_else(|| s.fault(node.place, format!("{at}{key} is missing")))?;
        fields::number(found, &at, |x| x > 0.0, "a number above 0", s)
    };
    let mut factors = [0.0; TRAITS];
    for e in fields::entries("factors", node.get("factors").map(|e| &e.node), &NAMES, &[], s)? {
        if let Some(i) = NAMES.iter().position(|n| *n == e.key) {
            factors[i] = fields::number(e, &format!("{at}factors."), |x| x.abs() < 10.0, "a number from -10 to 10", s)?;
        }
    }
    let effects = Effects { between: need("between")?, within: need("within")? };
    Ok(Bar { group, sources: need("sources")? as usize, half: need("half")?, factors, effects })
}

/// Four significant digits, as YAML reads numbers.
fn plain(x: f64) -> String {
    if (1e-3..1e6).contains(&x) {
        let digits = (3 - x.log10().floor() as i32).max(0) as usize;
        let text = format!("{x:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
    } else {
        let text = format!("{x:.3e}");
        // YAML wants a sign: 3.5e+11.
        text.replace("e-", "E").replace('e', "e+").replace('E', "e-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test() -> Origin {
        Origin::File { path: "test.yaml".into(), place: None }
    }

    #[test]
    fn the_file_goes_there_and_back() {
        let own = vec![Own {
            quantity: Quantity::DecodeTokens,
            time_ratio: 1.25,
            spread: 0.1,
            trials: 7,
            device: "cpu \"x\"".into(),
        }];
        let c = Calibration {
            fitted: "to nothing".into(),
            constants: Constants::default(),
            bars: Bars(vec![Bar {
                group: Group::Training,
                sources: 7,
                half: 0.25,
                factors: [0.5; TRAITS],
                effects: Effects { between: 0.125, within: 0.0625 },
            }]),
            seen: vec!["Ampere".into(), "Blackwell Ultra".into()],
            own,
        };
        let text = c.to_yaml();
        assert_eq!(Calibration::parse(&text, test()).unwrap(), c, "{text}");
        let built_in = Calibration::built_in().unwrap();
        assert!(!built_in.bars.0.is_empty() && !built_in.fitted.is_empty());
    }

    #[test]
    fn a_wrong_file_says_where() {
        for (text, message) in [
            ("fitted: x\n", "version"),
            ("version: 1\nconstants: { matmul_shar: 1 }\n", "matmul_share"),
            ("version: 1\nconstants: { matmul_share: -1 }\n", "a number above 0"),
            ("version: 1\nbars: { decoding: 1 }\n", "inference"),
            ("version: 1\nbars: { memory: { sources: 3, half: 1, between: 0.1 } }\n", "within is missing"),
            ("version: 1\nown: [{ quantity: decode }]\n", "`time_ratio` is missing"),
        ] {
            let e = Calibration::parse(text, test()).unwrap_err().render(false);
            assert!(e.contains(message), "{text}: {e}");
        }
    }
}
